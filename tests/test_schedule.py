"""Schedules as tables of what is asked and what is expected."""

import itertools
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.config.rules import Config, TrainConfig, resolve
from ramify.schedule import (
    LossRule,
    cosine,
    exit_weights,
    growth_by_loss,
    last_alone,
    learning_rate,
    mixing_at,
    prune_targets,
    rate_at,
    ready_for_best,
    regrowth,
    regrowth_interval,
    side_at,
    trunk_alone,
    warming,
)


@pytest.mark.parametrize(
    ("epoch", "expected"), [(1, 0.01), (119, 0.01), (120, 0.001), (159, 0.001), (160, 1e-5), (180, 1e-7), (250, 1e-7)]
)
def test_learning_rate_of_the_seed(epoch: int, expected: float) -> None:
    assert learning_rate(epoch, 0.01, (120, 160, 180), (0.1, 0.01, 0.01)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("policy", "epoch", "keep", "least", "expected"),
    [
        ("normal", 35, 0.3, None, 0.3),
        ("gradual", 10, 0.3, None, 0.3 + 0.7 * 0.75**3),
        ("gradual", 85, 0.3, None, 0.3),
        ("skip_layer", 10, 0.8, None, {0: 0.8}),
        ("skip_layer", 85, (0.9, 0.8, 0.7, 0.6), None, {3: 0.6}),
        ("skip_layer", 85, (0.9, 0.8, 0.7), None, {3: 0.7}),  # one for each internal classifier
        ("iterative", 35, 0.5, 0.1, {0: 0.25, 1: 0.5}),
        ("iterative", 85, 0.5, 0.2, {0: 0.2, 1: 0.2, 2: 0.25, 3: 0.5}),
        ("iterative", 85, 0.5, None, {0: 0.0625, 1: 0.125, 2: 0.25, 3: 0.5}),
    ],
)
def test_what_a_pruning_of_the_seed_keeps(
    policy: str, epoch: int, keep: float | tuple[float, ...], least: float | None, expected: float | dict[int, float]
) -> None:
    assert prune_targets(policy, epoch, (10, 35, 60, 85), (1, 25, 50, 75), keep, least) == expected


@given(epochs=st.integers(1, 300), exits=st.integers(1, 9), data=st.data())
def test_exit_weights_rise_from_the_start_to_their_maximum(epochs: int, exits: int, data: st.DataObject) -> None:
    tops = tuple(0.01 + (i + 1) / 9 for i in range(8))
    epoch = data.draw(st.integers(1, epochs))
    weights = exit_weights(epoch, epochs, exits, tops)
    assert len(weights) == exits
    assert weights[-1] == 1.0
    assert all(0.01 <= weight <= top + 1e-12 for weight, top in zip(weights, tops, strict=False) if weight != 1.0)
    if epochs > 1:
        assert exit_weights(1, epochs, exits, tops)[:-1] == (0.01,) * (exits - 1)
        assert exit_weights(epochs, epochs, exits, tops)[:-1] == pytest.approx(tops[: exits - 1])


@pytest.mark.parametrize(
    ("epoch", "growths", "prunings", "ready"),
    [
        (1, (), (), True),
        (74, (25, 75), (), False),
        (75, (25, 75), (), True),
        (75, (25, 75), (85,), False),
        (85, (25,), (85,), True),
    ],
)
def test_the_best_epoch_is_of_the_finished_network(
    epoch: int, growths: tuple[int, ...], prunings: tuple[int, ...], ready: bool
) -> None:
    assert ready_for_best(epoch, growths, prunings) is ready


RULE = LossRule(patience=3, min_improvement=0.1, min_epochs=2, max_epochs=None, until=50)
FALLING = [1.0, 0.8, 0.6, 0.4, 0.3]
STALLED = [1.0, 0.5, 0.49, 0.48, 0.47]


