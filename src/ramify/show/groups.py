"""Runs that differ in their seed alone as groups, with their means, deviations and differences."""

import math
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from ramify.config.read import read_config
from ramify.config.rules import Config
from ramify.config.yamltext import Loader
from ramify.data.fetch import Progress
from ramify.errors import RamifyError
from ramify.run.checkpoint import ExitPolicy
from ramify.run.folder import CONFIG
from ramify.run.readback import describe, read_epochs, remeasure
from ramify.run.saved import read_saved
from ramify.run.summary import ExitSummary, Summary
from ramify.show.labels import labels
from ramify.show.words import amount, short

LAST = -1
"""The last exit of a run, of any number of exits; earlier exits are counted from 0."""

CONFIDENCE = 0.95
"""Of the intervals of differences."""


@dataclass(frozen=True)
class PolicyPoint:
    """Accuracy and average MACs of a calibrated policy on the test pictures, and the goal of its calibration."""

    accuracy: float
    macs: float
    goal: str


@dataclass(frozen=True)
class Run:
    """The parts of a run that comparisons use.

    Attributes:
        policy: None without a calibrated one, or where it could not be measured because of ``unmeasured``.
        epochs: pairs of an epoch and the validation accuracy of the deepest exit in it.
    """

    summary: Summary
    config: Config
    policy: PolicyPoint | None
    unmeasured: str | None
    epochs: tuple[tuple[int, float], ...]

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.summary.name

    @property
    def seed(self) -> int:
        """The seed of its training."""
        return self.summary.seed

    @property
    def accuracy(self) -> tuple[float, ...]:
        """Test accuracy of each exit, in [0, 1]; empty while the run has not finished."""
        return tuple(row.test.top1 for row in self.summary.exits if row.test is not None)

    @property
    def macs(self) -> tuple[int, ...]:
        """MACs of each exit."""
        return tuple(row.macs for row in self.summary.exits)

    @property
    def last(self) -> ExitSummary:
        """The last exit, which is the whole network."""
        return self.summary.exits[-1]

    @property
    def seconds(self) -> float | None:
        """Seconds of training and validation; None while the run has not finished."""
        return self.summary.seconds if self.summary.finished else None

    @property
    def finished(self) -> bool:
        """Whether it has a test accuracy."""
        return bool(self.accuracy)


Figure = Callable[[Run], float | None]
"""A figure of a run; None where it has none."""


def _of_exit(values: Sequence[float], exit_: int) -> float | None:
    if exit_ == LAST:
        return values[-1] if values else None
    return values[exit_] if exit_ < len(values) - 1 else None


