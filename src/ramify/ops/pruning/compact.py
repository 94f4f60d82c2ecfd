"""Compaction: a smaller network without the channels that provably do not matter.

A masked weight still costs a multiplication; a removed channel costs nothing. The rest are slices of the same tensors.
"""

import copy
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ramify.errors import RunError
from ramify.nn.branching import Branching
from ramify.nn.constants import LayerInput, constants
from ramify.nn.graph import ChannelGroup
from ramify.nn.masked import masked_layers
from ramify.nn.widths import cut_out, cuts
from ramify.ops.cost import Cost, cost
from ramify.ops.pruning.channels import channels, without
from ramify.ops.pruning.saliency import double_device
from ramify.ops.surgery import replace_parameter
from ramify.seeds import generator

_N = TypeVar("_N", bound=Branching)

_TOLERANCE = 1e-5
"""How far logits may differ, relative to the largest of them or to 1."""

_PICTURES = 8

_Cuts = Mapping[tuple[str, int], Sequence[int]]
"""The places of a tensor that are removed, by its name and a dimension."""


@dataclass(frozen=True)
class Compaction:
    """The report of one compaction.

    Attributes:
        before, after: cost of each exit, shallowest first.
        layers: outputs before and after of each layer that lost some, by name.
        removed: how many groups of channels were removed.
        flushed: numbers too small for a normal float32 that became 0, as they slow processors down.
        difference: largest absolute difference between the logits of the two networks in evaluation mode, in float64,
            on a seeded batch of 8 random pictures.
    """

    before: tuple[Cost, ...]
    after: tuple[Cost, ...]
    layers: dict[str, tuple[int, int]]
    removed: int
    flushed: int
    difference: float

    @property
    def changed(self) -> bool:
        """Whether a channel was removed or a number flushed."""
        return self.removed > 0 or self.flushed > 0


def compact(network: _N, optimizer: torch.optim.Optimizer | None = None) -> tuple[_N, Compaction]:
    """A copy of ``network`` without the channels that provably do not matter in evaluation mode, and a report.

    A group of :func:`ramify.ops.pruning.channels.channels` is removed if each layer that reads it has those weights
    masked, or reads exactly 0 there for every picture (:mod:`ramify.nn.constants`). This repeats until nothing changes,
    since a channel's last reader may be removed itself; of channels that the same layers make, one stays.

    The copy has the masks, device, precision and mode of ``network``, and can be saved, trained, grown and compacted
    again. In training mode a removed channel may have mattered.

    Args:
        network: any branching network; it stays as it is.
        optimizer: over the parameters of ``network``; it gets those of the copy in their place, in the same groups, and
            keeps the state of the weights that stay, bit for bit. It no longer trains ``network``.

    Raises:
        RunError: the logits of the copy differ; this would be a fault of ramify.

    Example:
        >>> from ramify.config.rules import NetworkConfig
        >>> from ramify.nn.network import Network
        >>> from ramify.ops.pruning.channels import mask_channels, silence
        >>> from ramify.ops.surgery import set_masks
        >>> network = Network(NetworkConfig(structure=(1,), channels=4, input_shape=(1, 8, 8), classes=2))
        >>> lost = channels(network)[:3]
        >>> set_masks(network, mask_channels(network, lost))
        >>> silence(network, *lost)
        >>> small, report = compact(network)
        >>> report.layers, report.before[-1].kept == report.after[-1].weights
        ({'stages.0.cells.0.conv1': (4, 1)}, True)
        >>> compact(small)[1].changed
        False
    """
    lost = _lost(network)
    gone = cuts(lost)
    small, flushed = _rebuilt(network, lost, gone)
    large_twin, small_twin = _precise(network), _precise(small)
    layers, remaining = masked_layers(network), masked_layers(small)
    report = Compaction(
        before=tuple(cost(large_twin)),
        after=tuple(cost(small_twin)),
        layers={
            name: (len(layer.weight), len(remaining[name].weight))
            for name, layer in layers.items()
            if len(layer.weight) != len(remaining[name].weight)
        },
        removed=len(lost),
        flushed=flushed,
        difference=_difference(large_twin, small_twin),
    )
    if optimizer is not None:
        for name, parameter in network.named_parameters():
            resize = functools.partial(_sliced, key=name, gone=gone)
            replace_parameter(optimizer, parameter, small.get_parameter(name), resize)
    return small, report


