"""Runs that differ in their seed alone, taken together: groups, their names, means and standard deviations."""

import itertools
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import yaml
from pydantic import TypeAdapter, ValidationError

from ramify.config.read import read_config
from ramify.config.rules import Config, keys
from ramify.config.yamltext import Loader, to_text
from ramify.data.fetch import Progress
from ramify.errors import CheckpointError, RamifyError
from ramify.run.checkpoint import Card, ExitPolicy
from ramify.run.events import EpochDone
from ramify.run.folder import CONFIG, METRICS, read_lines
from ramify.run.readback import describe, remeasure
from ramify.run.saved import read_saved
from ramify.run.summary import Summary
from ramify.show.terminal.tables import amount
from ramify.show.words import plural

LAST = -1
"""Stands for the last exit of a run, however many it has; earlier exits are counted from 0."""

AT_MOST = 4
"""Keys of a configuration that are tried together to tell groups apart; if so few do not, all are taken."""

FIRST = (
    "network.kind",
    "network.cells",
    "prune.policy",
    "prune.criterion",
    "prune.control",
    "prune.enabled",
    "prune.keep_ratio",
    "data.source",
    "network.structure",
    "network.channels",
    "growth.mode",
    "growth.init",
    "growth.plan",
    "growth.freeze",
    "train.epochs",
    "train.learning_rate",
    "prune.epochs",
    "network.cell",
    "network.exit",
    "data.limit",
    "data.size",
    "growth.epochs",
    "parent",
)
"""Of keys that tell groups apart equally well, these are named first; all others follow."""

UNPRUNED = "unpruned"

OUTSIDE = ("seed", "name", "runs_dir")
"""Keys in which runs of one group may differ."""


@dataclass(frozen=True)
class PolicyPoint:
    """What the calibrated policy of a run gives on its test pictures; ``goal`` is what it was calibrated for."""

    accuracy: float
    macs: float
    goal: str


@dataclass(frozen=True)
class Run:
    """What a comparison takes of a run.

    Attributes:
        config: as it was resolved.
        recipe: the same for runs that may be averaged, see :func:`ramify.run.summary.recipe`.
        trained, planned: epochs.
        exits_planned: exits of the fully grown network.
        accuracy: of each exit on the test pictures, in [0, 1]; empty while the run has not finished.
        macs: of each exit that exists.
        kept, weights, parameters: of the whole network; ``kept`` are the weights that no mask removes.
        seconds: of training and validation; None where that is not known.
        policy: None without a calibrated one, or where ``unmeasured`` tells why it is not known.
        epochs: epoch, and the accuracy of the deepest exit that there was, on the validation pictures.
        machine, versions: on what and with what it was trained.
    """

    name: str
    folder: str
    seed: int
    config: Config
    recipe: str
    trained: int
    planned: int
    exits_planned: int
    accuracy: tuple[float, ...]
    macs: tuple[int, ...]
    kept: int
    weights: int
    parameters: int
    seconds: float | None
    policy: PolicyPoint | None
    unmeasured: str | None
    epochs: tuple[tuple[int, float], ...]
    machine: str
    versions: str

    @property
    def finished(self) -> bool:
        """Whether it has a test accuracy."""
        return bool(self.accuracy)

    def accuracy_at(self, exit_: int) -> float | None:
        """Test accuracy of an exit, counted from 0 among those before the last, or :data:`LAST`; None without."""
        return _at(self.accuracy, exit_)

    def macs_at(self, exit_: int) -> float | None:
        """The same of the MACs."""
        return _at(self.macs, exit_)


def _at(values: Sequence[float], exit_: int) -> float | None:
    if exit_ == LAST:
        return values[-1] if values else None
    return values[exit_] if exit_ < len(values) - 1 else None


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (of the sample, n - 1) of ``n`` values; one value has no deviation."""

    mean: float
    deviation: float | None
    n: int


def spread(values: Iterable[float | None]) -> Spread | None:
    """The :class:`Spread` of the values that are known, None where none is. Their order does not matter.

    Example:
        >>> spread([1.0, 3.0, None])
        Spread(mean=2.0, deviation=1.4142135623730951, n=2)
        >>> spread([1.0]), spread([])
        (Spread(mean=1.0, deviation=None, n=1), None)
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return Spread(statistics.fmean(known), deviation, len(known))


