"""Groups of seeds: who belongs together, what they are called, and their means and deviations."""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.config.rules import Config, resolve
from ramify.show.groups import LAST, Group, Run, accuracy_of, difference, grouped, spread
from ramify.show.labels import differing, flat, labels
from tests.show.report.comparing import made, settings

VALUES = st.lists(st.floats(0, 1e9), min_size=2, max_size=30)

CONFIGS = {
    "plain": settings(),
    "dense": settings("network.kind=dense"),
    "sparse": settings("prune.enabled=true", "prune.epochs=[20]", "prune.keep_ratio=0.46"),
    "narrow": settings("network.channels=8"),
    "long": settings("train.epochs=90"),
}


@given(VALUES)
def test_mean_and_deviation_are_those_of_numpy(values: list[float]) -> None:
    found = spread(values)
    assert found is not None
    assert found.deviation is not None
    assert found.n == len(values)
    assert math.isclose(found.mean, np.mean(values), rel_tol=1e-9, abs_tol=1e-12)
    assert math.isclose(found.deviation, np.std(values, ddof=1), rel_tol=1e-6, abs_tol=1e-9 + 1e-6 * max(values))


@given(VALUES, st.randoms(use_true_random=False))
def test_the_order_of_values_does_not_matter(values: list[float], draw: random.Random) -> None:
    shuffled = draw.sample(values, len(values))
    assert spread(values) == spread(shuffled)


def test_differences_that_are_the_same_have_no_interval() -> None:
    # 0.8 - 0.7 and 0.5 - 0.4 differ in the last bit.
    paired = difference(*of_seeds((0.8, 0.5), (0.7, 0.4), seeds=(0, 1)), accuracy_of(LAST))
    apart = difference(*of_seeds((0.1 + 0.2, 0.3), (0.7, 0.7), seeds=(2, 3)), accuracy_of(LAST))
    other = difference(*of_seeds((0.8, 0.5), (0.7, 0.41), seeds=(0, 1)), accuracy_of(LAST))
    assert paired is not None
    assert apart is not None
    assert other is not None
    assert (paired.paired, apart.paired) == (True, False)
    assert paired.interval() == apart.interval() == (None, None, None)
    low, high, p_value = other.interval()
    assert low is not None
    assert high is not None
    assert low < 0.095 < high
    assert p_value == pytest.approx(0.0335, abs=1e-4)


def of_seeds(one: Sequence[float], two: Sequence[float], seeds: Sequence[int]) -> tuple[Group, Group]:
    """Two groups of one exit, the first of the seeds 0 and 1, the second of ``seeds``."""
    runs = [made(CONFIGS["plain"], seed, (right,)) for seed, right in enumerate(one)]
    runs += [made(CONFIGS["dense"], seed, (right,)) for seed, right in zip(seeds, two, strict=True)]
    second, first = grouped(runs)
    return first, second


def test_one_value_has_no_deviation_and_none_no_spread() -> None:
    found = spread([0.5, None])
    assert found is not None
    assert (found.mean, found.deviation, found.n) == (0.5, None, 1)
    assert spread([None]) is None


@given(st.lists(st.tuples(st.sampled_from(sorted(CONFIGS)), st.integers(0, 5)), min_size=1), st.randoms())
def test_groups_do_not_depend_on_the_order_of_runs(drawn: list[tuple[str, int]], draw: random.Random) -> None:
    runs = [
        made(CONFIGS[config], seed, (0.1 * seed, 0.2, 0.3, 0.4), name=f"{config}-{seed}-{i}")
        for i, (config, seed) in enumerate(drawn)
    ]
    groups = grouped(runs)
    assert groups == grouped(draw.sample(runs, len(runs)))
    # Every run is in one group, with all runs of its recipe and no other.
    assert sorted(run.name for group in groups for run in group.runs) == sorted(run.name for run in runs)
    assert all(len({run.summary.recipe for run in group.runs}) == 1 for group in groups)
    assert len(groups) == len({run.summary.recipe for run in runs})
    assert len({group.label for group in groups}) == len(groups)


def test_only_finished_runs_count_and_each_exit_for_those_that_have_it() -> None:
    config = settings()
    runs = [
        made(config, 1, (0.5, 0.6, 0.7, 0.8)),
        made(config, 2, (0.7, 0.8, 0.9)),
        made(config, 3, (0.1, 0.1), finished=False),
    ]
    (group,) = grouped(runs)
    assert [run.seed for run in group.finished] == [1, 2]
    first, third, last = group.accuracy(0), group.accuracy(2), group.accuracy(LAST)
    assert first is not None
    assert first.mean == pytest.approx(0.6)
    assert first.n == 2
    # The third exit of the second run is its last one.
    assert third is not None
    assert (third.mean, third.n) == (0.7, 1)
    assert last is not None
    assert last.mean == pytest.approx(0.85)
    assert group.accuracy(3) is None
    assert group.exits == (0, 1, 2, LAST)
    # An epoch that the third has not reached is the mean of two.
    assert {epoch: each.n for epoch, each in group.epochs().items()} == {1: 3, 2: 3, 3: 2, 4: 2}


def test_labels_are_made_of_the_fewest_keys_that_differ() -> None:
    assert labels([CONFIGS["plain"], CONFIGS["dense"]]) == ["iterative", "dense"]
    assert labels([CONFIGS["plain"], CONFIGS["narrow"]]) == ["16 channels", "8 channels"]
    sparse_dense = settings("network.kind=dense", "prune.enabled=true", "prune.epochs=[20]", "prune.keep_ratio=0.46")
    assert labels([CONFIGS["dense"], CONFIGS["sparse"], sparse_dense, CONFIGS["plain"]]) == [
        "dense",
        "iterative · keep 0.46",
        "dense · keep 0.46",
        "iterative",
    ]
    assert labels([CONFIGS["plain"]]) == ["iterative"]
    # What follows from another key is not named in its place.
    assert labels([resolve(CONFIGS["plain"]), resolve(CONFIGS["long"])]) == ["30 epochs", "90 epochs"]
    elsewhere = settings("data.source=/pictures/birds.zip", "growth.epochs=[2,3,4]")
    assert labels([CONFIGS["plain"], elsewhere]) == ["digits", "birds.zip"]


def test_labels_differ_even_where_no_words_do() -> None:
    # What an unpruned run would have kept is told by no label.
    twins = [settings("prune.keep_ratio=0.3"), settings("prune.keep_ratio=0.4")]
    assert labels(twins) == ["unpruned (1)", "unpruned (2)"]


@given(st.lists(st.sampled_from(sorted(CONFIGS)), min_size=1, unique=True))
def test_labels_tell_apart_and_keys_differ(names: list[str]) -> None:
    configs = [CONFIGS[name] for name in names]
    assert len(set(labels(configs))) == len(configs)
    keys = differing(configs)
    assert len(set(keys)) == len(keys)
    for key in flat(Config()):
        assert (key in keys) == (len({repr(flat(config)[key]) for config in configs}) > 1)


def test_groups_stand_in_the_order_of_their_numbers() -> None:
    runs: list[Run] = [made(settings(f"network.channels={width}")) for width in (16, 8, 32)]
    assert [group.label for group in grouped(runs)] == ["8 channels", "16 channels", "32 channels"]
