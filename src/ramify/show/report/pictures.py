"""Pictures inside a page: PNG as data URIs, small ones enlarged in whole steps so that they stay crisp."""

import io

import torch
from torch import Tensor

from ramify.show.report.plot import data_uri

SIDE = 96
"""Pixels to which the longer side of a small picture is enlarged."""

HEAT = torch.tensor([[255, 214, 102], [240, 120, 30], [190, 20, 60]], dtype=torch.float32)
"""Colors of a heat map from warm to hot; where it is cold the picture shows through."""


def png(image: Tensor) -> str:
    """``image`` uint8 ``[C, H, W]`` of one or three channels as a PNG data URI."""
    from PIL import Image

    pixels = image.cpu()
    pixels = pixels[:3] if pixels.shape[0] >= 3 else pixels[:1]
    array = pixels.permute(1, 2, 0).contiguous().numpy()
    drawn = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    longer = max(drawn.size)
    if longer > 2 * SIDE:
        drawn.thumbnail((2 * SIDE, 2 * SIDE))
    out = io.BytesIO()
    drawn.save(out, "PNG", optimize=True)
    return data_uri("image/png", out.getvalue())


def side(image: Tensor) -> tuple[int, int]:
    """Width and height in which to show ``image`` ``[C, H, W]``: a whole multiple, so that each pixel is a square."""
    height, width = image.shape[-2:]
    times = max(1, SIDE // max(height, width))
    scale = times if max(height, width) <= SIDE else SIDE / max(height, width)
    return round(width * scale), round(height * scale)


def heated(image: Tensor, heat: Tensor) -> Tensor:
    """``image`` uint8 ``[C, H, W]`` in gray under a heat map ``[H, W]`` in [0, 1], uint8 ``[3, H, W]``."""
    gray = image.float().mean(dim=0).expand(3, -1, -1)
    heat = heat.float().clamp(0, 1)
    place = heat * (len(HEAT) - 1)
    below = place.floor().clamp(max=len(HEAT) - 2)
    share = (place - below)[..., None]
    colors = HEAT[below.long()] * (1 - share) + HEAT[below.long() + 1] * share  # [H, W, 3]
    cover = 0.75 * heat
    mixed = (1 - cover) * gray + cover * colors.permute(2, 0, 1)
    return mixed.round().clamp(0, 255).to(torch.uint8)
