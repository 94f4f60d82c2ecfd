"""Channel groups that a network can lose (:mod:`ramify.nn.graph`): their scores, masks and silencing."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ramify.nn.branching import Branching
from ramify.nn.constants import Constants, constants
from ramify.nn.graph import ChannelGroup
from ramify.nn.masked import masked_layers
from ramify.nn.modes import keeping_modes
from ramify.nn.widths import cuts
from ramify.ops.surgery import kept_of, set_masks


def channels(network: Branching) -> tuple[ChannelGroup, ...]:
    """Every group of channels that ``network`` can lose, in the order in which it makes them.

    A network from a configuration never loses what an identity shortcut carries, also in later cells, nor outputs of
    its stem, nor inner channels of grouped convolutions. Readers are layers that exist, so growth adds to them.

    Example:
        >>> from ramify.config.rules import NetworkConfig
        >>> from ramify.nn.network import Network
        >>> config = NetworkConfig(kind="dense", structure=(0, 1), channels=4, input_shape=(1, 8, 8), classes=2)
        >>> groups = channels(Network(config))
        >>> len(groups), groups[0].space
        (12, ('stages.0.cells.0.conv1',))
        >>> groups[-1].space, groups[-1].readers[0].name, groups[-1].readers[0].at[:2]
        (('stages.0.cells.1.shortcut.0', 'stages.0.cells.1.conv2'), 'stages.0.exit.linear', (48, 49))
    """
    return network.channel_groups()


def owner(group: ChannelGroup) -> str:
    """The name of the module that holds all layers that make a group, such as a cell."""
    paths = (name.split(".")[:-1] for name in group.space)
    shared = itertools.takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False))
    return ".".join(names[0] for names in shared)


def alive(network: nn.Module, groups: Sequence[ChannelGroup]) -> list[bool]:
    """For each group of channels whether any weight that makes it is unmasked."""
    # The rows of every layer once: a network may have thousands of groups.
    rows = {name: layer.mask.flatten(1).any(dim=1).tolist() for name, layer in masked_layers(network).items()}
    return [any(rows[name][place] for name, at, _ in group.makers for place in at) for group in groups]


def channel_scores(groups: Sequence[ChannelGroup], scores: Mapping[str, Tensor]) -> Tensor:
    """The sum of ``scores`` over the weights that make each group, float64 ``[groups]`` on the CPU.

    Args:
        groups: of :func:`channels`.
        scores: a tensor in the shape of the weight for each masked layer, by its name.
    """
    names = dict.fromkeys(name for group in groups for name in group.space)
    # To the CPU first: not every device has float64.
    sums = {name: scores[name].detach().cpu().double().flatten(1).sum(dim=1).tolist() for name in names}
    totals = [sum(sums[name][place] for name, at, _ in group.makers for place in at) for group in groups]
    return torch.tensor(totals, dtype=torch.float64)


def rank_channels(
    network: nn.Module, groups: Sequence[ChannelGroup], scores: Mapping[str, Tensor]
) -> tuple[Tensor, dict[tuple[str, ...], list[int]]]:
    """The ranks of ``groups``, and the indices of those that are alive by :attr:`ChannelGroup.space`.

    Ranks are float64 ``[groups]``: :func:`channel_scores`, but infinite for the best of each space, which stays, and
    ``-inf`` for a group that is masked already.
    """
    living = torch.tensor(alive(network, groups), dtype=torch.bool)
    rank = channel_scores(groups, scores).masked_fill(~living, -torch.inf)
    spaces: dict[tuple[str, ...], list[int]] = {}
    for position, group in enumerate(groups):
        if living[position]:
            spaces.setdefault(group.space, []).append(position)
    for positions in spaces.values():
        rank[positions[int(rank[positions].argmax())]] = torch.inf
    return rank, spaces


def mask_channels(network: nn.Module, lost: Sequence[ChannelGroup]) -> dict[str, Tensor]:
    """Masks of all layers, by name, without the weights that make, pass or read the channels in ``lost``.

    They are for :func:`ramify.ops.surgery.set_masks`; the network does not change.
    """
    return without({name: layer.mask for name, layer in masked_layers(network).items()}, lost)


def without(masks: Mapping[str, Tensor], lost: Sequence[ChannelGroup]) -> dict[str, Tensor]:
    """Copies of ``masks`` in which no weight makes, passes or reads a channel in ``lost``."""
    masks = {name: mask.clone() for name, mask in masks.items()}
    for (tensor, dim), places in cuts(lost).items():
        name, _, key = tensor.rpartition(".")
        if key == "mask":
            masks[name].index_fill_(dim, torch.tensor(places, device=masks[name].device), False)
    return masks


def silence(network: nn.Module, *lost: ChannelGroup, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Make each group in ``lost``, masked as :func:`mask_channels` says, give exactly 0 in training and evaluation.

    Scales, shifts and biases along the way become 0, running means 0 and running variances 1; they get no gradient, as
    the readers are masked, and no momentum, as their state in ``optimizer`` is cleared. Biases of gates stay.

    Args:
        network: the network that the channels are of, or a copy of it.
        *lost: groups of :func:`channels`.
        optimizer: over the parameters of ``network``.
    """
    places: dict[tuple[str, int], list[int]] = {}
    for group in lost:
        gates = {f"{gate.name}.bias" for gate in group.gates}
        for name, entries, dim in group.vectors:
            if name not in gates:
                places.setdefault((name, dim), []).extend(entries)
    tensors = dict(network.named_buffers()) | dict(network.named_parameters())
    with torch.no_grad():
        for (name, dim), indexed in places.items():
            tensor = tensors[name]
            indices = torch.tensor(indexed, device=tensor.device)
            tensor.index_fill_(dim, indices, float(name.endswith("running_var")))
            for kept in kept_of(optimizer, tensor):
                if kept.shape == tensor.shape:
                    kept.index_fill_(dim, indices.to(kept.device), 0.0)


def _of_constants(network: Branching, forward: Callable[[Tensor], Tensor] | None = None) -> Constants:
    """What is the same for every picture in evaluation mode; the mode of ``network`` stays."""
    with keeping_modes(network):
        return constants(network.eval(), network.blank(), forward)


def dead_trunk(network: Branching) -> Tensor:
    """Which channels of the trunk are the same for every picture, bool ``[channels]``, as pruning leaves them."""
    value = _of_constants(network, lambda images: network.trunk_and_logits(images)[0]).output
    return ~value.movedim(1, 0).flatten(1).isnan().any(dim=1)


def mask_dead_inputs(network: Branching, stage: int) -> int:
    """Mask the weights of ``stage``, newly grown, that read channels that are the same for every picture.

    Returns:
        How many weights it masked; they become zero.
    """
    layers = masked_layers(network)
    masked = 0
    for name, inputs in _of_constants(network).inputs.items():
        if not name.startswith(f"stages.{stage}."):
            continue
        layer, dead = layers[name], inputs.constant
        new = layer.mask.clone()
        if new.shape[1] == len(dead):
            new[:, dead] = False
        elif new.shape[1] == 1:  # each channel is filtered by itself
            new[dead.repeat_interleave(len(new) // len(dead))] = False
        masked += int((layer.mask & ~new).sum())
        set_masks(network, {name: new})
    return masked
