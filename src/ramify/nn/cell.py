"""Cells: two blocks of layers with a shortcut, the unit of ``network.structure``.

A block of layers is convolution - batch norm - ReLU. A cell maps ``[B, in, H, W] -> [B, out, H, W]``.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from ramify.nn.masked import MaskedConv2d


class BasicCell(nn.Module):
    """``ReLU(BN(conv(ReLU(BN(conv(x))))) + shortcut(x))`` with 3x3 convolutions (ResNet, arXiv:1512.03385).

    The shortcut is the identity, or a 1x1 convolution with batch norm if the cell ``projects``, which it must
    where the number of channels changes.
    """

    def __init__(self, in_channels: int, inner_channels: int, out_channels: int, projects: bool) -> None:
        super().__init__()
        self.conv1 = MaskedConv2d(in_channels, inner_channels, 3)
        self.norm1 = nn.BatchNorm2d(inner_channels)
        self.conv2 = MaskedConv2d(inner_channels, out_channels, 3)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if projects:
            self.shortcut = nn.Sequential(MaskedConv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))  # [B, inner, H, W]
        outer: Tensor = self.norm2(self.conv2(inner)) + self.shortcut(x)  # [B, out, H, W]
        return F.relu(outer)


class SkipSecondCell(nn.Module):
    """``h = ReLU(BN(conv(x)))``, then ``ReLU(BN(conv(h)) + h)``: the shortcut spans the second layer alone.

    The cell of the 2020 code. Its shortcut is the identity, or a 1x1 convolution with batch norm if the cell
    ``projects``, which it must where it has not as many inner channels as outer ones.
    """

    def __init__(self, in_channels: int, inner_channels: int, out_channels: int, projects: bool) -> None:
        super().__init__()
        self.conv1 = MaskedConv2d(in_channels, inner_channels, 3)
        self.norm1 = nn.BatchNorm2d(inner_channels)
        self.conv2 = MaskedConv2d(inner_channels, out_channels, 3)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if projects:
            self.shortcut = nn.Sequential(MaskedConv2d(inner_channels, out_channels, 1), nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))  # [B, inner, H, W]
        outer: Tensor = self.norm2(self.conv2(inner)) + self.shortcut(inner)  # [B, out, H, W]
        return F.relu(outer)


Cell = Callable[[int, int, int, bool], nn.Module]
"""Builds a cell from its input, inner and output channels, and whether its shortcut projects."""

CELLS: dict[str, Cell] = {"basic": BasicCell, "skip_second": SkipSecondCell}
