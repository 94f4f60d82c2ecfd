"""Cells: a few blocks of layers, the unit of ``network.structure``.

A block of layers is convolution - batch norm - ReLU. A cell maps ``[B, in, H, W] -> [B, out, H', W']``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.nn.masked import MaskedConv2d, MaskedLinear
from ramify.nn.trunk import read_at_once


@dataclass(frozen=True)
class CellPlan:
    """One cell as data.

    ``projects`` says whether its shortcut is a 1x1 convolution; it is a fact of its own, since compaction may
    leave a projected shortcut with as many channels on both sides.

    Attributes:
        in_channels, inner_channels, out_channels: what it reads, what lies between its two layers (where it has but
            one layer, the same as ``out_channels``), what it gives.
        type: a name in :data:`CELLS`.
        stride: 2 where the cell halves the sides of the map, rounding up; else 1.
        area: ``H * W`` of the map that it reads; it matters to ``linear`` cells alone.
    """

    in_channels: int
    inner_channels: int
    out_channels: int
    projects: bool = False
    type: str = "basic"
    stride: int = 1
    area: int = 1


class TwoLayerCell(nn.Module):
    """``ReLU(BN(conv(h)) + shortcut)`` with ``h = ReLU(BN(conv(x)))``, both convolutions 3x3.

    The shortcut starts from ``x`` and spans both layers (``spans_both``), or starts from ``h`` and spans the second
    one alone. It is the identity, or a 1x1 convolution with batch norm if the cell ``projects``, which it must where
    the shape changes on its way.
    """

    def __init__(self, plan: CellPlan, spans_both: bool) -> None:
        super().__init__()
        self.spans_both = spans_both
        self.conv1 = MaskedConv2d(plan.in_channels, plan.inner_channels, 3, plan.stride)
        self.norm1 = nn.BatchNorm2d(plan.inner_channels)
        self.conv2 = MaskedConv2d(plan.inner_channels, plan.out_channels, 3)
        self.norm2 = nn.BatchNorm2d(plan.out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if plan.projects:
            source, stride = (plan.in_channels, plan.stride) if spans_both else (plan.inner_channels, 1)
            self.shortcut = nn.Sequential(
                MaskedConv2d(source, plan.out_channels, 1, stride), nn.BatchNorm2d(plan.out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.spans_both and self.training and isinstance(self.shortcut, nn.Sequential) and _multiplies_cheaply(x):
            projection, norm = self.shortcut
            assert isinstance(projection, MaskedConv2d)
            read, through = read_at_once(x, self.conv1, projection)
            inner, shortcut = F.relu(self.norm1(read)), norm(through)
        else:
            inner = F.relu(self.norm1(self.conv1(x)))  # [B, inner, H', W']
            shortcut = self.shortcut(x if self.spans_both else inner)
        outer: Tensor = self.norm2(self.conv2(inner)) + shortcut
        return F.relu(outer)  # [B, out, H', W']


def _multiplies_cheaply(x: Tensor) -> bool:
    """Whether it pays to multiply more in order to read ``x`` once."""
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


class PreactivationCell(nn.Module):
    """``conv(ReLU(BN(h))) + shortcut(x)`` with ``h = conv(ReLU(BN(x)))`` (arXiv:1603.05027), as in wide ResNets.

    Where the shape changes the shortcut is a 1x1 convolution of ``x``, without batch norm.
    """

    def __init__(self, plan: CellPlan) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(plan.in_channels)
        self.conv1 = MaskedConv2d(plan.in_channels, plan.inner_channels, 3, plan.stride)
        self.norm2 = nn.BatchNorm2d(plan.inner_channels)
        self.conv2 = MaskedConv2d(plan.inner_channels, plan.out_channels, 3)
        self.shortcut: nn.Module = nn.Identity()
        if plan.projects:
            self.shortcut = MaskedConv2d(plan.in_channels, plan.out_channels, 1, plan.stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(F.relu(self.norm1(x)))  # [B, inner, H', W']
        outer: Tensor = self.conv2(F.relu(self.norm2(inner))) + self.shortcut(x)
        return outer  # [B, out, H', W']


class PlainCell(nn.Module):
    """One 3x3 block of layers; a stride of 2 is max pooling behind it, as in VGG (arXiv:1409.1556)."""

    def __init__(self, plan: CellPlan) -> None:
        super().__init__()
        self.conv = MaskedConv2d(plan.in_channels, plan.out_channels, 3)
        self.norm = nn.BatchNorm2d(plan.out_channels)
        self.stride = plan.stride

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        # Rounding up, a map of one pixel stays one: small pictures run through as well.
        return x if self.stride == 1 else F.max_pool2d(x, self.stride, ceil_mode=True)


class SeparableCell(nn.Module):
    """A 3x3 block that filters each channel alone, then a 1x1 block that mixes them (MobileNet, arXiv:1704.04861)."""

    def __init__(self, plan: CellPlan) -> None:
        super().__init__()
        self.conv1 = MaskedConv2d(plan.in_channels, plan.in_channels, 3, plan.stride, groups=plan.in_channels)
        self.norm1 = nn.BatchNorm2d(plan.in_channels)
        self.conv2 = MaskedConv2d(plan.in_channels, plan.out_channels, 1)
        self.norm2 = nn.BatchNorm2d(plan.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(x)))


class UnpaddedCell(nn.Module):
    """A 5x5 convolution with bias and without padding, ReLU, and 2x2 max pooling: the cell of LeNet-5."""

    def __init__(self, plan: CellPlan) -> None:
        super().__init__()
        self.conv = MaskedConv2d(plan.in_channels, plan.out_channels, 5, padding=0, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(self.conv(x)), 2)


class LinearCell(nn.Module):
    """A linear layer and ReLU on the whole map, ``[B, in, H, W] -> [B, out, 1, 1]``."""

    def __init__(self, plan: CellPlan) -> None:
        super().__init__()
        self.linear = MaskedLinear(plan.in_channels * plan.area, plan.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.linear(x.flatten(1)))[:, :, None, None]


def basic(plan: CellPlan) -> TwoLayerCell:
    """The cell of ResNet (arXiv:1512.03385): the shortcut spans both layers."""
    return TwoLayerCell(plan, spans_both=True)


def skip_second(plan: CellPlan) -> TwoLayerCell:
    """The cell of the 2020 code: the shortcut spans the second layer alone."""
    return TwoLayerCell(plan, spans_both=False)


Cell = Callable[[CellPlan], nn.Module]
"""Builds a cell from its plan."""

CELLS: dict[str, Cell] = {
    "basic": basic,
    "skip_second": skip_second,
    "preactivation": PreactivationCell,
    "plain": PlainCell,
    "separable": SeparableCell,
    "unpadded": UnpaddedCell,
    "linear": LinearCell,
}


def shrunk(plan: CellPlan, height: int, width: int) -> tuple[int, int]:
    """Height and width of the map that a cell gives, from those of the map that it reads; 0 where nothing is left."""
    if plan.type == "linear":
        return 1, 1
    if plan.type == "unpadded":
        return max(height - 4, 0) // 2, max(width - 4, 0) // 2
    return -(-height // plan.stride), -(-width // plan.stride)
