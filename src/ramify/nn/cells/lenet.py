"""The cells of LeNet-5 and LeNet-300-100: a convolution without padding, and linear layers."""

from torch import Tensor
from torch.nn import functional as F

from ramify.nn.cells.base import Cell, CellPlan
from ramify.nn.masked import MaskedConv2d, MaskedLinear


class UnpaddedCell(Cell):
    """A 5x5 convolution with bias and without padding, ReLU, and 2x2 max pooling: the cell of LeNet-5."""

    rectified = True

    def __init__(self, plan: CellPlan) -> None:
        super().__init__(plan)
        self.conv = MaskedConv2d(plan.in_channels, plan.out_channels, 5, padding=0, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(self.conv(x)), 2)


class LinearCell(Cell):
    """A linear layer and ReLU on the whole map, ``[B, in, H, W] -> [B, out, 1, 1]``."""

    rectified = True

    def __init__(self, plan: CellPlan) -> None:
        super().__init__(plan)
        self.linear = MaskedLinear(plan.in_channels * plan.area, plan.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.linear(x.flatten(1)))[:, :, None, None]
