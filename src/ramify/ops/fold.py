"""Folding: a copy of a network that only answers, with batch norms and masks folded into its layers.

Each stage is traced by torch.fx and its operations are rewritten (:mod:`ramify.ops.rewrite`). Nothing is approximated.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ramify.errors import InputError
from ramify.nn.branching import Branching, Judge, Prediction
from ramify.ops.rewrite import rewritten

TRUNK_BYTES = 2 * 2**20
"""How much of a trunk fits the cache of a processor; larger batches are answered in pieces of this size."""

FEWEST = 32
"""The fewest pictures in a piece, since the weights are read again for each."""


def fold(network: Branching) -> "Folded":
    """A faster copy of ``network`` that gives the same logits, to the rounding of its precision.

    A layer, the batch norm behind it and constant factors before it become one layer with a bias, in channels-last
    layout, with additions and activations in place; masks are multiplied in. Numbers too small for a normal float32
    become 0, as they slow processors down. A module that torch.fx cannot trace, or that is not known, stays as it is.

    Args:
        network: any network, in any mode; it stays as it is. The copy has its device and precision.

    Example:
        >>> from ramify.config.rules import NetworkConfig
        >>> from ramify.nn.network import Network
        >>> network = Network(NetworkConfig(structure=(1, 0), input_shape=(1, 8, 8), classes=10), stages=2).eval()
        >>> images = torch.rand(5, 1, 8, 8)
        >>> torch.allclose(fold(network)(images), network(images), atol=1e-5)
        True
    """
    with torch.no_grad():
        return Folded(network).eval()


class _OneStage(nn.Module):
    """One stage, to be traced: ``trunk -> (trunk, logits [B, C])``; the first one reads pictures."""

    def __init__(self, network: Branching, at: int) -> None:
        super().__init__()
        self.network = network if at == 0 else None
        self.stage = network.stages[at]

    def forward(self, trunk: Tensor) -> tuple[Tensor, Tensor]:
        outputs: tuple[Tensor, Tensor] = self.stage(self.network.enter(trunk) if self.network else trunk)
        return outputs


class Folded(Branching):
    """The result of :func:`fold`: ``images [B, channels, H, W] in [0, 1] -> logits [E, B, C]``, without gradients.

    Attributes:
        stages: those of the network; the first includes the stem.
        piece: how many pictures a CPU answers at once, so that activations stay in its cache.
    """

    def __init__(self, network: Branching) -> None:
        super().__init__()
        self.cascade, self.input_shape, self.classes = network.cascade, network.input_shape, network.classes
        self.any_floats = network.any_floats
        network = copy.deepcopy(network).eval().requires_grad_(False)
        self.register_buffer("mean", network.mean)
        self.register_buffer("std", network.std)
        trunk = self.enter(network.blank(2))
        entered = network.enter(trunk)
        self.piece = max(FEWEST, TRUNK_BYTES // (entered[0].numel() * entered.element_size()))
        self.stages = nn.ModuleList()
        for at in range(len(network.stages)):
            self.stages.append(rewritten(_OneStage(network, at), trunk))
            trunk, _ = self.stages[at](trunk)

    def enter(self, images: Tensor) -> Tensor:
        """The pictures, channels last.

        Raises:
            InputError: they have another shape than the network's pictures.
        """
        if images.shape[1:] != self.input_shape:
            shape = ", ".join(map(str, ("B", *self.input_shape)))
            raise InputError(f"images: got {list(images.shape)}; accepted: [{shape}], as the network was folded for")
        return images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images

    def forward(self, images: Tensor) -> Tensor:
        """The logits of every exit, ``[E, B, C]``."""
        with torch.no_grad():
            logits = [super(Folded, self).forward(piece) for piece in self._pieces(images)]
            return logits[0] if len(logits) == 1 else torch.cat(logits, dim=1)

    def predict(self, images: Tensor, policy: Judge) -> Prediction:
        """See :meth:`ramify.nn.branching.Branching.predict`."""
        predictions = [super(Folded, self).predict(piece, policy) for piece in self._pieces(images)]
        if len(predictions) == 1:
            return predictions[0]
        classes, exits, confidence, ran = zip(*predictions, strict=True)
        counts = tuple(map(sum, zip(*ran, strict=True)))
        return Prediction(torch.cat(classes), torch.cat(exits), torch.cat(confidence), counts)

    def _pieces(self, images: Tensor) -> Sequence[Tensor]:
        fits = len(images) <= self.piece or images.device.type != "cpu"
        return [images] if fits else images.split(self.piece)
