"""Cells: two blocks of layers with a shortcut, the unit of ``network.structure``.

A block of layers is convolution - batch norm - ReLU. A cell maps ``[B, in, H, W] -> [B, out, H, W]``.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from ramify.nn.masked import MaskedConv2d


class TwoLayerCell(nn.Module):
    """``ReLU(BN(conv(h)) + shortcut)`` with ``h = ReLU(BN(conv(x)))``, both convolutions 3x3.

    The shortcut starts from ``x`` and spans both layers (``spans_both``), or starts from ``h`` and spans the second
    one alone. It is the identity, or a 1x1 convolution with batch norm if the cell ``projects``, which it must where
    the number of channels changes on its way.
    """

    def __init__(
        self, in_channels: int, inner_channels: int, out_channels: int, projects: bool, spans_both: bool
    ) -> None:
        super().__init__()
        self.spans_both = spans_both
        self.conv1 = MaskedConv2d(in_channels, inner_channels, 3)
        self.norm1 = nn.BatchNorm2d(inner_channels)
        self.conv2 = MaskedConv2d(inner_channels, out_channels, 3)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if projects:
            from_channels = in_channels if spans_both else inner_channels
            self.shortcut = nn.Sequential(MaskedConv2d(from_channels, out_channels, 1), nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))  # [B, inner, H, W]
        outer: Tensor = self.norm2(self.conv2(inner)) + self.shortcut(x if self.spans_both else inner)
        return F.relu(outer)  # [B, out, H, W]


def basic(in_channels: int, inner_channels: int, out_channels: int, projects: bool) -> TwoLayerCell:
    """The cell of ResNet (arXiv:1512.03385): the shortcut spans both layers."""
    return TwoLayerCell(in_channels, inner_channels, out_channels, projects, spans_both=True)


def skip_second(in_channels: int, inner_channels: int, out_channels: int, projects: bool) -> TwoLayerCell:
    """The cell of the 2020 code: the shortcut spans the second layer alone."""
    return TwoLayerCell(in_channels, inner_channels, out_channels, projects, spans_both=False)


Cell = Callable[[int, int, int, bool], nn.Module]
"""Builds a cell from its input, inner and output channels, and whether its shortcut projects."""

CELLS: dict[str, Cell] = {"basic": basic, "skip_second": skip_second}
