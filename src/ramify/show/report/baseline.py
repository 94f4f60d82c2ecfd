"""The matched static baseline of a grown group: the same network, trained without growing."""

from collections.abc import Sequence
from dataclasses import dataclass

from ramify.config.rules import Config
from ramify.show.groups import LAST, Difference, Figure, Group, accuracy_of, difference, exit_words
from ramify.show.labels import flat

_FREE = ("network.kind", "train.device", "train.threads", "train.compile", "train.record")
"""Keys in which a baseline may differ, besides those of ``growth``; without exits also in their loss weights."""


@dataclass(frozen=True)
class PairedRuns:
    """A grown group and its baseline.

    Attributes:
        why: in which way the two are the same, as one sentence.
        exits: the exits that may be compared: those before the last from 0, and :data:`ramify.show.groups.LAST`.
    """

    grown: Group
    static: Group
    why: str
    exits: tuple[int, ...]


@dataclass(frozen=True)
class Compared:
    """One figure of a pair: its words, its unit, the figure, and grown less static."""

    words: str
    unit: str
    figure: Figure
    difference: Difference


def is_grown(config: Config) -> bool:
    """Whether a run of ``config`` grows a network, rather than to train it whole or to continue another run's."""
    return config.growths > 0


def widens(config: Config) -> bool:
    """Whether its network is widened as it grows: no configuration describes the same network not grown."""
    return "wider" in " ".join(config.growth.plan or ())


def matches(groups: Sequence[Group]) -> tuple[PairedRuns, ...]:
    """For each grown group its baseline among ``groups``, where there is one.

    The baseline has all stages from the start (``network.kind`` full_ic) and the same pictures, training and pruning,
    epochs included. Without one, a group without internal classifiers (``full``) stands in, for the last exit alone.
    A ``dense`` network exists only grown: the same cells in a chain stand in, and ``why`` says that the wiring differs.
    """
    pairs: list[PairedRuns] = []
    for grown in groups:
        if not is_grown(grown.config) or widens(grown.config):
            continue
        for kind in ("full_ic", "full"):
            twins = [group for group in groups if _is_twin(group.config, grown.config, kind)]
            if twins:
                exits = (LAST,) if kind == "full" else (*range(grown.config.network.exits - 1), LAST)
                pairs.append(PairedRuns(grown, twins[0], _why(grown.config, kind), exits))
                break
    return tuple(pairs)


def _is_twin(config: Config, grown: Config, kind: str) -> bool:
    if config.network.kind != kind or config.parent is not None or is_grown(config):
        return False
    return _shared(config, kind) == _shared(grown, kind)


def _shared(config: Config, kind: str) -> dict[str, object]:
    """The keys that a baseline of ``kind`` must share."""
    free = (*_FREE, "train.tau_max") if kind == "full" else _FREE
    kept = {key: value for key, value in flat(config).items() if key not in free and not key.startswith("growth.")}
    return kept | {"network.final": config.network.final or "average"}


def _why(config: Config, kind: str) -> str:
    whole = "The same network, all of it trained from the first epoch on"
    if config.network.kind == "dense":
        whole = (
            "The same cells in a chain, all of them trained from the first epoch on (dense wiring is always grown, so "
            "the wiring differs, too, and with it the size)"
        )
    return whole + ("; it has no internal classifiers, so the last exit alone is compared" if kind == "full" else "")


def _fully_grown(figure: Figure) -> Figure:
    """``figure`` for runs whose network has all of its exits."""
    return lambda run: figure(run) if len(run.macs) == run.summary.exits_planned else None


def compared(match: PairedRuns) -> list[Compared]:
    """Every figure that both sides of ``match`` have, grown less static."""
    figures: list[tuple[str, str, Figure]] = [
        (exit_words(at), "%", _fully_grown(accuracy_of(at)) if at == LAST else accuracy_of(at)) for at in match.exits
    ]
    if len(match.exits) > 1:
        figures.append(("policy", "%", _fully_grown(lambda run: run.policy.accuracy if run.policy else None)))
        figures.append(("policy, MACs", "short", _fully_grown(lambda run: run.policy.macs if run.policy else None)))
    figures.append(("training", "s", lambda run: run.seconds))
    differences = [(row, difference(match.grown, match.static, row[2])) for row in figures]
    return [Compared(*row, gap) for row, gap in differences if gap is not None]
