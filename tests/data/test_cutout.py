"""Cutout blanks one square in each picture, of exactly its size where it fits."""

import pytest
import torch

from ramify.data.cutout import cutout


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("side", [1, 2, 5, 8])
def test_the_area_is_exact(side: int) -> None:
    images = torch.randint(1, 256, (300, 3, 16, 24), dtype=torch.uint8, generator=seeded())
    kept = images.clone()
    found = cutout(images, side, seeded(1))
    assert torch.equal(images, kept)
    assert (found.dtype, found.shape) == (images.dtype, images.shape)
    whole = 0
    for before, after in zip(images, found, strict=True):
        gone = (after == 0).all(dim=0)
        assert torch.equal((after == 0).any(dim=0), gone)
        assert torch.equal(after[:, ~gone], before[:, ~gone])
        rows, columns = gone.any(dim=1).nonzero()[:, 0], gone.any(dim=0).nonzero()[:, 0]
        height, width = len(rows), len(columns)
        assert int(gone.sum()) == height * width  # a rectangle without holes
        assert int(rows[-1] - rows[0]) + 1 == height
        assert int(columns[-1] - columns[0]) + 1 == width
        # Less than the side only where the border cuts it.
        assert height == side or rows[0] == 0 or rows[-1] == 15
        assert width == side or columns[0] == 0 or columns[-1] == 23
        whole += height == width == side
    assert whole > 75


def test_it_is_filled_with_what_is_told() -> None:
    images = torch.zeros(20, 3, 8, 8, dtype=torch.uint8)
    fill = torch.tensor([10, 20, 30], dtype=torch.uint8)
    found = cutout(images, 3, seeded(), fill)
    for channel, value in enumerate((10, 20, 30)):
        assert set(found[:, channel].unique().tolist()) == {0, value}


def test_a_seed_gives_the_same_squares_and_each_picture_its_own() -> None:
    images = torch.ones(50, 1, 16, 16)
    first = cutout(images, 4, seeded(2))
    assert torch.equal(first, cutout(images, 4, seeded(2)))
    assert len({tuple(each.flatten().tolist()) for each in first}) > 25