@pytest.mark.parametrize(
    ("losses", "growths", "rule", "action"),
    [
        ([], (), RULE, "wait"),
        ([1.0], (), RULE, "wait"),
        (FALLING, (), RULE, "wait"),
        (STALLED[:4], (), RULE, "wait"),
        (STALLED, (), RULE, "grow"),
        ([1.0, 2.0, 3.0, 4.0], (), RULE, "grow"),  # getting worse is not improving
        ([1.0, 0.95, 0.92, 0.89], (), RULE, "wait"),  # small steps add up to an improvement
        ([*STALLED, 0.3], (6,), RULE, "wait"),
        ([*STALLED, 0.3, 0.3, 0.3, 0.3], (6,), RULE, "grow"),
        ([*STALLED, 0.5, 0.46, 0.46, 0.46], (6,), RULE, "stop"),  # 0.46 is not a tenth below 0.47
        ([*STALLED, 0.5, 0.46, 0.46], (6,), RULE, "wait"),
        ([0.1, *STALLED, 0.9, 0.3, 0.3, 0.3, 0.3], (2, 7), RULE, "grow"),  # only the segment before the last counts
        (FALLING, (), replace(RULE, max_epochs=5), "grow"),
        (FALLING[:4], (), replace(RULE, max_epochs=5), "wait"),
        ([*STALLED, 0.6, 0.5], (6,), replace(RULE, max_epochs=2), "stop"),
        ([*STALLED, 0.6], (6,), replace(RULE, max_epochs=1), "wait"),  # min_epochs comes first
        (STALLED, (), replace(RULE, until=6), "grow"),
        (STALLED, (), replace(RULE, until=5), "stop"),
        ([1.0, 1.0], (), replace(RULE, patience=1, min_improvement=0.0), "grow"),
        ([1.0, 0.999], (), replace(RULE, patience=1, min_improvement=0.0), "wait"),
    ],
)
def test_growth_by_loss(losses: list[float], growths: tuple[int, ...], rule: LossRule, action: str) -> None:
    verdict = growth_by_loss(losses, growths, rule)
    assert verdict.action == action, verdict.reason
    assert verdict.reason


@given(
    losses=st.lists(st.floats(0.01, 10), max_size=40),
    patience=st.integers(1, 5),
    least=st.integers(1, 5),
    most=st.one_of(st.none(), st.integers(5, 9)),
)
def test_growths_by_loss_keep_their_distance(losses: list[float], patience: int, least: int, most: int | None) -> None:
    """Played forward, growths are at least ``min_epochs`` and at most ``max_epochs`` apart, and none follows a stop."""
    rule = LossRule(patience, 0.05, least, most, until=30)
    growths: list[int] = []
    for epoch in range(1, len(losses) + 1):
        verdict = growth_by_loss(losses[: epoch - 1], growths, rule)
        if verdict.action == "stop":
            break
        if verdict.action == "grow":
            growths.append(epoch)
    starts = [1, *growths]
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert all(gap >= least for gap in gaps)
    assert all(epoch <= 30 for epoch in growths)
    if most is not None:
        assert all(gap <= max(most, least) for gap in gaps)


def rates(train: TrainConfig, steps: int = 20) -> list[float]:
    """The rate at the middle of each step, and that in the very end."""
    train = resolve(Config(train=train)).train
    middles = [(epoch, (k + 0.5) / steps) for epoch in range(1, train.epochs + 1) for k in range(steps)]
    return [rate_at(epoch, share, train) for epoch, share in (*middles, (train.epochs, 1.0))]


def test_a_cosine_falls_from_one_to_zero_and_is_flat_at_both_ends() -> None:
    assert [cosine(0.0), cosine(0.5), cosine(1.0)] == pytest.approx([1.0, 0.5, 0.0])
    found = [cosine(i / 100) for i in range(101)]
    assert all(a > b for a, b in itertools.pairwise(found))
    assert cosine(0.01) > 0.999
    assert cosine(0.99) < 0.001


