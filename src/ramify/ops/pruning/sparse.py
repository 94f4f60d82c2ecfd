"""Sparse starts: masks of stages, new or not, at exact densities that differ by layer."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ramify.errors import InputError
from ramify.nn.branching import Branching
from ramify.nn.masked import Masked, masked_layers
from ramify.ops.pruning.prune import Masks, PruningPlan, best, layer_names, rounded_up, stages_text
from ramify.ops.pruning.saliency import DISTRIBUTIONS, Scores
from ramify.seeds import generator

Shapes = Mapping[str, torch.Size]
"""Shapes of the weights of masked layers, by name."""


def weight_shapes(network: nn.Module) -> dict[str, torch.Size]:
    """The shape of every masked layer's weight, by name."""
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
) -> PruningPlan:
    """A plan by which each stage in ``keep`` has exactly ``round(keep * N)`` of its N connections; nothing changes.

    :func:`ramify.ops.pruning.prune.apply_pruning` applies it. Layers keep ``min(1, eps * p)`` of their connections, and
    at least ``floor``, with one ``eps`` for the stage; ``p`` is that of ``distribution`` in
    :data:`ramify.ops.pruning.saliency.DISTRIBUTIONS`. In a new layer they are random ones, but those that are not zero
    first, as a stage may start as a copy or an identity. In a ``known`` layer, whose former shape is given
    (:func:`weight_shapes`), they are those of largest magnitude; if too few are left, others come back at zero. With
    ``widened`` a known layer keeps all of its connections, and weights beyond its former shape make up the density.

    Raises:
        InputError: with so few connections a layer would lose its last.
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
            old = torch.zeros(layer.weight.shape, dtype=torch.bool)
            if shape is not None:
                old[tuple(map(slice, shape))] = True
            old = old.flatten()
            fixed = old & layer.mask.flatten().cpu() if widened else torch.zeros_like(old)
            barred = old & ~fixed if widened else torch.zeros_like(old)
            order = _order(layer, fixed, barred, old, generator(seed, distribution, name))
            first = max(int(fixed.sum()), min(floor, len(order)))
            # p / u, where u is the rank among those that are not fixed.
            rank = torch.full((len(order),), torch.inf, dtype=torch.float64)
            places = torch.arange(len(order), dtype=torch.float64) - int(fixed.sum()) + 0.5
            rank[order[first:]] = DISTRIBUTIONS[distribution](layer.weight.shape) / places[first:]
            rank[barred] = 0
            ranks[name] = rank.view(layer.weight.shape)
            reserved += first
        if count < reserved and not widened:
            raise InputError(
                f"prune.keep_ratio: got {fraction:g}, {count:,} of {total:,} weights in {stages_text((stage,))}, too "
                f"few for its {len(names)} layers; accepted: at least {rounded_up(reserved / total)}, or prune.floor=0"
            )
        masks |= best(ranks, max(count, reserved))
    return PruningPlan(distribution, "weight", "none", False, seed, tuple(sorted(keep)), masks, grows=True)


def _order(layer: Masked, fixed: Tensor, barred: Tensor, old: Tensor, draws: torch.Generator) -> Tensor:
    """The weights of a layer, the first to be kept first: fixed, then connected, then not zero; barred ones last.

    Of equals the largest of the ``old`` come first, then the order is random.
    """
    order = torch.randperm(len(old), generator=draws)
    size = layer.weight.detach().flatten().abs().cpu()
    connected = layer.mask.flatten().cpu()
    # From the least to the most important, each stable.
    for key in (torch.where(old, size, 0), size != 0, connected, ~barred, fixed):
        order = order[key[order].double().argsort(descending=True, stable=True)]
    return order
