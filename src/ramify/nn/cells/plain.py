"""The cell of VGG: one layer."""

from torch import Tensor, nn
from torch.nn import functional as F

from ramify.nn.cells.base import Cell, CellPlan, Identities, select
from ramify.nn.masked import MaskedConv2d


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
