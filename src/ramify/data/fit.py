"""Pictures of one shape made into pictures of another."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from ramify.data.decode import Size
from ramify.data.pictures import Part, PictureSet
from ramify.errors import DataError

_CHUNK = 1024  # pictures that are floating point numbers at a time


def fit_set(pictures: PictureSet, shape: tuple[int, int, int]) -> PictureSet:
    """Every picture of the set as ``shape`` (C, H, W); see :func:`fit`.

    Raises:
        DataError: ``shape`` has neither 1 nor 3 channels, and not the pictures' own.
    """
    return PictureSet(fit(pictures.train, shape), fit(pictures.test, shape), pictures.classes)


def fit(part: Part, shape: tuple[int, int, int]) -> Part:
    """Pictures as ``shape`` (C, H, W): gray to RGB or back, then scaled and centre-cropped, antialiased.

    Raises:
        DataError: ``shape`` has neither 1 nor 3 channels, and not the pictures' own.

    Example:
        >>> part = Part(torch.full((2, 1, 8, 8), 255, dtype=torch.uint8), torch.tensor([0, 1]))
        >>> fit(part, (3, 16, 12)).images.shape
        torch.Size([2, 3, 16, 12])
    """
    return Part(resize(recolour(part.images, shape[0]), shape[1:]), part.labels)


def resize(images: torch.Tensor, size: Size) -> torch.Tensor:
    """uint8 ``[N, C, h, w]`` scaled to cover ``size`` (H, W) and cropped to it at the centre."""
    if tuple(images.shape[2:]) == size:
        return images
    height, width = images.shape[2:]
    # The largest part of the picture's middle that has the shape asked for.
    scale = min(height / size[0], width / size[1])
    inner_height, inner_width = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    middle = images[:, :, top : top + inner_height, left : left + inner_width]

    def scaled(chunk: torch.Tensor) -> torch.Tensor:
        exact = F.interpolate(chunk.float(), size, mode="bicubic", antialias=True, align_corners=False)
        return exact.round_().clamp_(0, 255).to(torch.uint8)

    return _by_chunks(middle, scaled, (images.shape[1], *size))


def recolour(images: torch.Tensor, channels: int) -> torch.Tensor:
    """uint8 ``[N, C, H, W]`` with ``channels`` channels: gray repeated, or RGB weighed as the eye does (ITU-R 601).

    Raises:
        DataError: the two numbers of channels are not 1 and 3, and not equal.
    """
    own = images.shape[1]
    if own == channels:
        return images
    if (own, channels) == (1, 3):
        return images.expand(-1, 3, -1, -1).contiguous()
    if (own, channels) == (3, 1):
        weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32)[:, None, None]

        def luma(chunk: torch.Tensor) -> torch.Tensor:
            return (((chunk * weights).sum(1, keepdim=True) + (1 << 15)) >> 16).to(torch.uint8)

        return _by_chunks(images, luma, (1, *images.shape[2:]))
    raise DataError(
        f"network.input_shape: got {channels} channels for pictures with {own}; accepted: "
        + ("1 or 3" if own in (1, 3) else str(own))
    )


def _by_chunks(
    images: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...]
) -> torch.Tensor:
    changed = torch.empty(len(images), *shape, dtype=torch.uint8)
    for start in range(0, len(images), _CHUNK):
        changed[start : start + _CHUNK] = change(images[start : start + _CHUNK])
    return changed
