"""A network made ready to answer: batch norms are folded into the layers before them, and masks multiplied in.

Each stage is traced by torch.fx and its operations are rewritten (:mod:`ramify.ops.rewrite`). Nothing is approximated.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ramify.errors import InputError
from ramify.nn.branching import Branching, Judge, Prediction
from ramify.nn.network import Network
from ramify.ops.rewrite import rewritten

TRUNK_BYTES = 2 * 2**20
"""About as much of a trunk as a processor keeps near itself; larger batches are answered in pieces of this size."""

FEWEST = 32
"""Pictures in a piece at least: in fewer the weights, read anew for each piece, are no longer shared by enough."""


def fold(network: Branching, example: Tensor | None = None) -> "Folded":
    """A copy of ``network`` that only answers, faster: the same logits, to the rounding of its precision.

    A layer, the batch norm behind it and constant factors before it become one layer with a bias, in channels-last
    layout, with additions and activations in place; masks are multiplied in; heads pool with one kernel for each kind
    of pooling, or none where there is nothing to pool. Numbers too small for a normal float32 become 0, for they slow
    processors down. A stage that torch.fx cannot trace, and a module that is not known, stays as it is.

    Args:
        network: any network, in any mode; it stays as it is, and the copy stands on its device in its precision.
        example: one or more of what the network takes, where that does not say the shape of its pictures.

    Raises:
        InputError: neither ``network`` nor ``example`` says the shape of the pictures.

    Example:
        >>> from ramify.config import NetworkConfig
        >>> network = Network(NetworkConfig(structure=(1, 0), input_shape=(1, 8, 8), classes=10), stages=2).eval()
        >>> images = torch.rand(5, 1, 8, 8)
        >>> torch.allclose(fold(network)(images), network(images), atol=1e-5)
        True
    """
    with torch.no_grad():
        return Folded(network, _example(network) if example is None else example).eval()


def _example(network: Branching) -> Tensor:
    shape = network.config.input_shape if isinstance(network, Network) else getattr(network, "input_shape", None)
    if shape is None:
        raise InputError("fold: got a network without the shape of its pictures; accepted: one with it, or an example")
    numbers = next(value for value in (*network.parameters(), *network.buffers()) if value.is_floating_point())
    return torch.zeros(2, *shape, device=numbers.device, dtype=numbers.dtype)


class _Enter(nn.Module):
    """What a network does with pictures before its first stage, to be traced."""

    def __init__(self, network: Branching, dimensions: int) -> None:
        super().__init__()
        self.network = network
        self.layout = torch.channels_last if dimensions == 4 else torch.contiguous_format

    def forward(self, images: Tensor) -> Tensor:
        return self.network.enter(images.contiguous(memory_format=self.layout))


class _OneStage(nn.Module):
    """One stage, to be traced: ``trunk -> (trunk, logits [B, C])``."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, trunk: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.stage(trunk)
        return found


class Folded(Branching):
    """What :func:`fold` makes: ``images [B, channels, H, W] in [0, 1] -> logits [E, B, C]``, without gradients.

    On a processor a batch is answered in pieces of :attr:`piece` pictures, so that what flows between two layers
    stays in the cache; it also bounds the memory that a batch needs.

    Attributes:
        stages: those of the network.
        piece: how many pictures a processor answers at once.
        input_shape: of one of the pictures that it takes.
    """

    def __init__(self, network: Branching, example: Tensor) -> None:
        super().__init__()
        self.input_shape = tuple(example.shape[1:])
        self.cascade = network.cascade
        network = copy.deepcopy(network).eval().requires_grad_(False)
        self.stem = rewritten(_Enter(network, example.dim()), example)
        trunk = self.stem(example)
        self.piece = max(FEWEST, TRUNK_BYTES // (trunk[0].numel() * trunk.element_size()))
        self.stages = nn.ModuleList()
        for stage in network.stages:
            self.stages.append(rewritten(_OneStage(stage), trunk))
            trunk, _ = self.stages[-1](trunk)

    def enter(self, images: Tensor) -> Tensor:
        """What the first stage reads.

        Raises:
            InputError: the pictures are of another shape than those that the network was folded for.
        """
        if images.shape[1:] != self.input_shape:
            wanted = ", ".join(map(str, self.input_shape))
            raise InputError(f"images: got {list(images.shape)}; accepted: [B, {wanted}], as the network was folded")
        trunk: Tensor = self.stem(images)
        return trunk

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