@dataclass(frozen=True)
class Group:
    """Runs of one recipe, by seed; ``label`` tells them from the other groups."""

    label: str
    runs: tuple[Run, ...]

    @property
    def config(self) -> Config:
        """The configuration that they share but for :data:`OUTSIDE`."""
        return self.runs[0].config

    @property
    def finished(self) -> tuple[Run, ...]:
        """Those with a test accuracy."""
        return tuple(run for run in self.runs if run.finished)

    @property
    def earlier(self) -> range:
        """The exits before the last one that some run of the group has, from 0."""
        return range(max(len(run.macs) for run in self.runs) - 1)

    def spread(self, figure: Callable[[Run], float | None]) -> Spread | None:
        """Mean and deviation of a figure over the finished runs that have it."""
        return spread(figure(run) for run in self.finished)

    def accuracy(self, exit_: int) -> Spread | None:
        """Test accuracy of an exit, see :meth:`Run.accuracy_at`."""
        return self.spread(lambda run: run.accuracy_at(exit_))

    def macs(self, exit_: int) -> Spread | None:
        """MACs of an exit."""
        return self.spread(lambda run: run.macs_at(exit_))

    def policy(self) -> tuple[Spread, Spread] | None:
        """Test accuracy and average MACs of the calibrated policies; None where no run has one."""
        accuracy = self.spread(lambda run: run.policy.accuracy if run.policy else None)
        macs = self.spread(lambda run: run.policy.macs if run.policy else None)
        return None if accuracy is None or macs is None else (accuracy, macs)

    def epochs(self) -> dict[int, Spread]:
        """For each epoch, the validation accuracy of the deepest exit over the runs that reached it."""
        found: dict[int, list[float]] = {}
        for run in self.runs:
            for epoch, accuracy in run.epochs:
                found.setdefault(epoch, []).append(accuracy)
        return {epoch: told for epoch in sorted(found) if (told := spread(found[epoch])) is not None}


def grouped(runs: Iterable[Run], varied: Sequence[str] = ()) -> tuple[Group, ...]:
    """Runs by their recipe, each group with its label, in the order of the labels; the order given does not matter.

    Args:
        varied: the keys that were varied on purpose: labels are made of them, where they tell the groups apart.
    """
    found: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.recipe, run.seed, run.name, run.folder)):
        found.setdefault(run.recipe, []).append(run)
    names = labels([members[0].config for members in found.values()], varied)
    groups = [Group(name, tuple(members)) for name, members in zip(names, found.values(), strict=True)]
    return tuple(sorted(groups, key=lambda group: _natural(group.label)))


def _natural(label: str) -> list[tuple[float, str]]:
    """For sorting ``8 channels`` before ``16 channels``."""
    parts = re.split(r"(\d+(?:\.\d+)?)", label)
    return [(float(part), "") if i % 2 else (-1.0, part) for i, part in enumerate(parts)]


def flat(config: Config) -> dict[str, object]:
    """Every key of ``config`` with its value, but :data:`OUTSIDE`."""
    found: dict[str, object] = {}
    for key, _ in keys():
        value: object = config
        for part in key.split("."):
            value = getattr(value, part)
        if key not in OUTSIDE:
            found[key] = value
    return found


def differing(configs: Sequence[Config]) -> list[str]:
    """The keys in which ``configs`` differ, those of :data:`FIRST` before the others.

    Example:
        >>> from ramify.config.rules import NetworkConfig
        >>> differing([Config(seed=1), Config(seed=2, network=NetworkConfig(channels=8))])
        ['network.channels']
    """
    tables = [flat(config) for config in configs]
    order = [*FIRST, *(key for key in tables[0] if key not in FIRST)]
    return [key for key in order if any(table[key] != tables[0][key] for table in tables)]


def labels(configs: Sequence[Config], varied: Sequence[str] = ()) -> list[str]:
    """A name for each of ``configs``, made of the ``varied`` keys, or else the fewest that tell them all apart.

    Example:
        >>> from ramify.config.rules import NetworkConfig
        >>> labels([Config(network=NetworkConfig(kind="dense")), Config(), Config(network=NetworkConfig(channels=8))])
        ['dense · 16 channels', 'iterative · 16 channels', 'iterative · 8 channels']
    """
    tables = [flat(config) for config in configs]
    chosen = tuple(varied) or (_telling(tables, differing(configs)) if len(configs) > 1 else ())
    words = [list(dict.fromkeys(_words(table, chosen))) or [str(table["network.kind"])] for table in tables]
    found = [" · ".join(each) for each in words]
    # What was not done need not be said where the rest of the name will do.
    brief = [" · ".join(word for word in each if word != UNPRUNED) for each in words]
    found = [less if less and brief.count(less) == 1 else name for name, less in zip(found, brief, strict=True)]
    twins = {name for name in found if found.count(name) > 1}
    counts: dict[str, int] = {}
    for i, name in enumerate(found):
        if name in twins:
            counts[name] = counts.get(name, 0) + 1
            found[i] = f"{name} ({counts[name]})"
    return found


def _telling(tables: Sequence[Mapping[str, object]], candidates: Sequence[str]) -> tuple[str, ...]:
    """The fewest of ``candidates``, the first ones among equals, by which no two of ``tables`` look the same."""
    for size in range(1, min(AT_MOST, len(candidates)) + 1):
        for chosen in itertools.combinations(candidates, size):
            if len({tuple(_words(table, chosen)) for table in tables}) == len(tables):
                return chosen
    return tuple(candidates)


def _words(table: Mapping[str, object], chosen: Iterable[str]) -> list[str]:
    return [key_words(key, table) for key in chosen]


