"""The matched static baseline of a grown group: what the same network comes to when it is not grown."""

from collections.abc import Sequence
from dataclasses import dataclass

from ramify.config.rules import Config
from ramify.show.groups import LAST, Difference, Figure, Group, accuracy_of, difference, exit_words
from ramify.show.labels import flat

_FREE = ("network.kind", "train.device", "train.threads", "train.compile", "train.record")
"""Keys that a baseline may have otherwise, besides those of ``growth``; without exits also their weights."""


@dataclass(frozen=True)
class PairedRuns:
    """A grown group and a group that it may be held against.

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
    """One figure of a match: its words, its unit, the figure, and grown less static."""

    words: str
    unit: str
    figure: Figure
    difference: Difference


def is_grown(config: Config) -> bool:
    """Whether a run of ``config`` grows a network, rather than to train it whole or to go on from another run's."""
    return config.growths > 0


def matches(groups: Sequence[Group]) -> tuple[PairedRuns, ...]:
    """For each grown group the group of ``groups`` that it may be held against, where there is one.

    That is the same network, not grown: a group that trained it from scratch with all of its stages there from the
    start (``network.kind`` full_ic), with the same pictures, training and pruning, epochs included. Without one,
    a group that did so without internal classifiers (``full``) stands in, for the last exit alone. A ``dense`` network
    exists only grown, so the same cells in a chain stand in, and the match says that the wiring differs, too.
    """
    found: list[PairedRuns] = []
    for grown in groups:
        if not is_grown(grown.config) or widens(grown.config):
            continue
        for kind in ("full_ic", "full"):
            wanted = _twin(grown.config, kind)
            twins = [
                group for group in groups if _is_static(group.config, kind) and _twin(group.config, kind) == wanted
            ]
            if twins:
                exits = (LAST,) if kind == "full" else (*range(grown.config.network.exits - 1), LAST)
                found.append(PairedRuns(grown, twins[0], _why(grown.config, kind), exits))
                break
    return tuple(found)


def widens(config: Config) -> bool:
    """Whether its network is widened as it grows: then no configuration describes the same network not grown."""
    return "wider" in " ".join(config.growth.plan or ())


def _is_static(config: Config, kind: str) -> bool:
    return config.network.kind == kind and config.parent is None and not is_grown(config)


def _twin(config: Config, kind: str) -> dict[str, object]:
    """What a baseline of ``kind`` must share."""
    free = (*_FREE, "train.tau_max") if kind == "full" else _FREE
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


def fully_grown(figure: Figure) -> Figure:
    """``figure`` of the last exit, of runs that have grown all of theirs."""
    return lambda run: figure(run) if len(run.macs) == run.summary.exits_planned else None


def compared(match: PairedRuns) -> list[Compared]:
    """Every figure that both sides of ``match`` have, grown less static."""
    kinds: list[tuple[str, str, Figure]] = [
        (exit_words(at), "%", fully_grown(accuracy_of(at)) if at == LAST else accuracy_of(at)) for at in match.exits
    ]
    if len(match.exits) > 1:
        kinds.append(("policy", "%", fully_grown(lambda run: run.policy.accuracy if run.policy else None)))
        kinds.append(("policy, MACs", "short", fully_grown(lambda run: run.policy.macs if run.policy else None)))
    kinds.append(("training", "s", lambda run: run.seconds))
    found = [(kind, difference(match.grown, match.static, kind[2])) for kind in kinds]
    return [Compared(*kind, each) for kind, each in found if each is not None]
