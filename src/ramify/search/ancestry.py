"""The ancestor of a trial: the earlier one that has already trained most of its network.

A trial whose structure extends that of an earlier one starts as its grown child, see :mod:`ramify.ops.growing.extend`.
The choice is a function of the record alone.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from ramify.config.keys import births
from ramify.config.read import read_config
from ramify.config.rules import Config, resolve
from ramify.files import readable_folder, replace_folder, write_atomic
from ramify.ops.growing.extend import overlap
from ramify.run.derive import NO_GROWTH
from ramify.run.folder import CONFIG, is_run
from ramify.search.trial import Ancestor, Trial, trial_name

_FREE = ("batch_size", "augment")
"""Keys of the section ``data`` that change neither the pictures nor their split."""


def choose_ancestor(config: Config, trials: Sequence[Trial]) -> Ancestor | None:
    """Of the ``trials`` with a result the one from which a trial of ``config`` takes over most cells.

    Of equal ones, the most accurate. Those with other pictures, another split, or widths that are not as configured
    are no ancestors.
    """
    ranked: list[tuple[int, float, int, int]] = []
    child = resolve(config)
    for trial in trials:
        if not trial.results or trial.failed is not None:
            continue
        parent = resolve(_config_of_run(trial.overrides, trial.ancestor))
        shared = overlap(parent.network, child.network, _stages_at(parent, trial.epochs))
        if shared is not None and _pictures(parent) == _pictures(child) and not _other_widths(parent):
            ranked.append((shared.cells, trial.values["accuracy"], -trial.number, trial.epochs))
    if not ranked:
        return None
    cells, _, number, rung = max(ranked)
    return Ancestor(-number, rung, cells)


@lru_cache(maxsize=10_000)
def _config_of_run(overrides: tuple[str, ...], ancestor: Ancestor | None) -> Config:
    """The configuration of a trial's run, without its place."""
    if ancestor is None:
        return read_config(overrides=overrides)
    return heir_config(overrides, Path(trial_name(ancestor.trial)))


def _stages_at(config: Config, rung: int) -> int:
    """The stages that the network of ``config`` has at least after the epoch ``rung``."""
    if config.growth.mode == "loss" and config.parent is None:
        return config.network.first_stages
    return sum(birth <= rung for birth in births(config))


def _pictures(config: Config) -> tuple[int, dict[str, object]]:
    return config.seed, config.data.model_dump(exclude=set(_FREE))


def _other_widths(config: Config) -> bool:
    wider = any(action != "deeper" for action in config.growth.plan or ())
    return wider or (config.prune.enabled and config.prune.unit == "channel")


def heir_config(overrides: Sequence[str], parent: Path) -> Config:
    """The configuration of a trial of ``overrides`` that begins as the network in ``parent``.

    It has all its stages from the first epoch on. Its final classifier is of the kind of its internal classifiers and
    can begin as one of them.
    """
    config = read_config(overrides=overrides)
    final = config.network.final or config.network.exit
    changes = {**NO_GROWTH, "parent": str(parent), "convert": "extend", "network.final": final}
    kept = [text for text in overrides if text.partition("=")[0] not in changes]
    return read_config(overrides=kept, changes=changes)


def rung_folder(run: Path, rung: int) -> Path:
    """The folder of the network of ``run`` at ``rung``, with the state of its optimizer."""
    return run / "rungs" / str(rung)


def keep_rung(run: Path, rung: int) -> None:
    """Copy the last checkpoint of ``run`` to its :func:`rung_folder`."""
    kept = rung_folder(run, rung)
    if not is_run(kept):
        files = readable_folder(run / "last").iterdir()
        replace_folder(kept / "last", {file.name: file.read_bytes() for file in files})
        write_atomic(kept / CONFIG, (run / CONFIG).read_bytes())
