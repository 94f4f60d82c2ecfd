"""The base of every cell: a few blocks of layers, built from a plan, the unit of ``network.structure``."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.nn.masked import MaskedConv2d, MaskedLinear

Identities = dict[nn.BatchNorm2d, Tensor]
"""The channels of batch norms that are to pass unchanged, by their indices."""


@dataclass(frozen=True)
class CellPlan:
    """One cell as data.

    Attributes:
        in_channels, out_channels: of its input and output.
        inner_channels: between its two layers; with one layer, ``out_channels``.
        projects: whether its shortcut is a 1x1 convolution, or missing in ``compact`` cells. Compaction may leave such
            a cell with as many channels on both sides.
        type: a name in :data:`ramify.nn.cells.CELLS`.
        stride: 2 where the cell halves the sides of the map, rounding up; else 1.
        area: ``H * W`` of its input; it matters to ``linear`` and ``pooling`` cells alone.
        squeeze: hidden units of its squeeze-and-excitation; 0 where it has none.
        pooled: whether the trunk is halved by average pooling before it, as strides are in dense wiring.
        gives_sum: whether it gives the sum before its last ReLU, for its stage's exit; the stage then applies the ReLU
            to the input of the next cell (``network.exit_reads``).
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


class Cell(nn.Module):
    """The base of every cell. A subclass and an entry in :data:`ramify.nn.cells.CELLS` are a new type of cell.

    It builds its layers from a plan and computes ``[B, in, H, W] -> [B, out, H', W']``. A cell that can start as an
    identity overrides :meth:`pass_on`.

    Attributes:
        summary: its help at ``network.cell``; empty for cells that belong to published architectures alone.
        projecting: whether its shortcut cannot be an identity where the shape changes (``plan.projects``).
        squeezing: whether it can have squeeze-and-excitation (``plan.squeeze``).
        widens: whether it can gain inner channels, as no shortcut carries them.
        rectified: whether its output has passed a ReLU; None where that is not known.
        sums: whether it ends in a ReLU of a sum, and gives the sum with ``plan.gives_sum`` (:meth:`end`).
        channels_stay: why a chain of such cells can lose no channel; empty where it can.
        carries: whether an identity shortcut adds its input to its output.

    Example:
        >>> class Mixing(Cell):
        ...     summary = "one 1x1 layer"
        ...     def __init__(self, plan: CellPlan) -> None:
        ...         super().__init__(plan)
        ...         self.conv = MaskedConv2d(plan.in_channels, plan.out_channels, 1, plan.stride)
        ...     def forward(self, x: Tensor) -> Tensor:
        ...         return F.relu(self.conv(x))
        >>> Mixing(CellPlan(4, 6, 6))(torch.rand(2, 4, 8, 8)).shape
        torch.Size([2, 6, 8, 8])
    """

    summary: ClassVar[str] = ""
    projecting: ClassVar[bool] = False
    squeezing: ClassVar[bool] = False
    widens: ClassVar[bool] = False
    rectified: ClassVar[bool | None] = None
    sums: ClassVar[bool] = False
    channels_stay: ClassVar[str] = ""
    carries: bool = False

    def __init__(self, plan: CellPlan) -> None:
        super().__init__()
        self.gives_sum = plan.gives_sum

    def end(self, outer: Tensor) -> Tensor:
        """The last ReLU, unless the cell gives the sum."""
        return outer if self.gives_sum else F.relu(outer)

    @staticmethod
    def inner_channels(reads: int, gives: int) -> int:
        """How many inner channels it starts with, see :class:`CellPlan`."""
        return gives

    @classmethod
    def why_not_passed(cls, plan: CellPlan, count: int) -> str:
        """Why a cell of ``plan`` cannot start as an identity of ``count`` channels; empty if it can."""
        if cls.pass_on is Cell.pass_on:
            return f"its {plan.type} cells change whatever they read"
        if plan.stride != 1:
            return f"one of its {plan.type} cells halves the map"
        if plan.out_channels < count:
            return f"one of its {plan.type} cells has {plan.out_channels} channels and the exit before it reads {count}"
        return ""

    def pass_on(self, places: Tensor, outputs: Tensor) -> Identities:
        """Make the new cell give its input channels ``places`` at its output channels ``outputs``.

        The caller then makes the returned batch norms identities at the channels they come with. It is called without
        gradients, and only where :meth:`why_not_passed` gives no reason.

        Args:
            places: int64 ``[N]``.
            outputs: int64 ``[N]``; equal to ``places`` where the cell ``carries``.
        """
        raise NotImplementedError


def select(conv: nn.Module, rows: Tensor, columns: Tensor) -> None:
    """Make ``rows`` of a convolution give ``columns`` of its input unchanged (Net2Net, arXiv:1511.05641)."""
    assert isinstance(conv, MaskedConv2d)
    middle = conv.kernel_size[0] // 2
    conv.weight[rows] = 0
    conv.weight[rows, columns, middle, middle] = 1
    conv.mask[rows, columns, middle, middle] = True


def projection(plan: CellPlan) -> nn.Module:
    """The shortcut over a whole cell: the identity, or a 1x1 convolution with batch norm if the cell ``projects``."""
    return projected(plan.in_channels, plan.out_channels, plan.stride) if plan.projects else nn.Identity()


def projected(reads: int, gives: int, stride: int) -> nn.Sequential:
    """A 1x1 convolution with batch norm."""
    return nn.Sequential(MaskedConv2d(reads, gives, 1, stride), nn.BatchNorm2d(gives))


def pass_shortcut(shortcut: nn.Module, places: Tensor, outputs: Tensor) -> Identities:
    """:meth:`Cell.pass_on` for a :func:`projection`; an identity passes all on as it is."""
    if not isinstance(shortcut, nn.Sequential):
        return {}
    conv, norm = shortcut
    assert isinstance(norm, nn.BatchNorm2d)
    select(conv, outputs, places)
    return {norm: outputs}


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


def squeeze(plan: CellPlan) -> nn.Module:
    """Squeeze-and-excitation of the inner channels, or the identity where the plan has none."""
    return Squeeze(plan.inner_channels, plan.squeeze) if plan.squeeze else nn.Identity()
