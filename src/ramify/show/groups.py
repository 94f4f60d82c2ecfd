"""Runs that differ in their seed alone, taken together: groups, with their means, deviations and differences."""

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
from ramify.run.checkpoint import Card, ExitPolicy
from ramify.run.folder import CONFIG
from ramify.run.readback import describe, read_epochs, remeasure
from ramify.run.saved import read_saved
from ramify.run.summary import ExitSummary, Summary
from ramify.show.labels import labels
from ramify.show.words import amount, plural

LAST = -1
"""Stands for the last exit of a run, however many it has; earlier exits are counted from 0."""

CONFIDENCE = 0.95
"""Of the intervals of differences."""


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
        policy: None without a calibrated one, or where ``unmeasured`` says why it is not known.
        epochs: epoch, and the accuracy of the deepest exit that there was, on the validation pictures.
    """

    summary: Summary
    config: Config
    policy: PolicyPoint | None
    unmeasured: str | None
    epochs: tuple[tuple[int, float], ...]

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.summary.name

    @property
    def seed(self) -> int:
        """With which it was trained."""
        return self.summary.seed

    @property
    def accuracy(self) -> tuple[float, ...]:
        """Of each exit on the test pictures, in [0, 1]; empty while the run has not finished."""
        return tuple(each.test.top1 for each in self.summary.exits if each.test is not None)

    @property
    def macs(self) -> tuple[int, ...]:
        """Of each exit that exists."""
        return tuple(each.macs for each in self.summary.exits)

    @property
    def last(self) -> ExitSummary:
        """Its last exit: the whole network."""
        return self.summary.exits[-1]

    @property
    def seconds(self) -> float | None:
        """Of training and validation; None while the run has not finished."""
        return self.summary.seconds if self.summary.finished else None

    @property
    def machine(self) -> str:
        """On what it was trained; empty where that is not known."""
        known = self.summary.machine
        return f"{known['device']}, {known['precision']}, {plural(int(known['threads']), 'thread')}" if known else ""

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


Figure = Callable[[Run], float | None]
"""A figure of a run; None where it has none."""


def accuracy_of(exit_: int) -> Figure:
    """The figure :meth:`Run.accuracy_at` of one exit."""
    return lambda run: run.accuracy_at(exit_)


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
        """The configuration that they share but for their seeds, names and places."""
        return self.runs[0].config

    @property
    def finished(self) -> tuple[Run, ...]:
        """Those with a test accuracy."""
        return tuple(run for run in self.runs if run.finished)

    @property
    def exits(self) -> tuple[int, ...]:
        """The exits before the last one that some run of the group has, from 0, and :data:`LAST`."""
        return (*range(max((len(run.macs) for run in self.runs), default=1) - 1), LAST)

    def spread(self, figure: Figure) -> Spread | None:
        """Mean and deviation of a figure over the finished runs that have it."""
        return spread(figure(run) for run in self.finished)

    def accuracy(self, exit_: int) -> Spread | None:
        """Test accuracy of an exit, see :meth:`Run.accuracy_at`."""
        return self.spread(accuracy_of(exit_))

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
        return {epoch: each for epoch in sorted(found) if (each := spread(found[epoch])) is not None}


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
        mean: mean and standard deviation of the difference. Paired, these are over the seeds that both have, each
            with the difference between its two runs. Unpaired, the mean is that of one group less that of the other,
            and the deviation ``sqrt(s1^2 + s2^2)``, that of a difference between two single runs.
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
        """The test of :meth:`interval` by its name."""
        return "paired t-test" if self.paired else "Welch's t-test"

    def interval(self) -> tuple[float | None, float | None, float | None]:
        """Where the true difference lies with a confidence of 95 %, and the two-sided p-value, not corrected.

        They are None with one seed. Where all differences are the same there is no p-value.
        """
        from scipy import stats

        if min(self.n) < 2:
            return None, None, None
        gaps = [gap for _, gap in self.by_seed]
        if gaps and max(gaps) == min(gaps):
            return self.mean.mean, self.mean.mean, None
        if not gaps and all(max(side) == min(side) for side in self.sides):
            return None, None, None
        found = stats.ttest_1samp(gaps, 0.0) if gaps else stats.ttest_ind(*self.sides, equal_var=False)
        low, high = found.confidence_interval(CONFIDENCE)
        return float(low), float(high), float(found.pvalue)


def difference(group: Group, other: Group, figure: Figure) -> Difference | None:
    """``group`` less ``other``: paired if they share two seeds, or the only seed of one; None without figures."""
    ours, theirs = _by_seed(group, figure), _by_seed(other, figure)
    if not ours or not theirs:
        return None
    shared = sorted(ours.keys() & theirs.keys())
    if len(shared) >= min(2, len(ours), len(theirs)):
        gaps = tuple((seed, ours[seed] - theirs[seed]) for seed in shared)
        mean = spread(gap for _, gap in gaps)
        assert mean is not None
        return Difference(mean, gaps, (tuple(ours[seed] for seed in shared), tuple(theirs[seed] for seed in shared)))
    mine, rest = spread(ours.values()), spread(theirs.values())
    assert mine is not None
    assert rest is not None
    deviations = [each.deviation for each in (mine, rest) if each.deviation is not None]
    deviation = math.hypot(*deviations) if len(deviations) == 2 else None
    mean = Spread(mine.mean - rest.mean, deviation, min(mine.n, rest.n))
    return Difference(mean, (), (tuple(ours.values()), tuple(theirs.values())))


def _by_seed(group: Group, figure: Figure) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for run in group.finished:
        if (value := figure(run)) is not None:
            values.setdefault(run.seed, []).append(value)
    return {seed: sum(some) / len(some) for seed, some in values.items()}


def grouped(runs: Iterable[Run], varied: Sequence[str] = ()) -> tuple[Group, ...]:
    """Runs by their recipe, each group with its label, in the order of the labels; the order given does not matter.

    Args:
        varied: the keys that a sweep varied: labels are made of them.
    """
    found: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.summary.recipe, run.seed, run.name, run.summary.folder)):
        found.setdefault(run.summary.recipe, []).append(run)
    names = labels([members[0].config for members in found.values()], varied)
    groups = [Group(name, tuple(members)) for name, members in zip(names, found.values(), strict=True)]
    return tuple(sorted(groups, key=lambda group: _natural(group.label)))


def _natural(label: str) -> list[tuple[float, str]]:
    """For sorting ``8 channels`` before ``16 channels``."""
    parts = re.split(r"(\d+(?:\.\d+)?)", label)
    return [(float(part), "") if i % 2 else (-1.0, part) for i, part in enumerate(parts)]


def read_run(folder: Path, progress: Progress | None = None, *, policy: bool = True) -> Run:
    """What a comparison takes of the run in ``folder``; with ``policy`` what its policy gives is measured again.

    Raises:
        InputError: it has no checkpoint yet, or one of its files is damaged.
    """
    summary = describe(folder)
    _, card = read_saved(folder)
    found, unmeasured = _policy(folder, summary, card, progress) if policy else (None, None)
    scores = ((done.epoch, done.exits[-1].valid) for done in read_epochs(folder))
    epochs = tuple((epoch, score.top1) for epoch, score in scores if score is not None)
    return Run(summary, read_config([folder / CONFIG]), found, unmeasured, epochs)


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
    if found.max_drop is None:
        return f"to cost at most {amount(found.max_cost or 0.0, policy.unit)}"
    points = 100 * found.max_drop
    return f"to lose at most {points:g} point{'' if points == 1 else 's'}"


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
    places = {run.summary.recipe: place for place, run in reversed(list(enumerate(runs)))}
    return tuple(sorted(grouped(runs, varied_keys(folders)), key=lambda group: places[group.runs[0].summary.recipe]))
