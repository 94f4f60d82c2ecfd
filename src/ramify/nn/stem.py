"""Stems: the first layers of a network, ``[B, in, H, W] -> [B, out, H', W']``."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.nn.masked import MaskedConv2d

SMALLEST = 5e-4
"""Added to the variances by which patches are scaled."""


class Stem(nn.Module):
    """The base of every stem."""

    conv: MaskedConv2d
    norm: nn.BatchNorm2d


class BlockStem(Stem):
    """A 3x3 block of layers: ``[B, in, H, W] -> [B, out, H, W]``."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = MaskedConv2d(in_channels, out_channels, 3)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class ConvolutionStem(Stem):
    """A bare 3x3 convolution: ``[B, in, H, W] -> [B, out, H, W]``."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = MaskedConv2d(in_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.conv(x)
        return output


class WhitenedStem(Stem):
    """A 2x2 convolution and GELU that do not learn: ``[B, in, H, W] -> [B, 8 in, H - 1, W - 1]``.

    Its filters are the principal directions of the 2x2 patches of training pictures, each scaled to variance 1, and
    their negatives (:meth:`whiten`), as in the speed runs of arXiv:2404.00498.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = MaskedConv2d(in_channels, out_channels, 2, padding=0)
        self.requires_grad_(False)

    def whiten(self, images: Tensor) -> None:
        """Take the filters from pictures, ``[B, in, H, W]``, normalized as the network does.

        Example:
            >>> stem = WhitenedStem(1, 8)
            >>> stem.whiten(torch.rand(50, 1, 8, 8))
            >>> torch.equal(stem.conv.weight[:4], -stem.conv.weight[4:])
            True
        """
        channels = images.shape[1]
        patches = F.unfold(images.double(), 2).transpose(1, 2).reshape(-1, channels * 4)
        covariance = patches.T @ patches / len(patches)
        variances, directions = torch.linalg.eigh(covariance)
        filters = (directions / (variances + SMALLEST).sqrt()).T.flip(0).reshape(-1, channels, 2, 2)
        with torch.no_grad():
            self.conv.weight.copy_(torch.cat((filters, -filters)))

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.conv(x))


class NoStem(Stem):
    """The identity: the first cell reads the pictures."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


STEMS: dict[str, Callable[[int, int], Stem]] = {
    "block": BlockStem,
    "convolution": ConvolutionStem,
    "whitened": WhitenedStem,
    "none": NoStem,
}
"""Every stem by its name in :class:`ramify.nn.zoo.Architecture`, made of channels in and out."""
