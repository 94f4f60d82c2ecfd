"""Augmentation moves and mirrors pictures by seeded numbers; batches hold every picture once."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from ramify.data.augment import Border, augmentation, batches
from tests.data.making import augment


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shifted(picture: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """``picture`` read from ``down`` and ``right`` on, zeros beyond it: the plain way."""
    out = torch.zeros_like(picture)
    _, height, width = picture.shape
    into = [slice(max(0, -move), min(side, side - move)) for move, side in ((down, height), (right, width))]
    from_ = [slice(max(0, move), min(side, side + move)) for move, side in ((down, height), (right, width))]
    out[:, into[0], into[1]] = picture[:, from_[0], from_[1]]
    return out


@pytest.mark.parametrize("shape", [(3, 16, 24), (1, 8, 8)])
def test_every_result_is_a_shift_or_a_mirrored_shift(shape: tuple[int, int, int]) -> None:
    images = torch.randint(1, 256, (40, *shape), dtype=torch.uint8, generator=seeded())
    reach = max(1, shape[1] // 8)
    found = set()
    for before, after in zip(images, augment(images, "crop_flip", seeded(1)), strict=True):
        ways = [
            (down, right, mirrored)
            for down in range(-reach, reach + 1)
            for right in range(-reach, reach + 1)
            for mirrored in (False, True)
            if torch.equal(after, shifted(before, down, right).flip(-1) if mirrored else shifted(before, down, right))
        ]
        assert len(ways) == 1
        found.add(ways[0])
    assert {mirrored for _, _, mirrored in found} == {False, True}
    assert max(down for down, _, _ in found) == reach
    assert min(right for _, right, _ in found) == -reach


@pytest.mark.parametrize("border", ["reflect", "edge"])
def test_a_border_moves_in_what_the_picture_has(border: Border) -> None:
    images = torch.randint(1, 256, (30, 1, 8, 10), dtype=torch.uint8, generator=seeded())
    mode = {"reflect": "reflect", "edge": "replicate"}[border]
    wide = F.pad(images.float(), (3, 3, 3, 3), mode=mode).to(torch.uint8)
    found = set()
    for before, after in zip(wide, augment(images, "crop", seeded(1), 3, border), strict=True):
        ways = [(y, x) for y in range(7) for x in range(7) if torch.equal(after, before[:, y : y + 8, x : x + 10])]
        assert len(ways) == 1
        found.add(ways[0])
    assert {min(y for y, _ in found), max(x for _, x in found)} == {0, 6}


def test_crop_never_mirrors() -> None:
    ramp = torch.arange(1, 17, dtype=torch.uint8).expand(200, 1, 16, 16)
    inner = augment(ramp, "crop", seeded())[:, 0, 8, 3:13].int()
    assert bool((inner.diff(dim=1) == 1).all())


def test_none_changes_nothing_and_draws_nothing() -> None:
    images, generator = torch.ones(2, 1, 8, 8, dtype=torch.uint8), seeded()
    before = generator.get_state()
    assert augment(images, "none", generator) is images
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("how", ["crop", "crop_flip"])
def test_a_seed_gives_the_same_pictures_and_leaves_the_input(how: str) -> None:
    images = torch.randint(0, 256, (10, 3, 8, 8), dtype=torch.uint8, generator=seeded())
    kept = images.clone()
    first = augment(images, how, seeded(3))  # type: ignore[arg-type]
    assert torch.equal(first, augment(images, how, seeded(3)))  # type: ignore[arg-type]
    assert not torch.equal(first, augment(images, how, seeded(4)))  # type: ignore[arg-type]
    assert torch.equal(images, kept)
    assert (first.dtype, first.shape) == (images.dtype, images.shape)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_seed_gives_the_same_pictures_on_every_device() -> None:
    images = torch.randint(0, 256, (10, 3, 8, 8), dtype=torch.uint8, generator=seeded())
    there = augment(images.cuda(), "crop_flip", seeded(3))
    assert there.is_cuda
    assert torch.equal(there.cpu(), augment(images, "crop_flip", seeded(3)))


@pytest.mark.parametrize(
    ("source", "how"),
    [("digits", "crop"), ("mnist", "crop"), ("fashion_mnist", "crop_flip"), ("some/folder", "crop_flip")],
)
def test_auto_mirrors_photographs_and_never_digits(source: str, how: str) -> None:
    assert augmentation("auto", source) == how
    assert augmentation("none", source) == "none"
    assert augmentation("crop_flip", source) == "crop_flip"


@given(st.integers(0, 200), st.integers(2, 50), st.integers(0, 1000), st.none() | st.integers(2, 200))
def test_batches_deal_every_picture_once_and_never_one_alone(n: int, size: int, seed: int, count: int | None) -> None:
    dealt = list(batches(n, size, seeded(seed), count))
    pictures = [int(index) for batch in dealt for index in batch]
    assert len(set(pictures)) == len(pictures) == min(n, n if count is None else count)
    assert set(pictures) <= set(range(n))
    assert all(len(batch) == size for batch in dealt[:-1])
    assert n == 1 or all(2 <= len(batch) <= size + 1 for batch in dealt)
    again = list(batches(n, size, seeded(seed), count))
    assert all(torch.equal(a, b) for a, b in zip(dealt, again, strict=True))