@given(
    schedule=st.sampled_from(["cosine", "linear"]),
    final=st.floats(0, 1),
    warmup=st.sampled_from([0.0, 0.5, 2.0, 3.7]),
    base=st.floats(1e-4, 1),
)
def test_a_rate_rises_through_the_warm_up_then_falls_to_its_end(
    schedule: Literal["cosine", "linear"], final: float, warmup: float, base: float
) -> None:
    train = TrainConfig(epochs=8, learning_rate=base, schedule=schedule, final_rate=final, warmup=warmup)
    found = rates(train)
    risen = round(20 * warmup)
    assert all(a < b for a, b in itertools.pairwise(found[:risen]))
    assert all(a >= b for a, b in itertools.pairwise(found[risen:]))
    assert found[0] > 0
    assert max(found) <= base * (1 + 1e-9)
    assert found[-1] == pytest.approx(base * final)


def test_steps_are_what_they_were_and_a_warm_up_multiplies_them() -> None:
    plain = TrainConfig(epochs=8, milestones=(3, 6), gammas=(0.5, 0.1))
    train = resolve(Config(train=plain)).train
    for epoch in range(1, 9):
        for share in (0.0, 0.3, 1.0):
            assert rate_at(epoch, share, train) == learning_rate(epoch, 0.02, (3, 6), (0.5, 0.1))
    warm = train.model_copy(update={"warmup": 4.0})
    assert rate_at(4, 0.0, warm) == pytest.approx(0.75 * 0.5 * 0.02)
    assert warming(4.0, 4.0) == 1.0


def test_mixing_rises_and_stays() -> None:
    found = [mixing_at(epoch, share, 10, 0.4) for epoch in range(1, 11) for share in (0.0, 0.5)]
    assert found == sorted(found)
    assert (found[0], found[8]) == (0.0, 1.0)


def test_sizes_end_at_the_last_side() -> None:
    sizes = ((1, 16), (4, 24), (7, 32))
    assert [side_at(epoch, sizes) for epoch in range(1, 9)] == [16, 16, 16, 24, 24, 24, 32, 32]
    assert side_at(3, None) is None


@given(
    start=st.integers(0, 300), length=st.integers(1, 2000), interval=st.integers(1, 150), fraction=st.floats(0.01, 1.0)
)
def test_connections_move_at_the_interval_and_ever_fewer(
    start: int, length: int, interval: int, fraction: float
) -> None:
    end = start + length
    shares = {step: regrowth(step, start, end, interval, fraction) for step in range(end + 2 * interval)}
    due = [step for step, share in shares.items() if share > 0]
    assert due == list(range(start + interval, end, interval))
    found = [shares[step] for step in due]
    assert all(0 < share < fraction for share in found)
    assert found == sorted(found, reverse=True)


def test_the_share_that_moves_is_halved_half_way() -> None:
    """Equation 1 of RigL, arXiv:1911.11134."""
    assert regrowth(50, 0, 100, 10, 0.3) == pytest.approx(0.15)


@given(total=st.integers(1, 200_000))
def test_connections_move_a_hundred_times_where_there_are_steps_for_it(total: int) -> None:
    interval = regrowth_interval(total)
    assert 10 <= interval <= 100
    assert total <= 1000 or interval <= total / 10


@pytest.mark.parametrize("policy", ["rigl", "set"])
def test_stages_whose_connections_move_keep_their_ratio(policy: str) -> None:
    assert prune_targets(policy, 30, (1,), (1, 25, 50), (0.2, 0.1)) == {0: 0.2, 1: 0.1}


@given(
    epochs=st.integers(1, 40),
    first=st.integers(0, 20),
    growths=st.lists(st.integers(2, 40), unique=True, max_size=4).map(sorted),
)
def test_the_trunk_trains_alone_up_to_one_epoch_and_never_again(epochs: int, first: int, growths: list[int]) -> None:
    """As a run asks from epoch to epoch: growths that are to come are not known yet, but that they come is."""
    alone = [
        trunk_alone(epoch, first, [at for at in growths if at <= epoch], bool(growths) and epoch < growths[-1])
        for epoch in range(1, epochs + 1)
    ]
    last = 0 if first == 0 else (growths[-1] if growths else 1) + first - 1
    assert alone == [epoch <= last for epoch in range(1, epochs + 1)]


def test_alone_only_the_deepest_exit_counts() -> None:
    assert [last_alone(exits) for exits in (1, 2, 3)] == [(1.0,), (0.0, 1.0), (0.0, 0.0, 1.0)]
