"""Pictures of one shape made into pictures of another."""

import torch
from torch.nn import functional as F

from ramify.data.decode import PictureSize
from ramify.data.pictures import Part, PictureSet
from ramify.data.recolor import by_chunks, recolor
from ramify.data.store import Rows


def fit_set(pictures: PictureSet, shape: tuple[int, int, int]) -> PictureSet:
    """Every picture of the set as ``shape`` (C, H, W); see :func:`fit`."""
    train, test, valid = (fit(part, shape) for part in (pictures.train, pictures.test, pictures.valid))
    return PictureSet(train, test, pictures.classes, valid, pictures.files)


def fit(part: Part, shape: tuple[int, int, int]) -> Part:
    """Pictures as ``shape`` (C, H, W): gray to RGB or back, then scaled and center-cropped, antialiased.

    Raises:
        DataError: ``shape`` has neither 1 nor 3 channels, and not the pictures' own.

    Example:
        >>> part = Part(torch.full((2, 1, 8, 8), 255, dtype=torch.uint8), torch.tensor([0, 1]))
        >>> fit(part, (3, 16, 12)).images.shape
        torch.Size([2, 3, 16, 12])
    """
    if isinstance(part.pixels, Rows) and part.shape[1:] == shape[1:]:
        return Part(Rows(part.pixels.store, part.pixels.rows, shape[0]), part.labels, part.ids)
    return Part(resize(recolor(part.images, shape[0]), shape[1:]), part.labels, part.ids)


def resize(images: torch.Tensor, size: PictureSize) -> torch.Tensor:
    """uint8 ``[N, C, h, w]`` scaled to cover ``size`` (H, W) and cropped to it at the center."""
    if tuple(images.shape[2:]) == size:
        return images
    height, width = images.shape[2:]
    # The largest part of the middle that has the shape of ``size``.
    scale = min(height / size[0], width / size[1])
    inner_height, inner_width = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    middle = images[:, :, top : top + inner_height, left : left + inner_width]

    def scaled(chunk: torch.Tensor) -> torch.Tensor:
        exact = F.interpolate(chunk.float(), size, mode="bicubic", antialias=True, align_corners=False)
        return exact.round_().clamp_(0, 255).to(torch.uint8)

    return by_chunks(middle, scaled, (images.shape[1], *size))
