"""Cells: a few blocks of layers, the unit of ``network.structure``.

A block of layers is convolution - batch norm - ReLU. A cell maps ``[B, in, H, W] -> [B, out, H', W']``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.nn.masked import MaskedConv2d, MaskedLinear
from ramify.nn.trunk import read_at_once

GROUP = 8
"""Channels in a group of a ``grouped`` cell, or the largest number that divides both this and all of them."""

EXPANSION = 3
"""How many times as many inner channels a ``compact`` cell has as the narrower of what it reads and gives."""

PROJECTING = ("basic", "preactivation", "depthwise", "grouped", "compact")
"""Cells whose shortcut is no identity where the shape changes."""


@dataclass(frozen=True)
class CellPlan:
    """One cell as data.

    ``projects`` says whether its shortcut is a 1x1 convolution, or missing in ``compact`` cells; it is a fact of its
    own, since compaction may leave such a cell with as many channels on both sides.

    Attributes:
        in_channels, inner_channels, out_channels: what it reads, what lies between its two layers (where it has but
            one layer, the same as ``out_channels``), what it gives.
        type: a name in :data:`CELLS`.
        stride: 2 where the cell halves the sides of the map, rounding up; else 1.
        area: ``H * W`` of the map that it reads; it matters to ``linear`` cells alone.
        squeeze: hidden units of its squeeze-and-excitation; 0 where it has none.
        pooled: whether the trunk is halved by average pooling before it, as strides are in dense wiring.
        gives_sum: whether it gives the sum before its last ReLU, which its stage's exit reads; the stage then applies
            the ReLU to what the next cell reads (``network.exit_reads``).
    """

    in_channels: int
    inner_channels: int
    out_channels: int
    projects: bool = False
    type: str = "basic"
    stride: int = 1
    area: int = 1
    squeeze: int = 0
    pooled: bool = False
    gives_sum: bool = False


def _ended(outer: Tensor, gives_sum: bool) -> Tensor:
    """What a cell with a ReLU behind its sum gives."""
    return outer if gives_sum else F.relu(outer)


class TwoLayerCell(nn.Module):
    """``ReLU(BN(conv(h)) + shortcut)`` with ``h = ReLU(BN(conv(x)))``, both convolutions 3x3.

    The shortcut starts from ``x`` and spans both layers (``spans_both``), or starts from ``h`` and spans the second
    one alone. It is the identity, or a 1x1 convolution with batch norm if the cell ``projects``, which it must where
    the shape changes on its way.
    """

    def __init__(self, plan: CellPlan, spans_both: bool) -> None:
        super().__init__()
        self.spans_both = spans_both
        self.gives_sum = plan.gives_sum
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
        return _ended(outer, self.gives_sum)  # [B, out, H', W']


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


class Squeeze(nn.Module):
    """Squeeze-and-excitation (arXiv:1709.01507): ``x * sigmoid(W2 ReLU(W1 mean(x)))``, a gate for each channel.

    ``[B, channels, H, W] -> [B, channels, H, W]``; the mean is over the map, and both layers have biases.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = MaskedLinear(channels, hidden)
        self.expand = MaskedLinear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.expand(F.relu(self.reduce(x.mean(dim=(2, 3))))))
        return x * gate[:, :, None, None]


def _squeeze(plan: CellPlan) -> nn.Module:
    return Squeeze(plan.inner_channels, plan.squeeze) if plan.squeeze else nn.Identity()


def _projection(plan: CellPlan) -> nn.Module:
    if not plan.projects:
        return nn.Identity()
    conv = MaskedConv2d(plan.in_channels, plan.out_channels, 1, plan.stride)
    return nn.Sequential(conv, nn.BatchNorm2d(plan.out_channels))


class DepthwiseCell(nn.Module):
    """A ``basic`` cell whose two layers are separable (arXiv:1610.02357, arXiv:1704.04861).

    Each 3x3 convolution becomes one of each channel by itself and one of 1x1 that mixes them, both with batch norm:
    ``9 C + C^2`` weights in place of ``9 C^2``. Squeeze-and-excitation, if any, is of what the last layer reads.
    """

    def __init__(self, plan: CellPlan) -> None:
        super().__init__()
        read, inner, out = plan.in_channels, plan.inner_channels, plan.out_channels
        self.conv1 = MaskedConv2d(read, read, 3, plan.stride, groups=read)
        self.norm1 = nn.BatchNorm2d(read)
        self.conv2 = MaskedConv2d(read, inner, 1)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv3 = MaskedConv2d(inner, inner, 3, groups=inner)
        self.norm3 = nn.BatchNorm2d(inner)
        self.squeeze = _squeeze(plan)
        self.conv4 = MaskedConv2d(inner, out, 1)
        self.norm4 = nn.BatchNorm2d(out)
        self.shortcut = _projection(plan)
        self.gives_sum = plan.gives_sum

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))  # [B, inner, H', W']
        inner = self.squeeze(F.relu(self.norm3(self.conv3(inner))))
        outer: Tensor = self.norm4(self.conv4(inner)) + self.shortcut(x)
        return _ended(outer, self.gives_sum)  # [B, out, H', W']


