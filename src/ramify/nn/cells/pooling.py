"""The cell of speed runs: two layers with GELU, and max pooling in place of strides."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.nn.cells.base import Cell, CellPlan
from ramify.nn.masked import MaskedConv2d

MOMENTUM = 0.4
"""Of batch norm: with so few epochs, statistics must follow fast."""


class PoolingCell(Cell):
    """Two 3x3 layers of convolution, batch norm and GELU; a stride of 2 is max pooling behind the first convolution.

    As in the speed runs of arXiv:2404.00498. Its convolutions start as identities, as far as they have outputs.
    """

    summary = "two 3x3 layers with GELU and max pooling, no shortcut (arXiv:2404.00498)"

    def __init__(self, plan: CellPlan) -> None:
        super().__init__(plan)
        self.conv1 = identity_conv(plan.in_channels, plan.inner_channels)
        self.norm1 = nn.BatchNorm2d(plan.inner_channels, momentum=MOMENTUM)
        self.conv2 = identity_conv(plan.inner_channels, plan.out_channels)
        self.norm2 = nn.BatchNorm2d(plan.out_channels, momentum=MOMENTUM)
        self.pools = plan.stride == 2 and plan.area > 1  # a map of one pixel stays one

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        if self.pools:
            x = F.max_pool2d(x, 2)
        x = F.gelu(self.norm1(x))
        return F.gelu(self.norm2(self.conv2(x)))


def identity_conv(reads: int, gives: int) -> MaskedConv2d:
    """A 3x3 convolution whose first filters are identities of its inputs; the others are drawn."""
    conv = MaskedConv2d(reads, gives, 3)
    with torch.no_grad():
        nn.init.dirac_(conv.weight[: min(reads, gives)])
    return conv
