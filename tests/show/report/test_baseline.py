"""Which group a grown one is held against, and the difference with its uncertainty."""

import math

import numpy as np
import pytest

from ramify.config.rules import Config, resolve
from ramify.show.groups import LAST, Difference, Group, Run, grouped
from ramify.show.report.baseline import PairedRuns, compared, matches
from tests.show.report.comparing import made, settings


def resolved(*overrides: str) -> Config:
    return resolve(settings(*overrides))


GROWN, STATIC, PLAIN = resolved(), resolved("network.kind=full_ic"), resolved("network.kind=full")


def at(match: PairedRuns, words: str = "last exit") -> Difference | None:
    """Grown less static in the figure that is called so."""
    return next((each.difference for each in compared(match) if each.words == words), None)


def match(grown: list[Run], static: list[Run]) -> PairedRuns:
    (found,) = matches(grouped([*grown, *static]))
    return found


def matched(*configs: Config) -> list[tuple[str, str]]:
    """Labels of the groups that are held against each other."""
    groups = grouped([made(config) for config in configs])
    return [(found.grown.config.network.kind, found.static.config.network.kind) for found in matches(groups)]


def test_the_same_network_not_grown_is_the_baseline() -> None:
    assert matched(GROWN, STATIC) == [("iterative", "full_ic")]
    assert matched(GROWN, STATIC, PLAIN) == [("iterative", "full_ic")]
    by_loss = resolved("growth.mode=loss", "growth.patience=3")
    assert matched(by_loss, GROWN, STATIC) == [("iterative", "full_ic")] * 2


def test_without_exits_the_last_one_alone_is_compared() -> None:
    found = match([made(GROWN)], [made(PLAIN, accuracy=(0.9,))])
    assert found.exits == (LAST,)
    assert "no internal classifiers" in found.why


def test_a_dense_network_is_held_against_a_chain_and_that_is_said() -> None:
    found = match([made(resolved("network.kind=dense"))], [made(STATIC)])
    assert found.exits == (0, 1, 2, LAST)
    assert "wiring differs" in found.why


@pytest.mark.parametrize(
    "other",
    [
        "network.channels=8",
        "network.structure=[0,1,0,1,0,0,1]",
        "train.epochs=31",
        "train.learning_rate=0.1",
        "data.limit=500",
        "data.source=mnist",
        "network.final=mixed",
        "train.tau_max=[1,1,1]",
    ],
)
def test_what_differs_in_more_than_growing_is_no_baseline(other: str) -> None:
    assert matched(GROWN, resolved("network.kind=full_ic", other)) == []


def test_pruning_must_be_the_same() -> None:
    pruning = ("prune.enabled=true", "prune.epochs=[20]", "prune.keep_ratio=0.5")
    sparse = resolved(*pruning)
    assert matched(sparse, STATIC) == []
    assert matched(sparse, STATIC, resolved(*pruning, "network.kind=full_ic")) == [("iterative", "full_ic")]


def test_identity_starts_need_the_same_final_classifier() -> None:
    identity = resolved("growth.init=identity")
    assert matched(identity, STATIC) == []
    assert matched(identity, resolved("network.kind=full_ic", "network.final=mixed")) == [("iterative", "full_ic")]


def test_runs_of_a_parent_and_widened_ones_have_no_baseline() -> None:
    plan = "growth.plan=[deeper,wider,deeper,deeper]"
    assert matched(resolved(plan), STATIC) == []
    assert matched(STATIC, PLAIN) == []
    child = STATIC.model_copy(update={"parent": "runs/other"})
    assert matched(GROWN, child) == []


def test_shared_seeds_are_paired() -> None:
    ours, theirs = [0.9, 0.8, 0.95, 0.5], [0.85, 0.9, 0.9]
    grown = [made(GROWN, seed, (0, 0, 0, value)) for seed, value in enumerate(ours)]
    static = [made(STATIC, seed, (0, 0, 0, value)) for seed, value in enumerate(theirs)]
    found = at(match(grown, static))
    assert found is not None
    pairs = np.array(ours[:3]) - np.array(theirs)
    assert found.paired
    assert found.n == (3, 3)
    assert [seed for seed, _ in found.by_seed] == [0, 1, 2]
    assert math.isclose(found.mean.mean, pairs.mean())
    assert found.mean.deviation is not None
    assert math.isclose(found.mean.deviation, pairs.std(ddof=1))


def test_seeds_that_are_not_shared_are_not_paired() -> None:
    ours, theirs = [0.9, 0.8, 0.7], [0.85, 0.8]
    grown = [made(GROWN, seed, (0, 0, 0, value)) for seed, value in enumerate(ours)]
    static = [made(STATIC, 7 + seed, (0, 0, 0, value)) for seed, value in enumerate(theirs)]
    found = at(match(grown, static))
    assert found is not None
    assert not found.paired
    assert found.n == (3, 2)
    assert found.by_seed == ()
    assert math.isclose(found.mean.mean, np.mean(ours) - np.mean(theirs))
    assert found.mean.deviation is not None
    assert math.isclose(found.mean.deviation, math.hypot(np.std(ours, ddof=1), np.std(theirs, ddof=1)))


def test_one_run_on_either_side_has_a_difference_without_deviation() -> None:
    for seed in (0, 1):
        found = at(match([made(GROWN)], [made(STATIC, seed, (0, 0, 0, 0.9))]))
        assert found is not None
        assert found.mean.deviation is None
        assert math.isclose(found.mean.mean, 0.07)
        assert found.paired == (seed == 0)


def test_runs_that_stopped_growing_or_training_are_left_out() -> None:
    stopped = made(GROWN, 1, (0.7, 0.8))
    static = [made(STATIC, 1)]
    whole = PairedRuns(Group("a", (stopped,)), Group("b", tuple(static)), "", (0, LAST))
    assert at(whole) is None
    first = at(whole, "exit 1")
    assert first is not None
    assert math.isclose(first.mean.mean, -0.1)
    under_way = PairedRuns(Group("a", (made(GROWN, 1, finished=False),)), Group("b", tuple(static)), "", (0, LAST))
    assert compared(under_way) == []
