"""The matched static baseline of a grown group: what the same network comes to when it is not grown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ramify.config.rules import Config
from ramify.show.terminal.groups import LAST, Group, Run, Spread, flat, spread

FREE = ("network.kind", "train.device", "train.threads", "train.compile", "train.record")
"""Keys that a baseline may have otherwise, besides those of ``growth``; without exits also their weights."""


@dataclass(frozen=True)
class Match:
    """A grown group and a group that it may be held against.

    Attributes:
        why: in which way the two are the same, as one sentence.
        exits: the exits that may be compared: those before the last from 0, and :data:`LAST`.
    """

    grown: Group
    static: Group
    why: str
    exits: tuple[int, ...]


@dataclass(frozen=True)
class Difference:
    """Grown less static, of one figure.

    Attributes:
        told: mean and standard deviation of the difference. Paired, these are over the seeds that both have, each
            with the difference between its two runs. Unpaired, the mean is that of one group less that of the other,
            and the deviation ``sqrt(s1^2 + s2^2)``, that of a difference between two single runs.
        paired: whether it is taken seed by seed.
        by_seed: the difference for each shared seed, in their order; empty where it is not paired.
        n: runs, or means of the runs of one seed, on either side.
    """

    told: Spread
    paired: bool
    by_seed: tuple[tuple[int, float], ...]
    n: tuple[int, int]


def is_grown(config: Config) -> bool:
    """Whether a run of ``config`` grows a network, rather than to train it whole or to go on from another run's."""
    return config.growths > 0


def matches(groups: Sequence[Group]) -> tuple[Match, ...]:
    """For each grown group the group of ``groups`` that it may be held against, where there is one.

    That is the same network, not grown: a group that trained it from scratch with all of its stages there from the
    start (``network.kind`` full_ic), with the same pictures, training and pruning, epochs included. Without one,
    a group that did so without internal classifiers (``full``) stands in, for the last exit alone. A ``dense`` network
    exists only grown, so the same cells in a chain stand in, and the match says that the wiring differs, too.
    """
    found: list[Match] = []
    for grown in groups:
        if not is_grown(grown.config) or "wider" in " ".join(grown.config.growth.plan or ()):
            continue
        for kind in ("full_ic", "full"):
            wanted = _twin(grown.config, kind)
            twins = [
                group
                for group in groups
                if group.config.network.kind == kind
                and group.config.parent is None
                and not is_grown(group.config)
                and _twin(group.config, kind) == wanted
            ]
            if twins:
                exits = (LAST,) if kind == "full" else (*range(grown.config.network.exits - 1), LAST)
                found.append(Match(grown, twins[0], _why(grown.config, kind), exits))
                break
    return tuple(found)


def _twin(config: Config, kind: str) -> dict[str, object]:
    """What a baseline of ``kind`` must share."""
    free = (*FREE, "train.tau_max") if kind == "full" else FREE
    kept = {key: value for key, value in flat(config).items() if key not in free and not key.startswith("growth.")}
    kept["network.final"] = config.network.final or "average"
    return kept


def _why(config: Config, kind: str) -> str:
    whole = "The same network, all of it trained from the first epoch on"
    if config.network.kind == "dense":
        whole = "The same cells in a chain, all of them trained from the first epoch on (dense wiring is always grown, "
        whole += "so the wiring differs, too, and with it the size)"
    if kind == "full":
        whole += "; it has no internal classifiers, so the last exit alone is compared"
    return whole


def differences(match: Match, figure: Callable[[Run], float | None], exit_: int | None = None) -> Difference | None:
    """Grown less static of ``figure``; None where either side has none.

    It is paired if the groups share two seeds, or the only seed that one of them has.

    Args:
        exit_: where the figure is of one exit: a last exit counts only in runs that have grown all of theirs.
    """
    sides = [_by_seed(group, figure, exit_) for group in (match.grown, match.static)]
    ours, theirs = sides
    if not ours or not theirs:
        return None
    shared = sorted(ours.keys() & theirs.keys())
    if len(shared) >= min(2, len(ours), len(theirs)):
        by_seed = tuple((seed, ours[seed] - theirs[seed]) for seed in shared)
        told = spread(value for _, value in by_seed)
        assert told is not None
        return Difference(told, True, by_seed, (len(shared), len(shared)))
    mine, other = spread(ours.values()), spread(theirs.values())
    assert mine is not None
    assert other is not None
    deviation = None
    if mine.deviation is not None and other.deviation is not None:
        deviation = (mine.deviation**2 + other.deviation**2) ** 0.5
    told = Spread(mine.mean - other.mean, deviation, min(mine.n, other.n))
    return Difference(told, False, (), (mine.n, other.n))


def _by_seed(group: Group, figure: Callable[[Run], float | None], exit_: int | None) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for run in group.finished:
        value = figure(run)
        stopped = exit_ == LAST and len(run.macs) < run.exits_planned
        if value is not None and not stopped:
            values.setdefault(run.seed, []).append(value)
    return {seed: sum(some) / len(some) for seed, some in values.items()}