def accuracy_of(exit_: int) -> Figure:
    """The test accuracy of an exit: one before the last, counted from 0, or :data:`LAST`."""
    return lambda run: _of_exit(run.accuracy, exit_)


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (of the sample, n - 1) of ``n`` values; one value has no deviation."""

    mean: float
    deviation: float | None
    n: int


def spread(values: Iterable[float | None]) -> Spread | None:
    """The :class:`Spread` of the values that are known; None where none is. Their order does not matter.

    Example:
        >>> spread([1.0, 3.0, None])
        Spread(mean=2.0, deviation=1.4142135623730951, n=2)
        >>> spread([1.0]), spread([])
        (Spread(mean=1.0, deviation=None, n=1), None)
    """
    known = [value for value in values if value is not None]
    return _spread(known) if known else None


def _spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def plus_minus(spread: Spread | None, unit: str, digits: int | None = None) -> str:
    """A mean with its deviation; ``unit`` is ``%`` of a share, ``points`` of a difference, ``s``, or ``short``.

    Example:
        >>> plus_minus(Spread(0.975, 0.004, 3), "%"), plus_minus(Spread(-0.01, None, 1), "points")
        ('97.50 ± 0.40 %', '-1.00')
    """
    if spread is None:
        return "-"
    if unit == "short":
        mean = f"{'-' if spread.mean < 0 else ''}{short(abs(spread.mean))}"
        return mean if not spread.deviation else f"{mean} ± {short(spread.deviation)}"
    factor, usual, after = {"%": (100, 2, " %"), "points": (100, 2, ""), "s": (1, 1, " s")}[unit]
    places = usual if digits is None else digits
    mean = f"{factor * spread.mean:{'+' if unit == 'points' else ''}.{places}f}"
    return f"{mean}{after}" if spread.deviation is None else f"{mean} ± {factor * spread.deviation:.{places}f}{after}"


@dataclass(frozen=True)
class Group:
    """Runs of one recipe, by seed; the ``label`` differs from those of the other groups."""

    label: str
    runs: tuple[Run, ...]

    @property
    def config(self) -> Config:
        """The configuration of the runs, which share it but for seed, name and place."""
        return self.runs[0].config

    @property
    def finished(self) -> tuple[Run, ...]:
        """The runs with a test accuracy."""
        return tuple(run for run in self.runs if run.finished)

    @property
    def exits(self) -> tuple[int, ...]:
        """The exits before the last one that a run of the group has, from 0, and :data:`LAST`."""
        return (*range(max((len(run.macs) for run in self.runs), default=1) - 1), LAST)

    def spread(self, figure: Figure) -> Spread | None:
        """Mean and deviation of a figure over the finished runs that have it."""
        return spread(figure(run) for run in self.finished)

    def accuracy(self, exit_: int) -> Spread | None:
        """Test accuracy of an exit."""
        return self.spread(accuracy_of(exit_))

    def macs(self, exit_: int) -> Spread | None:
        """MACs of an exit."""
        return self.spread(lambda run: _of_exit(run.macs, exit_))

    def policy(self) -> tuple[Spread, Spread] | None:
        """Test accuracy and average MACs of the calibrated policies; None where no run has one."""
        accuracy = self.spread(lambda run: run.policy.accuracy if run.policy else None)
        macs = self.spread(lambda run: run.policy.macs if run.policy else None)
        return None if accuracy is None or macs is None else (accuracy, macs)

    def epochs(self) -> dict[int, Spread]:
        """For each epoch, the validation accuracy of the deepest exit over the runs that reached it."""
        values: dict[int, list[float]] = {}
        for run in self.runs:
            for epoch, accuracy in run.epochs:
                values.setdefault(epoch, []).append(accuracy)
        return {epoch: _spread(values[epoch]) for epoch in sorted(values)}


def exits_of(groups: Sequence[Group]) -> tuple[int, ...]:
    """The exits of all groups, see :attr:`Group.exits`."""
    return max((group.exits for group in groups), key=len, default=(LAST,))


def exit_words(exit_: int) -> str:
    """``0 -> 'exit 1'``, ``LAST -> 'last exit'``."""
    return "last exit" if exit_ == LAST else f"exit {exit_ + 1}"


@dataclass(frozen=True)
class Difference:
    """One group less another, in one figure.

    Attributes:
        mean: mean and standard deviation of the difference. Paired, these are over the seeds that both have. Unpaired,
            the mean is the difference of the two means, and the deviation ``sqrt(s1^2 + s2^2)`` that of a difference
            between two single runs.
        by_seed: the difference for each shared seed, in their order; empty where it is not paired.
        sides: the values of either group, one a seed.
    """

    mean: Spread
    by_seed: tuple[tuple[int, float], ...]
    sides: tuple[tuple[float, ...], tuple[float, ...]]

    @property
    def paired(self) -> bool:
        """Whether it is taken seed by seed."""
        return bool(self.by_seed)

    @property
    def n(self) -> tuple[int, int]:
        """Values on either side."""
        return len(self.sides[0]), len(self.sides[1])

    @property
    def test(self) -> str:
        """The name of the test of :meth:`interval`."""
        return "paired t-test" if self.paired else "Welch's t-test"

    def interval(self) -> tuple[float | None, float | None, float | None]:
        """The 95 % confidence interval of the true difference, and the two-sided p-value, not corrected.

        They are None with one seed, and where the seeds do not differ.
        """
        from scipy import stats

        gaps = [gap for _, gap in self.by_seed]
        # Differences of the same shares may differ in their last bits.
        if min(self.n) < 2 or all(max(side) - min(side) < 1e-9 for side in ([gaps] if gaps else self.sides)):
            return None, None, None
        result = stats.ttest_1samp(gaps, 0.0) if gaps else stats.ttest_ind(*self.sides, equal_var=False)
        low, high = result.confidence_interval(CONFIDENCE)
        return float(low), float(high), float(result.pvalue)


def difference(group: Group, other: Group, figure: Figure) -> Difference | None:
    """``group`` less ``other``: paired if they share two seeds, or the only seed of one; None without figures."""
    one, two = _by_seed(group, figure), _by_seed(other, figure)
    if not one or not two:
        return None
    shared = sorted(one.keys() & two.keys())
    if len(shared) >= min(2, len(one), len(two)):
        gaps = tuple((seed, one[seed] - two[seed]) for seed in shared)
        sides = tuple(one[seed] for seed in shared), tuple(two[seed] for seed in shared)
        return Difference(_spread([gap for _, gap in gaps]), gaps, sides)
    first, second = _spread(list(one.values())), _spread(list(two.values()))
    deviation = None
    if first.deviation is not None and second.deviation is not None:
        deviation = math.hypot(first.deviation, second.deviation)
    mean = Spread(first.mean - second.mean, deviation, min(first.n, second.n))
    return Difference(mean, (), (tuple(one.values()), tuple(two.values())))


def _by_seed(group: Group, figure: Figure) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for run in group.finished:
        if (value := figure(run)) is not None:
            values.setdefault(run.seed, []).append(value)
    return {seed: sum(same) / len(same) for seed, same in values.items()}


def grouped(runs: Iterable[Run], varied: Sequence[str] = ()) -> tuple[Group, ...]:
    """Runs by their recipe, in the order of the labels; the order of ``runs`` does not matter.

    Args:
        varied: the keys that a sweep varied: labels are made of them.
    """
    members: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.summary.recipe, run.seed, run.name, run.summary.folder)):
        members.setdefault(run.summary.recipe, []).append(run)
    names = labels([same[0].config for same in members.values()], varied)
    groups = [Group(name, tuple(same)) for name, same in zip(names, members.values(), strict=True)]
    return tuple(sorted(groups, key=lambda group: _natural(group.label)))


def _natural(label: str) -> list[tuple[float, str]]:
    """For sorting ``8 channels`` before ``16 channels``."""
    parts = re.split(r"(\d+(?:\.\d+)?)", label)
    return [(float(part), "") if i % 2 else (-1.0, part) for i, part in enumerate(parts)]


def read_run(folder: Path, progress: Progress | None = None, *, policy: bool = True) -> Run:
    """The run in ``folder``; with ``policy`` its test pictures are answered again by its calibrated policy.

    Raises:
        InputError: it has no checkpoint yet, or one of its files is damaged.
    """
    summary, card = describe(folder), read_saved(folder)[1]
    point, unmeasured = None, None
    if policy and card.policy is not None and summary.finished:
        try:
            outcome = remeasure(folder, progress=progress).outcome
        except RamifyError as error:
            unmeasured = error.problems[0]
        else:
            assert outcome is not None
            point = PolicyPoint(outcome.accuracy, outcome.macs, _goal(card.policy))
    scores = ((done.epoch, done.exits[-1].valid) for done in read_epochs(folder))
    epochs = tuple((epoch, score.top1) for epoch, score in scores if score is not None)
    return Run(summary, read_config([folder / CONFIG]), point, unmeasured, epochs)


def _goal(policy: ExitPolicy) -> str:
    calibration = policy.calibration
    if calibration.max_drop is None:
        return f"to cost at most {amount(calibration.max_cost or 0.0, policy.unit)}"
    points = 100 * calibration.max_drop
    return f"to lose at most {points:g} point{'' if points == 1 else 's'}"


def varied_keys(folders: Sequence[Path]) -> tuple[str, ...]:
    """The keys that were varied where all of ``folders`` are runs of one sweep; empty where they are not."""
    places = {folder.resolve().parent.parent / "sweep.yaml" for folder in folders}
    try:
        document = yaml.load(places.pop().read_text(encoding="utf-8"), Loader=Loader) if len(places) == 1 else {}
        return tuple(str(key) for key in document["vary"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return ()


def groups_of(folders: Sequence[Path]) -> tuple[Group, ...]:
    """The runs in ``folders`` in groups, in the order in which they are named first, without their policies.

    Raises:
        InputError: a run has no checkpoint yet, or one of its files is damaged.
    """
    runs = [read_run(folder, policy=False) for folder in folders]
    places = {run.summary.recipe: place for place, run in reversed(list(enumerate(runs)))}
    return tuple(sorted(grouped(runs, varied_keys(folders)), key=lambda group: places[group.runs[0].summary.recipe]))
