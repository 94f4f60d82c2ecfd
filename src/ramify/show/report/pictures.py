"""Pictures inside a page: PNG as data URIs, small ones enlarged in whole steps so that they stay crisp."""

import io

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ramify.show.report.plot import data_uri

SIDE = 96
"""Pixels to which the longer side of a small picture is enlarged."""


def png(image: Tensor) -> str:
    """``image`` uint8 ``[C, H, W]`` of one or three channels as a PNG data URI."""
    pixels = image[: 3 if len(image) >= 3 else 1].cpu()
    drawn = Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).contiguous().numpy())
    drawn.thumbnail((2 * SIDE, 2 * SIDE))  # if it is larger
    out = io.BytesIO()
    drawn.save(out, "PNG", optimize=True)
    return data_uri("image/png", out.getvalue())


def side(image: Tensor) -> tuple[int, int]:
    """Width and height in which to show ``image`` ``[C, H, W]``: a whole multiple, so that each pixel is a square."""
    height, width = image.shape[-2:]
    longer = max(height, width)
    scale = SIDE // longer if longer <= SIDE else SIDE / longer
    return round(width * scale), round(height * scale)


def overlaid(image: Tensor, relevance: Tensor) -> Tensor:
    """``image`` uint8 ``[C, H, W]`` in gray under a map of ``relevance`` ``[H, W]`` in [0, 1], uint8 ``[3, H, W]``.

    Colors go from yellow to red; where the relevance is 0 the picture shows through.
    """
    level = Image.fromarray((255 * relevance.clamp(0, 1)).round().byte().numpy())
    gray = Image.fromarray(image.float().mean(dim=0).round().byte().numpy()).convert("RGB")
    colors = ImageOps.colorize(level, (255, 214, 102), (190, 20, 60), mid=(240, 120, 30))
    mixed = Image.composite(colors, gray, level.point([round(0.75 * value) for value in range(256)]))
    return torch.from_numpy(np.array(mixed)).permute(2, 0, 1)