class GroupedCell(nn.Module):
    """1x1, then 3x3 in groups of :data:`GROUP` channels, then 1x1, with a shortcut: ResNeXt (arXiv:1611.05431).

    With ``C`` channels everywhere it has ``2 C^2 + 72 C`` weights, where ``basic`` has ``18 C^2``. The 1x1 layers mix
    the groups.
    """

    def __init__(self, plan: CellPlan) -> None:
        super().__init__()
        inner, out = plan.inner_channels, plan.out_channels
        self.conv1 = MaskedConv2d(plan.in_channels, inner, 1)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = MaskedConv2d(inner, inner, 3, plan.stride, groups=inner // math.gcd(inner, GROUP))
        self.norm2 = nn.BatchNorm2d(inner)
        self.squeeze = _squeeze(plan)
        self.conv3 = MaskedConv2d(inner, out, 1)
        self.norm3 = nn.BatchNorm2d(out)
        self.shortcut = _projection(plan)
        self.gives_sum = plan.gives_sum

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))
        inner = self.squeeze(F.relu(self.norm2(self.conv2(inner))))  # [B, inner, H', W']
        outer: Tensor = self.norm3(self.conv3(inner)) + self.shortcut(x)
        return _ended(outer, self.gives_sum)  # [B, out, H', W']


class CompactCell(nn.Module):
    """``x + BN(project(filter(widen(x))))``: most of what it computes happens where weights are cheap.

    A narrow stream runs through the cells, and each widens it by 1x1, filters every channel of the wide space by
    itself in 3x3, and projects back: the inverted bottleneck with a linear end (arXiv:1801.04381). Weights lie in the
    two 1x1 layers, ``2 e C^2``, and filters cost but ``9 e C`` (``e`` is :data:`EXPANSION`, ``C`` the width of the
    stream): at 32 channels 38 % of the weights of a ``basic`` cell. What makes it one for small networks on small
    pictures: ``e`` is 3 and not 6, which leaves weights for a wider stream and more cells; it is ``e`` times the
    *narrower* side, so that cells that change the width stay cheap; the stream itself is never rectified, so that
    exits read all of it; and where the shape changes it has no shortcut at all, as one of 1x1 would cost about a sixth
    of the cell.
    """

    def __init__(self, plan: CellPlan) -> None:
        super().__init__()
        inner, out = plan.inner_channels, plan.out_channels
        self.conv1 = MaskedConv2d(plan.in_channels, inner, 1)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = MaskedConv2d(inner, inner, 3, plan.stride, groups=inner)
        self.norm2 = nn.BatchNorm2d(inner)
        self.squeeze = _squeeze(plan)
        self.conv3 = MaskedConv2d(inner, out, 1)
        self.norm3 = nn.BatchNorm2d(out)
        self.carries = not plan.projects

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))
        inner = self.squeeze(F.relu(self.norm2(self.conv2(inner))))  # [B, inner, H', W']
        outer: Tensor = self.norm3(self.conv3(inner))
        return x + outer if self.carries else outer  # [B, out, H', W']


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
    """The shortcut spans the second layer alone, as the seed document can be read; the 2020 code has ``basic``."""
    return TwoLayerCell(plan, spans_both=False)


Cell = Callable[[CellPlan], nn.Module]
"""Builds a cell from its plan."""

CELLS: dict[str, Cell] = {
    "basic": basic,
    "skip_second": skip_second,
    "preactivation": PreactivationCell,
    "plain": PlainCell,
    "separable": SeparableCell,
    "depthwise": DepthwiseCell,
    "grouped": GroupedCell,
    "compact": CompactCell,
    "unpadded": UnpaddedCell,
    "linear": LinearCell,
}


def shrunk(plan: CellPlan, height: int, width: int) -> tuple[int, int]:
    """Height and width of the map that a cell gives, from those of the map that it reads; 0 where nothing is left."""
    if plan.type == "linear":
        return 1, 1
    if plan.type == "unpadded":
        return max(height - 4, 0) // 2, max(width - 4, 0) // 2
    stride = 2 * plan.stride if plan.pooled else plan.stride
    return -(-height // stride), -(-width // stride)


def inner_channels(kind: str, reads: int, gives: int) -> int:
    """How many inner channels a cell of type ``kind`` starts with, see :class:`CellPlan`."""
    if kind == "separable":
        return reads
    return EXPANSION * min(reads, gives) if kind == "compact" else gives
