"""The cell of wide ResNets, which normalizes before its layers and not behind them."""

from torch import Tensor, nn
from torch.nn import functional as F

from ramify.nn.cells.base import Cell, CellPlan, Identities, select
from ramify.nn.masked import MaskedConv2d


class PreactivationCell(Cell):
    """``conv(ReLU(BN(h))) + shortcut(x)`` with ``h = conv(ReLU(BN(x)))`` (arXiv:1603.05027), as in wide ResNets.

    Where the shape changes the shortcut is a 1x1 convolution of ``x``, without batch norm.
    """

    projecting = True
    widens = True
    rectified = False

    def __init__(self, plan: CellPlan) -> None:
        super().__init__(plan)
        self.norm1 = nn.BatchNorm2d(plan.in_channels)
        self.conv1 = MaskedConv2d(plan.in_channels, plan.inner_channels, 3, plan.stride)
        self.norm2 = nn.BatchNorm2d(plan.inner_channels)
        self.conv2 = MaskedConv2d(plan.inner_channels, plan.out_channels, 3)
        self.shortcut: nn.Module = nn.Identity()
        if plan.projects:
            self.shortcut = MaskedConv2d(plan.in_channels, plan.out_channels, 1, plan.stride)
        self.carries = not plan.projects

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(F.relu(self.norm1(x)))  # [B, inner, H', W']
        outer: Tensor = self.conv2(F.relu(self.norm2(inner))) + self.shortcut(x)
        return outer  # [B, out, H', W']

    def pass_on(self, places: Tensor, outputs: Tensor) -> Identities:
        # A batch norm whose scale and shift are 0 would give its ReLU nothing, and get no gradient back from it.
        self.conv2.weight[outputs] = 0
        if isinstance(self.shortcut, MaskedConv2d):
            select(self.shortcut, outputs, places)
        return {}