def _lost(network: Branching) -> list[ChannelGroup]:
    """All groups that can be removed."""
    twin = copy.deepcopy(network).eval()
    with torch.no_grad():
        for value in [*twin.parameters(), *twin.buffers()]:
            value.copy_(_flushed(value.detach())[0])
    inputs = constants(twin, twin.blank()).inputs
    left = list(channels(network))
    masks = {name: layer.mask for name, layer in masked_layers(network).items()}
    lost: list[ChannelGroup] = []
    while removable := _removable(left, masks, inputs):
        lost += removable
        # Their readers and makers lose weights, so that others may follow.
        masks = without(masks, removable)
        gone = {id(group) for group in removable}
        left = [group for group in left if id(group) not in gone]
    return lost


def _removable(
    groups: Sequence[ChannelGroup], masks: Mapping[str, Tensor], inputs: Mapping[str, LayerInput]
) -> list[ChannelGroup]:
    """Those of ``groups`` that do not matter, but for the first of a space that would lose its last."""
    names = {place.name for group in groups for place in group.readers}
    # Which inputs a layer uses: nothing where its weights are masked, or where it reads 0.
    uses = {
        name: (masks[name].transpose(0, 1).flatten(1).any(dim=1) & ~inputs[name].zero.to(masks[name].device)).tolist()
        for name in names
    }
    unused = [group for group in groups if not any(uses[name][place] for name, at, _ in group.readers for place in at)]
    remaining = Counter(group.space for group in groups)
    remaining.subtract(group.space for group in unused)
    removable: list[ChannelGroup] = []
    for group in unused:
        if remaining[group.space] == 0:
            remaining[group.space] = 1
        else:
            removable.append(group)
    return removable


def _rebuilt(network: _N, lost: Sequence[ChannelGroup], gone: _Cuts) -> tuple[_N, int]:
    """``network`` without the channels in ``lost``, and how many of its numbers were flushed."""
    state: dict[str, Tensor] = {}
    flushed = 0
    for key, value in network.state_dict().items():
        state[key], count = _flushed(_sliced(value, key, gone))
        flushed += count
    small = network.smaller(lost)
    small.load_state_dict(state, strict=True, assign=True)  # assigning keeps device and precision
    for name, parameter in network.named_parameters():
        small.get_parameter(name).requires_grad_(parameter.requires_grad)
    for name, module in network.named_modules():
        small.get_submodule(name).training = module.training
    return small, flushed


def _sliced(value: Tensor, key: str, gone: _Cuts) -> Tensor:
    """The rest of a tensor that belongs to the parameter or buffer ``key``."""
    for dim in range(value.dim()):
        value = cut_out(value, dim, gone.get((key, dim), ()))
    return value


def _flushed(value: Tensor) -> tuple[Tensor, int]:
    """A copy in which numbers too small for a normal float32 are 0, and how many these are."""
    if not value.is_floating_point():
        return value.clone(), 0
    tiny = (value != 0) & (value.abs() < torch.finfo(torch.float32).tiny)
    return value.masked_fill(tiny, 0), int(tiny.sum())


def _precise(network: _N) -> _N:
    """A copy in float64 and evaluation mode."""
    return copy.deepcopy(network).to(double_device(network)).double().eval()


def _difference(large: Branching, small: Branching) -> float:
    """Largest difference between the logits of two networks on random pictures.

    Raises:
        RunError: it is too large.
    """
    draw = generator(0, "compact")
    pictures = torch.rand(_PICTURES, *large.input_shape, generator=draw, dtype=torch.float64)
    with torch.no_grad():
        pictures = pictures.to(large.mean.device)
        expected, logits = large(pictures), small(pictures)
    difference = float((logits - expected).abs().max())
    accepted = _TOLERANCE * max(1.0, float(expected.abs().max()))
    if not difference <= accepted:  # also where it is not a number
        raise RunError(
            f"compact: the logits of the compacted network differ by {difference:.3g} from those of the masked one; "
            f"accepted: up to {accepted:.3g}; the network was left as it is"
        )
    return difference
