"""Cells of one layer: those of VGG, LeNet-5 and LeNet-300-100."""

from torch import Tensor, nn
from torch.nn import functional as F

from ramify.nn.cells.base import Cell, CellPlan, Identities, select
from ramify.nn.masked import MaskedConv2d, MaskedLinear


class PlainCell(Cell):
    """One 3x3 block of layers; a stride of 2 is max pooling behind it, as in VGG (arXiv:1409.1556)."""

    rectified = True

    def __init__(self, plan: CellPlan) -> None:
        super().__init__(plan)
        self.conv = MaskedConv2d(plan.in_channels, plan.out_channels, 3)
        self.norm = nn.BatchNorm2d(plan.out_channels)
        self.stride = plan.stride

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        # Rounding up, a map of one pixel stays one: small pictures run through as well.
        return x if self.stride == 1 else F.max_pool2d(x, self.stride, ceil_mode=True)

    def pass_on(self, places: Tensor, outputs: Tensor) -> Identities:
        select(self.conv, outputs, places)
        return {self.norm: outputs}


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
