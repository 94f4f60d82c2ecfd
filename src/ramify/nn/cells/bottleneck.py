"""Cells whose 3x3 layer, of groups or of single channels, stands between two layers of 1x1."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from ramify.nn.cells.base import Cell, CellPlan, Identities, pass_shortcut, projection, squeeze
from ramify.nn.masked import MaskedConv2d

GROUP = 8
"""Channels in a group of a ``grouped`` cell, or the largest number that divides both this and all of them."""

EXPANSION = 3
"""Inner channels of a ``compact`` cell over the narrower of its input and output."""


class BottleneckCell(Cell):
    """1x1, 3x3 and 1x1 layers, the last one without a ReLU of its own."""

    projecting = True
    squeezing = True

    def __init__(self, plan: CellPlan) -> None:
        super().__init__(plan)
        inner, out = plan.inner_channels, plan.out_channels
        self.conv1 = MaskedConv2d(plan.in_channels, inner, 1)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = MaskedConv2d(inner, inner, 3, plan.stride, groups=self.groups(inner))
        self.norm2 = nn.BatchNorm2d(inner)
        self.squeeze = squeeze(plan)
        self.conv3 = MaskedConv2d(inner, out, 1)
        self.norm3 = nn.BatchNorm2d(out)
        self.carries = not plan.projects

    @staticmethod
    def groups(inner: int) -> int:
        """Groups of the 3x3 layer."""
        return inner

    def layers(self, x: Tensor) -> Tensor:
        """``[B, in, H, W] -> [B, out, H', W']``, without the shortcut."""
        inner = F.relu(self.norm1(self.conv1(x)))
        inner = self.squeeze(F.relu(self.norm2(self.conv2(inner))))  # [B, inner, H', W']
        outer: Tensor = self.norm3(self.conv3(inner))
        return outer


class GroupedCell(BottleneckCell):
    """1x1, then 3x3 in groups of :data:`GROUP` channels, then 1x1, with a shortcut: ResNeXt (arXiv:1611.05431).

    With ``C`` channels everywhere it has ``2 C^2 + 72 C`` weights, where ``basic`` has ``18 C^2``. The 1x1 layers mix
    the groups.
    """

    summary = "a 3x3 layer of groups between two of 1x1"
    rectified = True
    sums = True
    channels_stay = "the groups of a grouped cell need all of their channels"

    def __init__(self, plan: CellPlan) -> None:
        super().__init__(plan)
        self.shortcut = projection(plan)

    @staticmethod
    def groups(inner: int) -> int:
        return inner // math.gcd(inner, GROUP)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.layers(x) + self.shortcut(x))  # [B, out, H', W']

    def pass_on(self, places: Tensor, outputs: Tensor) -> Identities:
        self.norm3.weight[outputs] = 0
        return pass_shortcut(self.shortcut, places, outputs)


class CompactCell(BottleneckCell):
    """``x + BN(project(filter(widen(x))))``: most of what it computes happens where weights are cheap.

    The inverted bottleneck with a linear end (arXiv:1801.04381): 1x1, 3x3 of each channel by itself, and 1x1. It has
    ``2 e C^2 + 9 e C`` weights for ``e`` = :data:`EXPANSION` and ``C`` channels: at 32 channels 38 % of a ``basic``
    cell. For small networks ``e`` is 3, not 6, and counts from the narrower side; the output is never rectified; and
    where the shape changes there is no shortcut, as a 1x1 convolution would cost about a sixth of the cell.
    """

    summary = "filters of single channels between two layers of 1x1"
    widens = True
    rectified = False

    @staticmethod
    def inner_channels(reads: int, gives: int) -> int:
        return EXPANSION * min(reads, gives)

    def forward(self, x: Tensor) -> Tensor:
        outer = self.layers(x)
        return x + outer if self.carries else outer  # [B, out, H', W']

    @classmethod
    def why_not_passed(cls, plan: CellPlan, count: int) -> str:
        if plan.projects and plan.stride == 1:
            return "one of its compact cells has no shortcut, as the shape changes there"
        return super().why_not_passed(plan, count)

    def pass_on(self, places: Tensor, outputs: Tensor) -> Identities:
        self.norm3.weight[outputs] = 0
        return {}
