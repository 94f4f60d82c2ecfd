"""Cells whose 3x3 layers filter each channel by itself, and whose 1x1 layers mix the channels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.nn.cells.base import Cell, CellPlan, Identities, pass_shortcut, projection, select, squeeze
from ramify.nn.masked import MaskedConv2d


class SeparableCell(Cell):
    """A 3x3 block that filters each channel alone, then a 1x1 block that mixes them (MobileNet, arXiv:1704.04861)."""

    rectified = True

    def __init__(self, plan: CellPlan) -> None:
        super().__init__(plan)
        self.conv1 = MaskedConv2d(plan.in_channels, plan.in_channels, 3, plan.stride, groups=plan.in_channels)
        self.norm1 = nn.BatchNorm2d(plan.in_channels)
        self.conv2 = MaskedConv2d(plan.in_channels, plan.out_channels, 1)
        self.norm2 = nn.BatchNorm2d(plan.out_channels)

    @staticmethod
    def inner_channels(reads: int, gives: int) -> int:
        return reads

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(x)))

    def pass_on(self, places: Tensor, outputs: Tensor) -> Identities:
        select(self.conv1, places, torch.zeros_like(places))  # each filter has one column
        select(self.conv2, outputs, places)
        return {self.norm1: places, self.norm2: outputs}


class DepthwiseCell(Cell):
    """A ``basic`` cell whose two layers are separable (arXiv:1610.02357, arXiv:1704.04861).

    Each 3x3 convolution becomes one of each channel by itself and one of 1x1 that mixes them, both with batch norm:
    ``9 C + C^2`` weights in place of ``9 C^2``. Squeeze-and-excitation, if any, is of what the last layer reads.
    """

    summary = "two separable layers with a shortcut over both"
    projecting = True
    squeezing = True
    widens = True
    rectified = True
    sums = True

    def __init__(self, plan: CellPlan) -> None:
        super().__init__(plan)
        read, inner, out = plan.in_channels, plan.inner_channels, plan.out_channels
        self.conv1 = MaskedConv2d(read, read, 3, plan.stride, groups=read)
        self.norm1 = nn.BatchNorm2d(read)
        self.conv2 = MaskedConv2d(read, inner, 1)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv3 = MaskedConv2d(inner, inner, 3, groups=inner)
        self.norm3 = nn.BatchNorm2d(inner)
        self.squeeze = squeeze(plan)
        self.conv4 = MaskedConv2d(inner, out, 1)
        self.norm4 = nn.BatchNorm2d(out)
        self.shortcut = projection(plan)
        self.carries = not plan.projects

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))  # [B, inner, H', W']
        inner = self.squeeze(F.relu(self.norm3(self.conv3(inner))))
        outer: Tensor = self.norm4(self.conv4(inner)) + self.shortcut(x)
        return self.end(outer)  # [B, out, H', W']

    def pass_on(self, places: Tensor, outputs: Tensor) -> Identities:
        self.norm4.weight[outputs] = 0
        return pass_shortcut(self.shortcut, places, outputs)
