"""Classifiers at the exits: they pool a feature map to 4x4 and read it with one linear layer."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.nn.masked import MaskedLinear

GRID = 4
"""Side of the pooled map that a head reads."""


class PooledHead(nn.Module):
    """Pool to 4x4, flatten, one linear layer: ``[B, channels, H, W] -> [B, classes]``.

    ``share`` is the part ``a`` of max pooling in ``a * maxpool + (1 - a) * avgpool``: None learns it as one
    parameter that starts at 0.5 (Shallow-Deep Networks, arXiv:1810.07052), 0.0 is average pooling and 1.0 is
    max pooling.
    """

    def __init__(self, channels: int, classes: int, share: float | None) -> None:
        super().__init__()
        self.fixed = share
        if share is None:
            self.share = nn.Parameter(torch.tensor(0.5))
        self.linear = MaskedLinear(channels * GRID * GRID, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.pool(x).flatten(1))
        return logits

    def reset_parameters(self) -> None:
        """Forget what was learned of the share of max pooling; the linear layer has a reset of its own."""
        if self.fixed is None:
            nn.init.constant_(self.share, 0.5)

    def pool(self, x: Tensor) -> Tensor:
        """``[B, channels, H, W] -> [B, channels, 4, 4]``."""
        if self.fixed == 0.0:
            return F.adaptive_avg_pool2d(x, GRID)
        if self.fixed == 1.0:
            return F.adaptive_max_pool2d(x, GRID)
        return torch.lerp(F.adaptive_avg_pool2d(x, GRID), F.adaptive_max_pool2d(x, GRID), self.share)


def mixed(channels: int, classes: int) -> PooledHead:
    """The internal classifier of Shallow-Deep Networks: the share of max pooling is learned."""
    return PooledHead(channels, classes, share=None)


def average(channels: int, classes: int) -> PooledHead:
    """Average pooling; also the final classifier of every network."""
    return PooledHead(channels, classes, share=0.0)


def maximum(channels: int, classes: int) -> PooledHead:
    """Max pooling."""
    return PooledHead(channels, classes, share=1.0)


Exit = Callable[[int, int], nn.Module]
"""Builds a classifier from the channels it reads and the number of classes."""

EXITS: dict[str, Exit] = {"mixed": mixed, "average": average, "max": maximum}
FINAL: Exit = average
