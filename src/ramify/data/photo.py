"""Augmentation for photographs: random resized crops, mirrored pictures, and mild changes of color.

A crop of random area and shape is scaled to the size of the network (Inception, arXiv:1409.4842), and brightness,
contrast and saturation change a little. Photographs are kept :data:`MARGIN` times as large as the network reads them.
All pictures of a batch are resampled at once, by two matrix products.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ramify.data.decode import PictureSize

MARGIN = 1.15
"""How much larger than the network's size photographs are kept."""

AREA = (0.35, 1.0)
"""Least and largest share of the picture that a crop covers, drawn evenly."""

ASPECT = 4 / 3
"""Longest side of a crop over its other side; the logarithm is drawn evenly."""

COLOR = 0.2
"""Brightness, contrast and saturation change by a factor within 1 - COLOR and 1 + COLOR."""

_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in gray (ITU-R 601)."""


@dataclass(frozen=True)
class PhotoChanges:
    """The numbers of :func:`photo` for each picture: float32 ``[7, count]`` in [0, 1), and whether it is mirrored.

    The rows are area, aspect, place down and to the right, brightness, contrast and saturation.
    """

    drawn: Tensor
    mirrored: Tensor

    def __getitem__(self, which: slice) -> "PhotoChanges":
        return PhotoChanges(self.drawn[:, which], self.mirrored[which])

    def to(self, device: torch.device) -> "PhotoChanges":
        """The same numbers on ``device``."""
        return PhotoChanges(self.drawn.to(device), self.mirrored.to(device))


def draw_photo(count: int, mirror: bool, generator: torch.Generator) -> PhotoChanges:
    """Draw the changes of ``count`` pictures on the CPU; with ``mirror`` half of them are mirrored."""
    drawn = torch.rand(8, count, generator=generator)
    return PhotoChanges(drawn[:7], (drawn[7] < 0.5) & mirror)


def larger(size: PictureSize) -> PictureSize:
    """Height and width at which pictures of ``size`` are kept for their crops.

    Example:
        >>> larger((160, 120))
        (184, 138)
    """
    return math.ceil(MARGIN * size[0]), math.ceil(MARGIN * size[1])


def photo(images: Tensor, size: PictureSize, changes: PhotoChanges) -> Tensor:
    """Crop, scale, mirror and color each picture of a batch by its own numbers.

    Args:
        images: uint8 ``[B, C, h, w]``, on any device; not changed.
        size: (H, W) of the output.
        changes: of :func:`draw_photo`, on the device of the pictures.

    Returns:
        uint8 ``[B, C, H, W]``.

    Example:
        >>> pictures = torch.full((2, 3, 23, 23), 200, dtype=torch.uint8)
        >>> photo(pictures, (20, 20), draw_photo(2, True, torch.Generator().manual_seed(0))).shape
        torch.Size([2, 3, 20, 20])
    """
    height, width = images.shape[2:]
    area, aspect, down, right, brightness, contrast, saturation = changes.drawn
    area = AREA[0] + area * (AREA[1] - AREA[0])
    stretch = torch.exp((2 * aspect - 1) * (math.log(ASPECT) / 2))
    tall = (height * area.sqrt() / stretch).clamp(max=height)  # of the crop, in pixels
    wide = (width * area.sqrt() * stretch).clamp(max=width)
    rows = _resampling(down * (height - tall), tall, height, size[0])
    columns = _resampling(right * (width - wide), wide, width, size[1])
    columns = torch.where(changes.mirrored[:, None, None], columns.flip(1), columns)
    pixels = images.to(torch.float32)
    crops = rows[:, None] @ pixels @ columns[:, None].transpose(2, 3)
    return _colored(crops, brightness, contrast, saturation).round_().clamp_(0, 255).to(torch.uint8)


def _resampling(start: Tensor, length: Tensor, pixels: int, size: int) -> Tensor:
    """Weights ``[B, size, pixels]`` that scale the part from ``start`` of ``length`` ``[B]``: linear, antialiased."""
    scale = (length / size)[:, None, None]
    at = start[:, None, None] + (torch.arange(size, device=start.device)[:, None] + 0.5) * scale - 0.5
    weights = (1 - (torch.arange(pixels, device=start.device) - at).abs() / scale.clamp(min=1)).clamp(min=0)
    return weights / weights.sum(dim=2, keepdim=True)


def _colored(pixels: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Brightness scales the values, contrast their distance from the mean gray, saturation that from their own gray."""
    by_light, by_contrast, by_color = (
        (1 + (2 * drawn - 1) * COLOR)[:, None, None, None] for drawn in (brightness, contrast, saturation)
    )
    pixels = pixels * by_light
    mean = _gray(pixels).mean(dim=(2, 3), keepdim=True)
    pixels = torch.lerp(mean, pixels, by_contrast)
    return torch.lerp(_gray(pixels), pixels, by_color) if pixels.shape[1] == 3 else pixels


def _gray(pixels: Tensor) -> Tensor:
    if pixels.shape[1] != 3:
        return pixels.mean(dim=1, keepdim=True)
    return (pixels * pixels.new_tensor(_LUMA)[:, None, None]).sum(dim=1, keepdim=True)
