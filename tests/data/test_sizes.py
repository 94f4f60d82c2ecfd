"""Pictures are scaled in proportion; the mean color stays, and full size changes nothing."""

import pytest
import torch

from ramify.data.sizes import scaled, scaled_size


@pytest.mark.parametrize(("shape", "side", "size"), [((32, 32), 16, (16, 16)), ((32, 48), 8, (8, 12))])
def test_the_shorter_side_is_what_is_asked_for(shape: tuple[int, int], side: int, size: tuple[int, int]) -> None:
    images = torch.rand(4, 3, *shape, generator=torch.Generator().manual_seed(0))
    found = scaled(images, side)
    assert found.shape[2:] == scaled_size(*shape, side) == size
    torch.testing.assert_close(found.mean(dim=(2, 3)), images.mean(dim=(2, 3)), rtol=0, atol=0.02)


def test_full_size_is_the_same_tensor() -> None:
    images = torch.rand(2, 3, 16, 24)
    assert scaled(images, 16) is images
    assert scaled(images, None) is images


def test_the_layout_stays() -> None:
    images = torch.rand(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    assert scaled(images, 8).is_contiguous(memory_format=torch.channels_last)
