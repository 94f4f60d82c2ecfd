"""Random resized crops, mirrored pictures and mild color, from pictures that are kept larger."""

import pytest
import torch

from ramify.data.photo import COLOR, PhotoChanges, draw_photo, larger, photo


def changes(count: int = 1, mirrored: bool = False, **drawn: float) -> PhotoChanges:
    """The numbers of a whole crop that leaves the colors as they are, but for ``drawn``."""
    names = ("area", "aspect", "down", "right", "brightness", "contrast", "saturation")
    values = {"area": 1.0, **dict.fromkeys(names[1:], 0.5)} | drawn
    return PhotoChanges(torch.tensor([[values[name]] * count for name in names]), torch.tensor([mirrored] * count))


@pytest.fixture
def ramp() -> torch.Tensor:
    """A picture whose values rise to the right in red and downwards in green."""
    side = torch.arange(46, dtype=torch.float32) * 5
    return torch.stack((side.expand(46, 46), side[:, None].expand(46, 46), torch.full((46, 46), 99.0))).to(torch.uint8)[
        None
    ]


def test_the_whole_picture_is_scaled(ramp: torch.Tensor) -> None:
    found = photo(ramp, (23, 23), changes()).float()
    expected = torch.nn.functional.interpolate(ramp.float(), (23, 23), mode="bilinear", antialias=True)
    assert (found - expected).abs().max() <= 1


def test_a_mirrored_picture_is_the_other_way_round(ramp: torch.Tensor) -> None:
    assert torch.equal(photo(ramp, (40, 40), changes(mirrored=True)), photo(ramp, (40, 40), changes()).flip(3))


def test_a_crop_lies_where_it_was_drawn(ramp: torch.Tensor) -> None:
    corners = {
        (down, right): photo(ramp, (20, 20), changes(area=0.0, down=down, right=right)).float()
        for down in (0.0, 0.999)
        for right in (0.0, 0.999)
    }
    for (down, right), found in corners.items():
        assert (found[0, 0].mean() > 115) == (right > 0)
        assert (found[0, 1].mean() > 115) == (down > 0)
        assert found[0, 0, 0].diff().sum() < 46 * 5 * 0.7  # less than the whole ramp: it is a part of the picture


def test_colors_change_by_factors_around_one(ramp: torch.Tensor) -> None:
    plain = photo(ramp, (46, 46), changes()).float()
    brighter = photo(ramp, (46, 46), changes(brightness=1.0)).float()
    inside = brighter < 255
    assert torch.allclose(brighter[inside], plain[inside] * (1 + COLOR), atol=1)
    duller = photo(ramp, (46, 46), changes(saturation=0.0)).float()
    assert duller.std(dim=1).mean() < plain.std(dim=1).mean()
    flatter = photo(ramp, (46, 46), changes(contrast=0.0)).float()
    assert flatter.std() < plain.std()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_channels_and_shapes_and_the_same_seed_the_same_pictures(channels: int) -> None:
    images = torch.randint(0, 256, (6, channels, 30, 40), dtype=torch.uint8)
    first, again = (photo(images, (24, 32), draw_photo(6, True, torch.Generator().manual_seed(3))) for _ in range(2))
    assert first.shape == (6, channels, 24, 32)
    assert torch.equal(first, again)
    parts = draw_photo(6, True, torch.Generator().manual_seed(3))
    assert torch.equal(photo(images[2:4], (24, 32), parts[2:4]), first[2:4])


def test_signs_are_never_mirrored() -> None:
    assert not draw_photo(50, False, torch.Generator()).mirrored.any()
    assert larger((160, 100)) == (184, 115)