def key_words(key: str, table: Mapping[str, object]) -> str:
    """What a key says in a configuration, in a word or two."""
    value = table[key]
    leaf = key.rpartition(".")[2]
    if key.startswith("prune.") and not table["prune.enabled"]:
        return UNPRUNED
    match key:
        case "network.kind" | "network.cells" | "network.cell" | "prune.criterion" | "convert":
            return "not converted" if value is None else str(value)
        case "prune.enabled":
            return f"keep {_plain(table['prune.keep_ratio'])}"
        case "prune.control":
            return "no control" if value == "none" else f"control {value}"
        case "prune.policy":
            return f"{value} pruning"
        case "prune.keep_ratio":
            return f"keep {_plain(value)}"
        case "network.structure":
            assert isinstance(value, tuple)
            return "".join(str(bit) for bit in value)
        case "network.channels" | "train.epochs":
            return f"{_plain(value)} {leaf}"
        case "growth.mode":
            return f"grown by {'loss' if value == 'loss' else 'schedule'}"
        case "growth.init":
            return f"{value} start"
        case "data.source" | "parent":
            name = PurePath(str(value)).name if value is not None else "none"
            return f"from {name}" if key == "parent" else name
        case _:
            section = "" if "." not in key else key.rpartition(".")[0] + " "
            return f"{section}{leaf} {_plain(value)}".replace("_", " ")


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return "/".join(_plain(each) for each in value)
    return value if isinstance(value, str) else to_text(value)


def read_run(folder: Path, progress: Progress | None = None, *, policy: bool = True) -> Run:
    """What a comparison takes of the run in ``folder``; with ``policy`` what its policy gives is measured again.

    Raises:
        InputError: it has no checkpoint yet, or one of its files is damaged.
    """
    summary = describe(folder)
    _, card = read_saved(folder)
    found, unmeasured = _policy(folder, summary, card, progress) if policy else (None, None)
    machine = summary.machine
    last = summary.exits[-1]
    return Run(
        name=folder.name,
        folder=str(folder),
        seed=summary.seed,
        config=read_config([folder / CONFIG]),
        recipe=summary.recipe,
        trained=summary.epochs,
        planned=summary.planned_epochs,
        exits_planned=summary.exits_planned,
        accuracy=tuple(each.test.top1 for each in summary.exits if each.test is not None),
        macs=tuple(each.macs for each in summary.exits),
        kept=last.kept,
        weights=last.weights,
        parameters=last.parameters,
        seconds=summary.seconds if summary.finished else None,
        policy=found,
        unmeasured=unmeasured,
        epochs=_epochs(folder / METRICS),
        machine=f"{machine['device']}, {machine['precision']}, {plural(int(machine['threads']), 'thread')}"
        if machine
        else "",
        versions=", ".join(f"{name} {version}" for name, version in summary.versions.items()),
    )


def _policy(
    folder: Path, summary: Summary, card: Card, progress: Progress | None
) -> tuple[PolicyPoint | None, str | None]:
    if card.policy is None or not summary.finished:
        return None, None
    try:
        outcome = remeasure(folder, progress=progress).outcome
    except RamifyError as error:
        return None, error.problems[0]
    assert outcome is not None
    return PolicyPoint(outcome.accuracy, outcome.macs, _goal(card.policy)), None


def _goal(policy: ExitPolicy) -> str:
    found = policy.calibration
    if found.max_drop is not None:
        points = 100 * found.max_drop
        return f"to lose at most {points:g} point{'' if points == 1 else 's'}"
    return f"to cost at most {amount(found.max_cost or 0.0, policy.unit)}"


def _epochs(path: Path) -> tuple[tuple[int, float], ...]:
    try:
        epochs = TypeAdapter(tuple[EpochDone, ...]).validate_python(read_lines(path))
    except ValidationError as error:
        raise CheckpointError(f"{path}: is damaged ({error.error_count()} wrong fields)") from error
    scores = ((done.epoch, done.exits[-1].valid) for done in epochs)
    return tuple((epoch, score.top1) for epoch, score in scores if score is not None)


def varied_keys(folders: Sequence[Path]) -> tuple[str, ...]:
    """The keys that were varied where all of ``folders`` are runs of one sweep; empty where they are not."""
    places = {folder.resolve().parent.parent / "sweep.yaml" for folder in folders}
    try:
        found = yaml.load(places.pop().read_text(encoding="utf-8"), Loader=Loader) if len(places) == 1 else {}
        return tuple(str(key) for key in found["vary"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return ()


def groups_of(folders: Sequence[Path]) -> tuple[Group, ...]:
    """The runs in ``folders`` in groups, in the order in which they are named first, without their policies.

    Raises:
        InputError: a run has no checkpoint yet, or one of its files is damaged.
    """
    runs = [read_run(folder, policy=False) for folder in folders]
    places = {run.recipe: place for place, run in reversed(list(enumerate(runs)))}
    return tuple(sorted(grouped(runs, varied_keys(folders)), key=lambda group: places[group.runs[0].recipe]))
