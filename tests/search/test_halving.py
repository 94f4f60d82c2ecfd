"""Objectives, constraints, and who goes on to the next rung."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.search.goals import builtin, costs, dominates, feasible, parse_constraint
from ramify.search.halving import best_points, fronts, verdicts
from ramify.search.space import Space, parse_space
from ramify.search.trial import Trial

POINTS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.0, 0.5, 1.0]), st.tuples(st.integers(0, 5), st.integers(0, 5))), max_size=12
)


def space(rungs: str = "[1, 3, 9]") -> Space:
    text = "vary: {train.learning_rate: {log: [0.01, 0.1]}}\nobjectives: [accuracy, weights]\nepochs: 9\nrungs: "
    return parse_space(f"{text}{rungs}\nconstraints: [latency <= 1]")


Results = dict[int, dict[str, float]]


def at(rung: int, *, error: float, size: float, missed: float = 0.0) -> Results:
    return {rung: {"accuracy": -error, "weights": size, "latency": 1 + missed}}


def trial(number: int, results: Results, failed: str | None = None) -> Trial:
    return Trial(number, failed is not None, failed, (), {}, results)


@pytest.mark.parametrize(
    ("text", "value", "met"),
    [
        ("weights <= 50_000", 50_000, True),
        ("weights < 50_000", 50_000, False),
        ("accuracy >= 95 %", 0.949, False),
        ("macs > 1e6", 2e6, True),
    ],
)
def test_constraints(text: str, value: float, met: bool) -> None:
    constraint = parse_constraint(text)
    assert constraint is not None
    values = {constraint.name: value}
    assert constraint.met(values) == met == feasible(values, [constraint])
    assert (constraint.excess(values) <= 0) == met


def test_only_accuracy_is_to_be_high() -> None:
    better, worse = {"accuracy": 0.9, "macs": 5.0}, {"accuracy": 0.8, "macs": 5.0}
    objectives = [builtin("accuracy"), builtin("macs")]
    assert dominates(costs(better, objectives), costs(worse, objectives))
    assert not dominates(costs(worse, objectives), costs(worse, objectives))


@given(POINTS)
def test_ranks_hold_every_point_once_and_nobody_is_behind_one_it_dominates(
    points: list[tuple[float, tuple[int, int]]],
) -> None:
    found = fronts(points)
    assert sorted(i for front in found for i in front) == list(range(len(points)))
    rank = {i: r for r, front in enumerate(found) for i in front}
    for i, one in enumerate(points):
        for j, other in enumerate(points):
            if one[0] == other[0] == 0 and dominates(one[1], other[1]):
                assert rank[i] < rank[j]
            if one[0] < other[0]:
                assert rank[i] < rank[j]


def test_of_equal_rank_those_with_room_go_first() -> None:
    points = [(0.0, (0.0, 10.0)), (0.0, (4.9, 5.1)), (0.0, (5.0, 5.0)), (0.0, (5.1, 4.9)), (0.0, (10.0, 0.0))]
    assert best_points(points, 2) == [0, 4]
    assert 2 not in best_points(points, 4)


FIRST = [at(1, error=error, size=size) for error, size in ((1, 9), (2, 2), (9, 1), (9, 9), (8, 8), (7, 7), (6, 6))]
NEXT = [at(1, error=5, size=5), at(1, error=4, size=4)]


@pytest.mark.parametrize(
    ("trials", "wanted", "expected"),
    [
        # A trial without results trains to the first rung; a cohort with a gap decides nothing.
        ([{}], 20, {0: ("train", 1)}),
        ([*FIRST, NEXT[0], {}], 20, {**dict.fromkeys(range(8), ("wait", 1)), 8: ("train", 1)}),
        # A cohort that is not full waits, unless no more are to come.
        (FIRST[:3], 20, dict.fromkeys(range(3), ("wait", 1))),
        (FIRST[:3], 3, {0: ("train", 3), 1: ("finish", 1), 2: ("finish", 1)}),
        # Nine are there: the three of the first rank go on.
        ([*FIRST, *NEXT], 20, {**dict.fromkeys(range(3), ("train", 3)), **dict.fromkeys(range(3, 9), ("finish", 1))}),
    ],
)
def test_promotion(trials: list[Results], wanted: int, expected: dict[int, tuple[str, int]]) -> None:
    assert verdicts(space(), [trial(n, results) for n, results in enumerate(trials)], wanted) == expected


def test_the_last_rung_finishes_and_a_failure_keeps_nobody_waiting() -> None:
    results = [{**FIRST[n], **(at(3, error=n, size=n) if n < 3 else {})} for n in range(7)]
    results[0] |= at(9, error=0, size=0)
    trials = [trial(n, each) for n, each in enumerate([*results, *NEXT])]
    found = verdicts(space(), trials, 9)
    assert found[0] == ("finish", 9)
    assert {found[n] for n in (1, 2)} == {("finish", 3)}
    failed = [trial(n, {} if n == 4 else each, "no" if n == 4 else None) for n, each in enumerate([*FIRST, *NEXT])]
    found = verdicts(space(), failed, 9)
    assert 4 not in found
    assert {found[n] for n in (0, 1, 2)} == {("train", 3)}


def test_those_that_miss_a_constraint_stand_back() -> None:
    trials = [
        trial(0, at(3, error=0, size=0, missed=0.5)),
        trial(1, at(3, error=5, size=5)),
        trial(2, at(3, error=0, size=1, missed=2.0)),
    ]
    assert verdicts(space("[3, 9]"), trials, 9)[1] == ("train", 9)


def test_without_rungs_a_trial_trains_through() -> None:
    assert verdicts(space("null"), [trial(0, {}), trial(1, at(9, error=1, size=1))], 9) == {
        0: ("train", 9),
        1: ("finish", 9),
    }
