"""Sparse starts: stages get their masks at birth, or as they are, at exact densities that differ by layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ramify.errors import InputError
from ramify.nn.branching import Branching
from ramify.nn.masked import Masked, masked_layers
from ramify.ops.pruning.prune import LayerPruning, Masks, Pruning, best, layer_names, named, upward
from ramify.ops.pruning.saliency import DISTRIBUTIONS, Scores
from ramify.ops.surgery import rewire
from ramify.seeds import generator

Shapes = Mapping[str, torch.Size]
"""Shapes of the weights of masked layers, by name."""


@dataclass(frozen=True)
class SparseStart:
    """The masks that stages are to get, see :func:`plan_start`."""

    distribution: str
    stages: tuple[int, ...]
    masks: Masks


def weight_shapes(network: nn.Module) -> dict[str, torch.Size]:
    """The shape of every masked layer's weight, by its name."""
    return {name: layer.weight.shape for name, layer in masked_layers(network).items()}


def plan_start(
    network: Branching,
    keep: Mapping[int, float],
    distribution: str = "erk",
    *,
    known: Shapes | None = None,
    widened: bool = False,
    floor: int = 1,
    seed: int = 0,
) -> SparseStart:
    """Masks with which each stage in ``keep`` has exactly ``round(keep * N)`` of its N connections; nothing changes.

    Layers keep ``min(1, eps * p)`` of theirs, with one ``eps`` for the stage; ``p`` is that of ``distribution`` in
    :data:`ramify.ops.pruning.saliency.DISTRIBUTIONS`. Which connections of a layer they are:

    - of a layer that is new, random ones, but what is not zero comes first: so a stage that starts as a copy, or so
      that the network's function stays, keeps as much of that as it can;
    - of a layer that is ``known``, the largest magnitudes: it may have learned. Should it have fewer than asked for,
      others come back, at zero;
    - with ``widened``, what a known layer has stays, and the density is made up among the new weights.

    Args:
        network: any network; its own masks are respected where they leave enough.
        keep: fractions in (0, 1], by stage, counted from 0.
        distribution: ``erk`` or ``uniform``.
        known: shapes of the layers that are not new, as they were (:func:`weight_shapes`); what of a weight lies
            beyond them is new.
        widened: whether nothing may happen to what is known.
        floor: connections that every layer keeps.
        seed: of what is random.

    Raises:
        InputError: with so few connections a layer would die.

    Example:
        >>> from ramify.config.rules import NetworkConfig
        >>> from ramify.nn.network import Network
        >>> network = Network(NetworkConfig(structure=(1, 0), input_shape=(1, 8, 8), classes=10), seed=0)
        >>> report = apply_start(network, plan_start(network, {0: 0.1}))
        >>> report.after == round(0.1 * report.weights), report.stages
        (True, (0,))
    """
    layers, known = masked_layers(network), known or {}
    masks: Masks = {}
    for stage, fraction in keep.items():
        names = layer_names(network, stage)
        total = sum(layers[name].weight.numel() for name in names)
        count = round(fraction * total)
        ranks: Scores = {}
        reserved = 0
        for name in names:
            layer, shape = layers[name], known.get(name)
            old = _known_places(layer, shape)
            stays = old & layer.mask.flatten().cpu() if widened else torch.zeros_like(old)
            leaves = old & ~stays if widened else torch.zeros_like(old)
            order = _order(layer, stays, leaves, old, generator(seed, distribution, name))
            first = max(int(stays.sum()), min(floor, len(order)))
            # p / u, u being the rank among those that are not there already.
            rank = torch.full((len(order),), torch.inf, dtype=torch.float64)
            places = torch.arange(len(order), dtype=torch.float64) - int(stays.sum()) + 0.5
            rank[order[first:]] = DISTRIBUTIONS[distribution](layer.weight.shape) / places[first:]
            rank[leaves] = 0
            ranks[name] = rank.view(layer.weight.shape)
            reserved += first
        if count < reserved and not widened:
            raise InputError(
                f"prune.keep_ratio: got {fraction:g}, {count:,} of {total:,} weights in {named((stage,))}, too few for "
                f"its {len(names)} layers; accepted: at least {upward(reserved / total)}, or prune.floor=0"
            )
        masks |= best(ranks, max(count, reserved))
    return SparseStart(distribution, tuple(sorted(keep)), masks)


def apply_start(
    network: Branching,
    plan: SparseStart,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    followers: Sequence[nn.Module] = (),
) -> Pruning:
    """Give ``network`` the masks of ``plan``, in place, and likewise ``followers``, modules with the same layers.

    What ``optimizer`` keeps of connections that go or come is cleared, of the others untouched.
    """
    layers = masked_layers(network)
    before = {name: int(layers[name].mask.sum()) for name in plan.masks}
    for module, its in ((network, optimizer), *((follower, None) for follower in followers)):
        rewire(module, plan.masks, its)
    return Pruning(
        plan.distribution,
        "weight",
        "none",
        False,
        {
            name: LayerPruning(stage, layers[name].mask.numel(), before[name], int(layers[name].mask.sum()))
            for stage in plan.stages
            for name in layer_names(network, stage)
        },
    )


def _known_places(layer: Masked, shape: torch.Size | None) -> Tensor:
    """Which weights of a layer lie within ``shape``, bool ``[N]``; none without one."""
    places = torch.zeros(layer.weight.shape, dtype=torch.bool)
    if shape is not None:
        places[tuple(slice(size) for size in shape)] = True
    return places.flatten()


def _order(layer: Masked, stays: Tensor, leaves: Tensor, old: Tensor, draws: torch.Generator) -> Tensor:
    """The weights of a layer from the first to be kept to the last: what stays, what is there, what is not zero.

    Among equals the largest of the ``old`` come first, then the order is random; what ``leaves`` comes last.
    """
    order = torch.randperm(len(old), generator=draws)
    size = layer.weight.detach().flatten().abs().cpu()
    there = layer.mask.flatten().cpu()
    # From the least to the most important, each stable.
    for key in (torch.where(old, size, 0), size != 0, there, ~leaves, stays):
        order = order[key[order].double().argsort(descending=True, stable=True)]
    return order
