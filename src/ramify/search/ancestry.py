"""Which trial a new one begins as: the one that has already trained most of its network.

A trial whose structure extends that of an earlier one starts as its grown child, see :mod:`ramify.ops.growing.extend`.
The choice is a function of the record alone, so that every worker would make the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ramify.config.keys import births
from ramify.config.read import read_config
from ramify.config.rules import Config, resolve
from ramify.files import readable_folder, replace_folder, write_atomic
from ramify.ops.growing.extend import overlap
from ramify.run.derive import NO_GROWTH
from ramify.run.folder import CONFIG, is_run

_FREE = ("batch_size", "augment")
"""Keys of the section ``data`` that change neither the pictures nor how they are dealt out."""


@dataclass(frozen=True)
class Ancestor:
    """What a trial begins as: the network of another one as it was at a rung; ``cells`` of its cells are taken over."""

    trial: int
    rung: int
    cells: int


@dataclass(frozen=True)
class Candidate:
    """A trial with a result: its number, its latest rung, its accuracy there, and the configuration of its run."""

    number: int
    rung: int
    accuracy: float
    config: Config


def choose_ancestor(config: Config, candidates: Sequence[Candidate]) -> Ancestor | None:
    """The candidate from which a trial of ``config`` takes over most cells; of equal ones the most accurate.

    Candidates with other pictures, another split, or widths that are not as configured are no ancestors.
    """
    found: list[tuple[int, float, int, Ancestor]] = []
    child = resolve(config)
    for each in candidates:
        parent = resolve(each.config)
        shared = overlap(parent.network, child.network, _stages_at(parent, each.rung))
        if shared is not None and _same_pictures(parent, child) and not _other_widths(parent):
            ancestor = Ancestor(each.number, each.rung, shared.cells)
            found.append((shared.cells, each.accuracy, -each.number, ancestor))
    return max(found, key=lambda entry: entry[:3])[3] if found else None


def _stages_at(config: Config, rung: int) -> int:
    """How many stages the network of ``config`` has at least after the epoch ``rung``."""
    if config.growth.mode == "loss" and config.parent is None:
        return config.network.first_stages
    return sum(birth <= rung for birth in births(config))


def _same_pictures(one: Config, other: Config) -> bool:
    return one.seed == other.seed and one.data.model_dump(exclude=set(_FREE)) == other.data.model_dump(
        exclude=set(_FREE)
    )


def _other_widths(config: Config) -> bool:
    wider = any(action != "deeper" for action in config.growth.plan or ())
    return wider or (config.prune.enabled and config.prune.unit == "channel")


def heir_config(overrides: Sequence[str], parent: Path) -> Config:
    """The configuration of a trial of ``overrides`` that begins as the network in ``parent``.

    It has all its stages from the first epoch on. Its final classifier is of the kind of its internal classifiers, so
    that it, too, can begin as one of them.
    """
    config = read_config(overrides=overrides)
    final = config.network.final or config.network.exit
    return read_config(
        overrides=[*overrides, *NO_GROWTH, f"parent='{parent}'", "convert=extend", f"network.final={final}"]
    )


def rung_folder(run: Path, rung: int) -> Path:
    """Where the network of ``run`` is kept as it was at ``rung``, with the state of its optimizer."""
    return run / "rungs" / str(rung)


def keep_rung(run: Path, rung: int) -> None:
    """Keep the last checkpoint of ``run`` under :func:`rung_folder`, for trials that begin as it."""
    kept = rung_folder(run, rung)
    if not is_run(kept):
        files = readable_folder(run / "last").iterdir()
        replace_folder(kept / "last", {file.name: file.read_bytes() for file in files})
        write_atomic(kept / CONFIG, (run / CONFIG).read_bytes())
