"""Mixup and cutmix: each training picture is mixed with another one, and so is its label."""

import random
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Mix:
    """How the pictures of one batch are mixed, each with the next one, and the last with the first.

    Attributes:
        share: of each picture, and of its label; the rest is the next one's.
        box: for cutmix, the part from the next picture: top, left, bottom and right.
    """

    share: float
    box: Box | None = None


def draw_mix(
    size: tuple[int, int], mixup: float, cutmix: float, probability: float, generator: torch.Generator
) -> Mix | None:
    """How to mix one batch; None for not at all.

    Mixup (arXiv:1710.09412): ``share x + (1 - share) x'`` with ``share`` from Beta(mixup, mixup). Cutmix
    (arXiv:1905.04899): ``share`` from Beta(cutmix, cutmix), and a rectangle of ``1 - share`` of the area from the other
    picture, of its proportions, around a uniform center; it is cut at the edges, and ``share`` is then the rest of the
    area. If both are above 0, one is drawn.

    Args:
        size: height and width of the pictures.
        mixup, cutmix: >= 0; 0 for none.
        probability: in [0, 1], that the batch is mixed.
        generator: on the CPU.

    Example:
        >>> draw_mix((8, 8), 0.0, 1.0, 0.0, torch.Generator()) is None
        True
        >>> mix = draw_mix((8, 8), 0.0, 1.0, 1.0, torch.Generator().manual_seed(0))
        >>> top, left, bottom, right = mix.box
        >>> mix.share == 1 - (bottom - top) * (right - left) / 64
        True
    """
    # PyTorch draws Beta from its own generator alone.
    draw = random.Random(int(torch.randint(2**62, (), generator=generator)))
    if not (mixup or cutmix) or draw.random() >= probability:
        return None
    alpha = cutmix if cutmix and (not mixup or draw.random() < 0.5) else 0.0
    if not alpha:
        return Mix(draw.betavariate(mixup, mixup))
    height, width = size
    part = (1 - draw.betavariate(alpha, alpha)) ** 0.5
    rows, columns = round(height * part), round(width * part)
    top, left = draw.randrange(height) - rows // 2, draw.randrange(width) - columns // 2
    box = (max(0, top), max(0, left), min(height, top + rows), min(width, left + columns))
    return Mix(1 - (box[2] - box[0]) * (box[3] - box[1]) / (height * width), box)


def mixed(images: Tensor, mix: Mix) -> Tensor:
    """Mixed pictures, float ``[B, C, H, W] -> [B, C, H, W]``; the sum over the batch stays.

    Example:
        >>> pictures = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 1, 4, 4)
        >>> mixed(pictures, Mix(0.75)).amax(dim=(1, 2, 3))
        tensor([0.2500, 0.7500])
        >>> mixed(pictures, Mix(0.75, (0, 0, 2, 2))).sum(dim=(1, 2, 3))
        tensor([ 4., 12.])
    """
    others = images.roll(-1, dims=0)
    if mix.box is None:
        return torch.lerp(images, others, 1 - mix.share)  # laid out as the first of them
    top, left, bottom, right = mix.box
    pictures = images.clone()
    pictures[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    return pictures


def mixed_labels(labels: Tensor, mix: Mix, classes: int) -> Tensor:
    """The share of each class in each mixed picture, int64 ``[B] -> float [B, classes]``; rows sum to 1.

    Example:
        >>> mixed_labels(torch.tensor([0, 2]), Mix(0.75), 3)
        tensor([[0.7500, 0.0000, 0.2500],
                [0.2500, 0.0000, 0.7500]])
    """
    own = F.one_hot(labels, classes).float()
    return own * mix.share + own.roll(-1, dims=0) * (1 - mix.share)
