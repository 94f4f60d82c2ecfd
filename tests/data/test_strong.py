"""Strong augmentation changes each picture alone, by numbers that a seed gives, and keeps what a picture is."""

import pytest
import torch

from ramify.data.strong import STRONG_CHANGES, apply_strong, strong_batches

DIRECTED = {
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "contrast",
    "color",
    "sharpness",
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def strong(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return strong_batches(images, [len(images)], generator)


def pictures(count: int, *shape: int, seed: int = 0) -> torch.Tensor:
    """Smooth pictures with all kinds of values."""
    small = torch.rand(count, shape[0], 4, 4, generator=seeded(seed))
    large = torch.nn.functional.interpolate(small, size=shape[1:], mode="bilinear")
    return (large * 255).round().to(torch.uint8)


def one(images: torch.Tensor, name: str, strength: float, sign: int = 1) -> torch.Tensor:
    count = len(images)
    kind = torch.full((count,), STRONG_CHANGES.index(name))
    return apply_strong(images, kind, torch.full((count,), strength), torch.full((count,), sign))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 12, 20), (4, 9, 8)])
def test_type_shape_and_input_stay(shape: tuple[int, int, int]) -> None:
    images = pictures(100, *shape)
    kept = images.clone()
    found = strong(images, seeded(1))
    assert (found.dtype, found.shape) == (torch.uint8, images.shape)
    assert torch.equal(images, kept)
    assert torch.equal(found, strong(images, seeded(1)))
    assert not torch.equal(found, strong(images, seeded(2)))


def test_a_picture_does_not_depend_on_its_neighbors() -> None:
    images, others = pictures(100, 3, 16, 16), pictures(100, 3, 16, 16, seed=9)
    odd = torch.arange(100) % 2 == 1
    replaced = torch.where(odd[:, None, None, None], others, images)
    one_way, other_way = strong(images, seeded(1)), strong(replaced, seeded(1))
    assert torch.equal(one_way[~odd], other_way[~odd])
    kind, strength, sign = torch.arange(14), torch.linspace(0, 1, 14), torch.tensor([1, -1] * 7)
    together = apply_strong(images[:14], kind, strength, sign)
    for i in range(14):
        alone = apply_strong(images[i : i + 1], kind[i : i + 1], strength[i : i + 1], sign[i : i + 1])
        assert torch.equal(alone[0], together[i]), STRONG_CHANGES[i]


@pytest.mark.parametrize("name", sorted(DIRECTED | {"posterize", "nothing"}))
def test_no_strength_is_no_change(name: str) -> None:
    images = pictures(5, 3, 16, 16)
    assert torch.equal(one(images, name, 0.0), images)


@pytest.mark.parametrize("name", [name for name in STRONG_CHANGES if name != "nothing"])
def test_each_change_changes_and_both_directions_differ(name: str) -> None:
    images = pictures(5, 3, 16, 16) // 2 + 40
    found = one(images, name, 0.9)
    assert not torch.equal(found, images)
    assert torch.equal(found, one(images, name, 0.9, -1)) != (name in DIRECTED)


def test_every_change_is_drawn_as_often() -> None:
    """Pictures on which each kind of change leaves another trace are not needed: the draw itself is counted."""
    drawn = torch.randint(len(STRONG_CHANGES), (14_000,), generator=seeded(0)).bincount(minlength=14)
    assert drawn.min() > 850
    same = strong(pictures(1, 3, 16, 16).expand(700, -1, -1, -1), seeded(3)) == pictures(1, 3, 16, 16)
    share = float(same.flatten(1).all(dim=1).double().mean())
    assert 1 / 14 - 0.03 < share < 3 / 14


def test_moves_are_about_the_center() -> None:
    """A ring of one picture stays under turns, and a shift moves a bright pixel by its share of the side."""
    images = torch.zeros(1, 1, 33, 33, dtype=torch.uint8)
    images[0, 0, 16, 16] = 255
    for name in ("rotate", "shear_x", "shear_y"):
        assert one(images, name, 1.0)[0, 0, 16, 16] == 255
    moved = one(images, "translate_x", 1.0)[0, 0].nonzero()
    assert moved.tolist() == [[16, 6]]  # 0.3 of 33 pixels, read from further right
    assert one(images, "translate_y", 1.0, -1)[0, 0].nonzero().tolist() == [[26, 16]]


def test_a_turn_there_and_back_is_none_in_the_middle() -> None:
    images = pictures(4, 1, 64, 64)
    back = one(one(images, "rotate", 1.0), "rotate", 1.0, -1)
    inner = (slice(None), slice(None), slice(20, 44), slice(20, 44))
    assert float((back[inner].double() - images[inner].double()).abs().mean()) < 4


def test_colors_are_kind_their_names_say() -> None:
    images = pictures(6, 3, 16, 16)
    values = images.int()
    assert torch.equal(one(images, "brightness", 1.0, -1).int(), values * 26 >> 8)
    assert torch.equal(one(images, "solarize", 1.0).int(), 255 - values)
    assert torch.equal(one(images, "solarize", 0.0), images)
    assert not (one(images, "posterize", 1.0).int() & 15).any()
    spread = one(images, "contrast", 1.0, 1).double().std(dim=(1, 2, 3))
    assert bool((spread > images.double().std(dim=(1, 2, 3))).all())
    gray = one(images, "color", 1.0, -1).int()
    assert bool(((gray.amax(1) - gray.amin(1)) <= (values.amax(1) - values.amin(1)) // 8 + 2).all())
    stretched = one(images, "autocontrast", 0.5)
    assert not stretched.amin(dim=(2, 3)).any()
    assert bool((stretched.amax(dim=(2, 3)) == 255).all())


def test_equalising_is_that_of_pillow() -> None:
    from PIL import Image, ImageOps

    images = pictures(4, 1, 32, 32)
    for before, after in zip(images, one(images, "equalize", 0.5), strict=True):
        expected = ImageOps.equalize(Image.fromarray(before[0].numpy()))
        assert torch.equal(after[0], torch.tensor(list(expected.tobytes()), dtype=torch.uint8).view(32, 32))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_seed_gives_the_same_pictures_on_every_device() -> None:
    images = pictures(300, 3, 32, 32)
    assert torch.equal(strong(images.cuda(), seeded(3)).cpu(), strong(images, seeded(3)))
