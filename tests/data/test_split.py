"""The split is stratified, disjoint, complete and the same for the same seed; a selection is balanced."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ramify.data.pictures import Part, PictureSet
from ramify.data.split import split, take, with_test
from ramify.errors import DataError

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=12).map(lambda some: some + some)


def numbered(labels: list[int]) -> Part:
    """Pictures that carry their own number, so that they can be told apart."""
    numbers = torch.arange(len(labels), dtype=torch.uint8)
    return Part(numbers[:, None, None, None].expand(-1, 1, 8, 8).contiguous(), torch.tensor(labels))


def numbers(part: Part) -> list[int]:
    return part.images[:, 0, 0, 0].tolist()


@given(LABELS, st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_split_is_stratified_disjoint_and_complete(labels: list[int], fraction: float, seed: int) -> None:
    part = numbered(labels)
    rest, held_out = split(part, fraction, seed)
    assert sorted(numbers(rest) + numbers(held_out)) == list(range(len(labels)))
    for chosen in (rest, held_out):
        assert numbers(chosen) == sorted(numbers(chosen))
        assert chosen.labels.tolist() == [labels[i] for i in numbers(chosen)]
    got = Counter(held_out.labels.tolist())
    for label, count in Counter(labels).items():
        assert got[label] == min(count - 1, max(1, round(fraction * count)))


@given(LABELS, st.floats(0, 0.99), st.integers(0, 2**32 - 1), st.integers(0, 100))
def test_split_depends_on_its_seed_alone(labels: list[int], fraction: float, seed: int, elsewhere: int) -> None:
    first = split(numbered(labels), fraction, seed)
    torch.manual_seed(elsewhere)
    second = split(numbered(labels), fraction, seed)
    assert [numbers(part) for part in first] == [numbers(part) for part in second]


def test_another_seed_is_another_split() -> None:
    part = numbered([0, 1] * 50)
    assert numbers(split(part, 0.2, 0)[1]) != numbers(split(part, 0.2, 1)[1])


def test_fraction_zero_holds_nothing_out() -> None:
    part = numbered([0, 1, 1])
    rest, held_out = split(part, 0, 0)
    assert (numbers(rest), len(held_out), held_out.images.shape[1:]) == ([0, 1, 2], 0, (1, 8, 8))


def test_a_class_too_small_to_split_is_named() -> None:
    with pytest.raises(DataError, match="class dog: got 1 picture"):
        split(numbered([0, 0, 1]), 0.5, 0, classes=("cat", "dog"))


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(DataError, match=r"data\.valid_fraction: got"):
        split(numbered([0, 0]), fraction, 0)


def test_a_test_part_is_made_only_where_there_is_none() -> None:
    part, nothing = numbered([0, 1] * 10), numbered([0])[torch.tensor([], dtype=torch.int64)]
    made = with_test(PictureSet(part, nothing, ("a", "b")), 0.2)
    assert (len(made.train), len(made.test)) == (16, 4)
    own = PictureSet(part, numbered([0, 1]), ("a", "b"))
    assert with_test(own, 0.2) is own


@given(LABELS, st.data())
def test_a_selection_is_balanced_and_nested(labels: list[int], data: st.DataObject) -> None:
    part, classes = numbered(labels), [str(i) for i in range(len(set(labels)))]
    limit = data.draw(st.integers(len(classes), len(labels)))
    chosen = take(part, limit, classes)
    assert len(chosen) == limit
    assert numbers(chosen) == sorted(numbers(chosen))
    got, had = Counter(chosen.labels.tolist()), Counter(labels)
    most = max(got.values())
    assert set(got) == set(had)
    # A class has fewer than the others, by more than the odd one, only if it has no more to give.
    assert all(got[label] == had[label] for label in had if got[label] < most - 1)
    larger = take(part, data.draw(st.integers(limit, len(labels))), classes)
    assert set(numbers(chosen)) <= set(numbers(larger))


def test_a_limit_below_the_number_of_classes_is_refused() -> None:
    with pytest.raises(DataError, match=r"data\.limit: got 2; accepted: at least 3"):
        take(numbered([0, 1, 2, 2]), 2, ("a", "b", "c"))


def test_a_limit_above_the_number_of_pictures_takes_all() -> None:
    part = numbered([0, 1, 1])
    assert take(part, 100, ("a", "b")) is part
