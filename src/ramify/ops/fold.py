"""A network made ready to answer: batch norms are folded into the layers before them, and masks multiplied in.

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
"""About as much of a trunk as a processor keeps near itself; larger batches are answered in pieces of this size."""

FEWEST = 32
"""Pictures in a piece at least: in fewer the weights, read again for each piece, are no longer shared by enough."""


def fold(network: Branching) -> "Folded":
    """A copy of ``network`` that only answers, faster: the same logits, to the rounding of its precision.

    A layer, the batch norm behind it and constant factors before it become one layer with a bias, in channels-last
    layout, with additions and activations in place; masks are multiplied in; heads pool with one kernel for each kind
    of pooling, or none where there is nothing to pool. Numbers too small for a normal float32 become 0, for they slow
    processors down. A module that torch.fx cannot follow, or that is not known, stays as it is.

    Args:
        network: any network, in any mode; it stays as it is, and the copy stands on its device in its precision.

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


class _Enter(nn.Module):
    """What a network does with pictures before its first stage, to be traced."""

    def __init__(self, network: Branching) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.enter(images)


class _OneStage(nn.Module):
    """One stage, to be traced: ``trunk -> (trunk, logits [B, C])``; the first one reads pictures."""

    def __init__(self, network: Branching, at: int) -> None:
        super().__init__()
        self.enter = _Enter(network) if at == 0 else nn.Identity()
        self.stage = network.stages[at]

    def forward(self, given: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.stage(self.enter(given))
        return found


class Folded(Branching):
    """What :func:`fold` makes: ``images [B, channels, H, W] in [0, 1] -> logits [E, B, C]``, without gradients.

    On a processor a batch is answered in pieces of :attr:`piece` pictures, so that what flows between two layers
    stays in the cache; it also bounds the memory that a batch needs.

    Attributes:
        stages: those of the network, the first one with all that comes before it.
        piece: how many pictures a processor answers at once.
    """

    def __init__(self, network: Branching) -> None:
        super().__init__()
        self.cascade, self.input_shape, self.classes = network.cascade, network.input_shape, network.classes
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
            InputError: they are of another shape than those that the network was folded for.
        """
        if images.shape[1:] != self.input_shape:
            wanted = ", ".join(map(str, ("B", *self.input_shape)))
            raise InputError(f"images: got {list(images.shape)}; accepted: [{wanted}], as the network was folded for")
        return images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images

    def forward(self, images: Tensor) -> Tensor:
        """The logits of every exit, ``[E, B, C]``."""
        with torch.no_grad():
            found = [super(Folded, self).forward(some) for some in self._pieces(images)]
            return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def predict(self, images: Tensor, policy: Judge) -> Prediction:
        """See :meth:`ramify.nn.branching.Branching.predict`."""
        found = [super(Folded, self).predict(some, policy) for some in self._pieces(images)]
        if len(found) == 1:
            return found[0]
        classes, exits, confidence, ran = zip(*found, strict=True)
        counts = tuple(map(sum, zip(*ran, strict=True)))
        return Prediction(torch.cat(classes), torch.cat(exits), torch.cat(confidence), counts)

    def _pieces(self, images: Tensor) -> Sequence[Tensor]:
        fits = len(images) <= self.piece or images.device.type != "cpu"
        return [images] if fits else images.split(self.piece)
