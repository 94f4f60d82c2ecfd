"""Progressive picture sizes: training pictures are scaled down in early epochs."""

from torch import Tensor
from torch.nn import functional as F


def scaled_size(height: int, width: int, side: int | None) -> tuple[int, int]:
    """Height and width of a picture with ``side`` as its shorter side; None keeps it.

    Example:
        >>> scaled_size(32, 48, 16), scaled_size(32, 48, None)
        ((16, 24), (32, 48))
    """
    shorter = min(height, width)
    return (height, width) if side is None else (round(height * side / shorter), round(width * side / shorter))


def scaled(images: Tensor, side: int | None) -> Tensor:
    """Pictures with ``side`` as their shorter side, float ``[B, C, H, W] -> [B, C, h, w]``; None keeps them.

    Bilinear and antialiased, as in progressive learning (EfficientNetV2, arXiv:2104.00298).

    Example:
        >>> import torch
        >>> scaled(torch.rand(2, 3, 32, 48), 16).shape
        torch.Size([2, 3, 16, 24])
    """
    size = scaled_size(images.shape[-2], images.shape[-1], side)
    if size == tuple(images.shape[-2:]):
        return images
    return F.interpolate(images, size=list(size), mode="bilinear", antialias=True, align_corners=False)
