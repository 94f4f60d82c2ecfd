"""Batches in a seeded order, and their augmentation where they lie."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, get_args

import torch
from torch.nn import functional as F

from ramify.data.strong import strong_batches

NEVER_MIRRORED = frozenset({"digits", "mnist"})
"""``data.source`` whose pictures are never mirrored: a mirrored digit is another sign, or none."""

Augmentation = Literal["none", "crop", "crop_flip"]
Border = Literal["zeros", "reflect", "edge"]

_Change = Callable[[torch.Tensor, Sequence[int], torch.Generator], torch.Tensor]
"""Changes pictures uint8 ``[N, C, H, W]`` of several batches, of the sizes given, with draws for each batch."""

CHANGES: dict[str, _Change] = {"strong": strong_batches}
"""What ``data.augment`` may add to ``auto``, by name; see :data:`_Change`."""


def augment_choices() -> list[str]:
    """The values of ``data.augment``."""
    return ["auto", *get_args(Augmentation), *CHANGES, "photo"]


def augmentation(config_augment: str, source: str) -> Augmentation:
    """How ``data.augment`` moves the pictures of ``data.source``, before a change of :data:`CHANGES`.

    ``photo`` mirrors where ``auto`` does (:mod:`ramify.data.photo`).

    Example:
        >>> augmentation("auto", "digits"), augmentation("auto", "cifar10"), augmentation("none", "cifar10")
        ('crop', 'crop_flip', 'none')
    """
    for how in get_args(Augmentation):
        if config_augment == how:
            return how  # type: ignore[no-any-return]  # one of the three
    return "crop" if source in NEVER_MIRRORED else "crop_flip"


def farthest(height: int, shift: int | None) -> int:
    """The largest shift in pixels: ``shift``, or an eighth of the height."""
    return max(1, height // 8) if shift is None else shift


def draw_changes(count: int, how: Augmentation, generator: torch.Generator, reach: int) -> torch.Tensor:
    """Draw the numbers by which :func:`changed` augments ``count`` pictures, shifting them by up to ``reach`` pixels.

    Returns:
        int64 ``[3, count]`` on the CPU: offsets down and to the right in the padded picture, and whether it is
        mirrored. With ``none`` nothing is drawn.

    Example:
        >>> draw_changes(5, "crop", torch.Generator().manual_seed(0), 1).shape
        torch.Size([3, 5])
    """
    drawn = torch.zeros(3, count, dtype=torch.int64)
    if how != "none":
        drawn[:2] = torch.randint(0, 2 * reach + 1, (2, count), generator=generator)
    if how == "crop_flip":
        drawn[2] = torch.rand(count, generator=generator) < 0.5
    return drawn


def changed(
    images: torch.Tensor, how: Augmentation, changes: torch.Tensor, reach: int, border: Border = "zeros"
) -> torch.Tensor:
    """Shift, and maybe mirror, each picture of a batch by ``changes`` of :func:`draw_changes`.

    Args:
        images: ``[B, C, H, W]`` of any type, on any device; not changed.
        how: ``crop`` shifts both ways; ``crop_flip`` also mirrors every other picture, left to right.
        changes: int64 ``[3, B]``, on the same device.
        reach: the largest shift, less than the sides of the pictures.
        border: moves in: zeros, the picture mirrored at its edge, or its edge repeated.

    Example:
        >>> pictures = torch.full((2, 1, 8, 8), 255, dtype=torch.uint8)
        >>> changed(pictures, "crop", draw_changes(2, "crop", torch.Generator().manual_seed(0), 1), 1).shape
        torch.Size([2, 1, 8, 8])
    """
    if how == "none":
        return images
    count, channels, height, width = images.shape
    down, right, mirrored = changes[:, :, None]
    rows = down + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(count, width)
    if how == "crop_flip":
        columns = torch.where(mirrored.bool(), columns.flip(1), columns)
    columns = right + columns
    # Both in one gather.
    if border == "zeros":
        read, across = F.pad(images, (reach, reach, reach, reach)), width + 2 * reach
    else:
        read, across = images, width
        rows, columns = _inside_place(rows - reach, height, border), _inside_place(columns - reach, width, border)
    places = (rows[:, :, None] * across + columns[:, None, :]).view(count, 1, height * width)
    return read.flatten(2).gather(2, places.expand(-1, channels, -1)).view(images.shape)


def _inside_place(places: torch.Tensor, size: int, border: Border) -> torch.Tensor:
    """The places in [0, size) for those up to ``size - 1`` pixels outside."""
    if border == "edge":
        return places.clamp(0, size - 1)
    last = size - 1
    return last - (last - places.abs()).abs()


def balanced(labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """N draws of the pictures with ``labels`` (int64 ``[N]``), as many of each class, ``int64 [N]``.

    All pictures of a class are drawn before one is repeated.

    Example:
        >>> labels = torch.tensor([0] * 90 + [1] * 10)
        >>> labels[balanced(labels, torch.Generator().manual_seed(0))].bincount().tolist()
        [50, 50]
    """
    classes = sorted(set(labels.tolist()))
    chosen = []
    for at, label in enumerate(classes):
        places = (labels == label).nonzero()[:, 0]
        count = len(labels) // len(classes) + (at < len(labels) % len(classes))
        rounds = [torch.randperm(len(places), generator=generator) for _ in range(-(-count // len(places)))]
        chosen.append(places[torch.cat(rounds)[:count]])
    drawn = torch.cat(chosen)
    return drawn[torch.randperm(len(drawn), generator=generator)]


_Sampler = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""The pictures of an epoch, int64 ``[N]``, from the labels of all (int64 ``[N]``, on the CPU)."""

SAMPLERS: dict[str, _Sampler] = {
    "shuffle": lambda labels, generator: torch.arange(len(labels)),  # their order is drawn by batches()
    "balanced": balanced,
}
"""Every sampler by the name that ``data.sampler`` takes."""


def batches(n: int, batch_size: int, generator: torch.Generator, count: int | None = None) -> Iterator[torch.Tensor]:
    """The numbers 0 to n - 1, or ``count`` of them, in a seeded order, in batches (int64, on the CPU).

    The last batch may be smaller. A single picture left over joins the batch before it, as batch norm cannot train on
    one.

    Example:
        >>> [len(batch) for batch in batches(9, 4, torch.Generator())]
        [4, 5]
    """
    order = torch.randperm(n, generator=generator)[:count]
    start = 0
    while start < len(order):
        stop = start + batch_size
        if stop + 1 == len(order):
            stop = len(order)
        yield order[start:stop]
        start = stop
