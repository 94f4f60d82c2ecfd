"""Cells of two 3x3 layers with a shortcut, and a ReLU behind the sum: that of ResNet, and a variant."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.nn.cells.base import Cell, CellPlan, Identities, pass_shortcut, projected, projection, select
from ramify.nn.masked import MaskedConv2d
from ramify.nn.trunk import read_at_once


class TwoLayerCell(Cell):
    """``ReLU(BN(conv(h)) + shortcut)`` with ``h = ReLU(BN(conv(x)))``, both convolutions 3x3.

    A subclass says where the shortcut starts. It is the identity, or a 1x1 convolution with batch norm if the cell
    ``projects``, which it must where the shape changes on its way.
    """

    rectified = True
    sums = True

    def __init__(self, plan: CellPlan) -> None:
        super().__init__(plan)
        self.conv1 = MaskedConv2d(plan.in_channels, plan.inner_channels, 3, plan.stride)
        self.norm1 = nn.BatchNorm2d(plan.inner_channels)
        self.conv2 = MaskedConv2d(plan.inner_channels, plan.out_channels, 3)
        self.norm2 = nn.BatchNorm2d(plan.out_channels)

    def pass_on(self, places: Tensor, outputs: Tensor) -> Identities:
        # As ResNets are started (arXiv:1706.02677): the scale gets a gradient at once, and then all that lies before.
        self.norm2.weight[outputs] = 0
        return pass_shortcut(self.get_submodule("shortcut"), places, outputs)


class BasicCell(TwoLayerCell):
    """The cell of ResNet (arXiv:1512.03385): the shortcut spans both layers."""

    summary = "two 3x3 layers with a shortcut over both"
    projecting = True
    widens = True

    def __init__(self, plan: CellPlan) -> None:
        super().__init__(plan)
        self.shortcut = projection(plan)
        self.carries = not plan.projects

    def forward(self, x: Tensor) -> Tensor:
        at_once = self.training and not self.conv1.int8 and _reads_at_once(x)  # int8 layers round what they read
        if at_once and isinstance(self.shortcut, nn.Sequential):
            conv, norm = self.shortcut
            assert isinstance(conv, MaskedConv2d)
            read, through = read_at_once(x, self.conv1, conv)
            inner, shortcut = F.relu(self.norm1(read)), norm(through)
        else:
            inner = F.relu(self.norm1(self.conv1(x)))  # [B, inner, H', W']
            shortcut = self.shortcut(x)
        outer: Tensor = self.norm2(self.conv2(inner)) + shortcut
        return self.end(outer)  # [B, out, H', W']


def _reads_at_once(x: Tensor) -> bool:
    """Whether to multiply more in order to read ``x`` once: in bfloat16 on a CPU."""
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


class SkipSecondCell(TwoLayerCell):
    """The shortcut spans the second layer alone, as the seed document can be read; the 2020 code has ``basic``."""

    summary = "two 3x3 layers with a shortcut over the second one alone"
    channels_stay = "the shortcut of a skip_second cell needs all of its channels"

    def __init__(self, plan: CellPlan) -> None:
        super().__init__(plan)
        self.shortcut: nn.Module = nn.Identity()
        if plan.projects:
            self.shortcut = projected(plan.inner_channels, plan.out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))  # [B, inner, H', W']
        outer: Tensor = self.norm2(self.conv2(inner)) + self.shortcut(inner)
        return self.end(outer)  # [B, out, H', W']

    @classmethod
    def why_not_passed(cls, plan: CellPlan, count: int) -> str:
        # What it passes on goes through its inner channels.
        narrow = min(plan.inner_channels, plan.out_channels)
        return super().why_not_passed(replace(plan, out_channels=narrow), count)

    def pass_on(self, places: Tensor, outputs: Tensor) -> Identities:
        inner = self.conv1.out_channels - self.conv2.out_channels + outputs
        select(self.conv1, inner, places)
        return {self.norm1: inner, **super().pass_on(inner, outputs)}
