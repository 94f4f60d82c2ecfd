"""Gray pictures as RGB, and RGB pictures as gray."""

from collections.abc import Callable

import torch

from ramify.data.decode import LUMA
from ramify.errors import DataError

_CHUNK = 1024  # pictures that are worked on at a time


def recolor(images: torch.Tensor, channels: int) -> torch.Tensor:
    """uint8 ``[N, C, H, W]`` with ``channels`` channels: gray repeated, or the luma of RGB (ITU-R 601).

    Raises:
        DataError: the two numbers of channels are not 1 and 3, and not equal.
    """
    own = images.shape[1]
    if own == channels:
        return images
    if (own, channels) == (1, 3):
        return images.expand(-1, 3, -1, -1).contiguous()
    if (own, channels) == (3, 1):
        weights = torch.tensor(LUMA, dtype=torch.int32)[:, None, None]

        def luma(chunk: torch.Tensor) -> torch.Tensor:
            return (((chunk * weights).sum(1, keepdim=True) + (1 << 15)) >> 16).to(torch.uint8)

        return by_chunks(images, luma, (1, *images.shape[2:]))
    raise DataError(
        f"network.input_shape: got {channels} channels for pictures with {own}; accepted: "
        + ("1 or 3" if own in (1, 3) else str(own))
    )


def by_chunks(
    images: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...]
) -> torch.Tensor:
    """uint8 pictures of ``shape`` (C, H, W), computed in chunks by ``change``."""
    changed = torch.empty(len(images), *shape, dtype=torch.uint8)
    for start in range(0, len(images), _CHUNK):
        changed[start : start + _CHUNK] = change(images[start : start + _CHUNK])
    return changed
