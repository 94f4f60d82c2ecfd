"""Cutout: a square of each training picture is blanked."""

import torch
from torch import Tensor


def cutout(images: Tensor, side: int, generator: torch.Generator, fill: Tensor | None = None) -> Tensor:
    """Blank a square of ``side`` pixels in each picture (arXiv:1708.04552); its center is uniform over the picture.

    Args:
        images: ``[B, C, H, W]`` of any type, on any device; not changed.
        side: >= 1.
        generator: on the CPU, so that a seed gives the same pictures on every device.
        fill: ``[C]`` of the same type, the color of the square; zeros without it.

    Example:
        >>> pictures = torch.ones(1, 1, 8, 8)
        >>> int((cutout(pictures, 2, torch.Generator().manual_seed(0)) == 0).sum())
        4
    """
    count, _, height, width = images.shape
    down, right = torch.rand(2, count, generator=generator)
    rows = _covered((down * height).long() - side // 2, side, height)
    columns = _covered((right * width).long() - side // 2, side, width)
    hidden = (rows[:, :, None] & columns[:, None, :])[:, None].to(images.device, non_blocking=True)
    if fill is None:
        return images.masked_fill(hidden, 0)
    return torch.where(hidden, fill.to(images)[:, None, None], images)


def _covered(first: Tensor, length: int, size: int) -> Tensor:
    """Which of ``size`` places lie in the ``length`` from ``first [B]`` on, bool ``[B, size]``."""
    places = torch.arange(size)
    return (places >= first[:, None]) & (places < first[:, None] + length)
