"""Classifiers at the exits: they pool a feature map to a small grid and read it with one linear layer."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.nn.masked import MaskedConv2d, MaskedLinear

GRID = 4
"""Largest side of the pooled map that a head reads."""

HIDDEN_CHANNELS = 32
"""Least channels of the block in a ``conv`` exit; it has as many as there are classes, if these are more."""

FUSED_FROM = 64
"""Above so many channels, as behind dense wiring, average pooling is left to the compiler where there is one."""

Grid = tuple[int, int]


class PooledHead(nn.Module):
    """Pool to a grid, flatten, one linear layer: ``[B, channels, H, W] -> [B, classes]``.

    ``share`` is the part ``a`` of max pooling in ``a * maxpool + (1 - a) * avgpool``; None learns it from 0.5 on
    (Shallow-Deep Networks, arXiv:1810.07052). With ``norm``, batch norm and ReLU come first. With ``inner``, a 1x1
    convolution to so many channels comes before those.
    """

    def __init__(
        self, channels: int, classes: int, grid: Grid, share: float | None, norm: bool = False, inner: int | None = None
    ) -> None:
        super().__init__()
        self.grid = grid
        self.fixed = share
        self.conv = None if inner is None else MaskedConv2d(channels, inner, 1)
        read = channels if inner is None else inner
        self.norm = nn.BatchNorm2d(read) if norm else None
        if share is None:
            self.share = nn.Parameter(torch.tensor(0.5))
        self.linear = MaskedLinear(read * grid[0] * grid[1], classes)

    def forward(self, x: Tensor) -> Tensor:
        if self.conv is not None:
            x = self.conv(x)
        if self.norm is not None:
            x = F.relu(self.norm(x))
        logits: Tensor = self.linear(self.pool(x).flatten(1))
        return logits

    def reset_parameters(self) -> None:
        """Reset the share of max pooling; the layers have a reset of their own."""
        if self.fixed is None:
            nn.init.constant_(self.share, 0.5)

    def pool(self, x: Tensor) -> Tensor:
        """``[B, channels, H, W] -> [B, channels, *grid]``."""
        if self.fixed == 0.0:
            return _average(x, self.grid)
        if self.fixed == 1.0:
            return F.adaptive_max_pool2d(x, self.grid)
        return torch.lerp(F.adaptive_avg_pool2d(x, self.grid), F.adaptive_max_pool2d(x, self.grid), self.share)


def _average(x: Tensor, grid: Grid) -> Tensor:
    """Average pooling; as the mean of a view where a compiler can fuse it with what stands before it."""
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting() and x.shape[1] > FUSED_FROM:
        height, width = x.shape[2] // grid[0], x.shape[3] // grid[1]
        if not (x.shape[2] % grid[0] or x.shape[3] % grid[1]):
            return x.reshape(*x.shape[:2], grid[0], height, grid[1], width).mean(dim=(3, 5))
    return F.adaptive_avg_pool2d(x, grid)


class BothHead(nn.Module):
    """The mean and the maximum of each channel over the map, batch norm, one linear layer.

    ``[B, channels, H, W] -> [B, classes]``. The batch norm has no parameters. With features of equal size the linear
    layer learns well at any learning rate.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2 * channels, affine=False)
        self.linear = MaskedLinear(2 * channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        read = torch.cat((x.mean(dim=(2, 3)), x.amax(dim=(2, 3))), dim=1)
        logits: Tensor = self.linear(self.norm(read))
        return logits


class ScaledHead(nn.Module):
    """The maximum of each channel over the map, one linear layer, times 1/9 (arXiv:2404.00498).

    ``[B, channels, H, W] -> [B, classes]``.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = MaskedLinear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.amax(dim=(2, 3))) / 9
        return logits


Exit = Callable[[int, int, Grid], nn.Module]
"""Builds a classifier from its input channels, the number of classes, and the grid it pools to."""

EXITS: dict[str, Exit] = {
    # The internal classifier of Shallow-Deep Networks (arXiv:1810.07052).
    "mixed": lambda channels, classes, grid: PooledHead(channels, classes, grid, share=None),
    # The final classifier of most networks.
    "average": lambda channels, classes, grid: PooledHead(channels, classes, grid, share=0.0),
    "max": lambda channels, classes, grid: PooledHead(channels, classes, grid, share=1.0),
    # The final classifier behind preactivation cells.
    "normed": lambda channels, classes, grid: PooledHead(channels, classes, grid, share=0.0, norm=True),
    # One weight for each channel and class, where a grid of 4x4 has 16.
    "global": lambda channels, classes, grid: PooledHead(channels, classes, (1, 1), share=None),
    # Channels are combined at each place before the pooling.
    "conv": lambda channels, classes, grid: PooledHead(
        channels, classes, (1, 1), share=None, norm=True, inner=max(HIDDEN_CHANNELS, classes)
    ),
    # For exits whose gradient does not reach the trunk (train.exit_gradients=last).
    "both": lambda channels, classes, grid: BothHead(channels, classes),
    # The final classifier of speed runs.
    "scaled": lambda channels, classes, grid: ScaledHead(channels, classes),
}
"""Every classifier by the name that ``network.exit`` takes."""

ONE_PIXEL = ("global", "conv", "both", "scaled")
"""Those that pool to one pixel, whatever the grid."""
