"""Extension: a deeper network that starts from a trained shallower one, as in Net2Net (arXiv:1511.05641)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ramify.config.rules import NetworkConfig
from ramify.errors import InputError
from ramify.nn.exit import PooledHead
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network, architecture, plan
from ramify.ops.growing.convert import cell_names, copy_parts, with_exits
from ramify.ops.growing.grow import can_keep, grow

POOLING_SHARE = {"average": 0.0, "max": 1.0}
"""The share of max pooling with which a mixed exit equals these."""


@dataclass(frozen=True)
class Overlap:
    """The part of a network that another one can start from.

    Attributes:
        cells: how many of the first cells.
        exits: how many of the first exits.
        whole: whether these are all its cells; its final classifier is then an exit behind them.
    """

    cells: int
    exits: int
    whole: bool


@dataclass(frozen=True)
class Extension:
    """A network that starts from another one.

    Attributes:
        network: the deeper network, with all its stages.
        overlap: the copied part.
        names: by the prefix of the names of each copied part, its prefix in the other network.
    """

    network: Network
    overlap: Overlap
    names: dict[str, str]


def overlap(network: NetworkConfig, target: NetworkConfig, stages: int | None = None) -> Overlap | None:
    """The part of a network of ``network`` that one of ``target`` can start from; None if there is none.

    Both need the same kind of cells, wiring, internal classifiers and, in the common part, widths and strides.
    ``target`` extends ``network``, of which ``stages`` exist, or all, as a whole if it has more cells and the same
    exits before the last cell of ``network``; else up to the last exit before which both have the same exits.
    """
    same = ("cell", "squeeze", "exit", "exit_reads", "cascade")
    if any(getattr(network, key) != getattr(target, key) for key in same):
        return None
    for key in ("input_shape", "classes"):
        values = getattr(network, key), getattr(target, key)
        if None not in values and values[0] != values[1]:
            return None
    dense = network.kind == "dense"
    if dense != (target.kind == "dense") or target.kind == "full":
        return None
    if any(config.cells != "seed" or config.exits_at is not None for config in (network, target)):
        return None
    built, deeper = architecture(network), architecture(target)
    if built.width != deeper.width:
        return None
    pairs = zip(built.cells, deeper.cells, strict=False)
    alike = next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(built.cells), len(deeper.cells)))
    ends, target_ends = _ends(network), _ends(target)
    cells = len(network.structure)
    grown = stages is None or stages > len(ends)
    head = network.final or "average"
    reads = head == target.exit or (target.exit == "mixed" and head in POOLING_SHARE)
    reads = reads and target.exit_reads == "activation"  # as every final classifier does
    longer = len(target.structure) > cells and cells not in ends and alike == cells
    # In a cascade the last exit adds to the others, and could not be dropped.
    chain = not dense and not network.cascade
    if grown and reads and longer and chain and [end for end in target_ends if end < cells] == ends:
        return Overlap(cells, len(ends), True)
    exits = 0
    for one, other in zip(ends if grown else ends[:stages], target_ends, strict=False):
        if one != other or one > alike:
            break
        exits += 1
    return Overlap(ends[exits - 1], exits, False) if exits else None


def extend(network: Network, config: NetworkConfig, seed: int | None = None, images: Tensor | None = None) -> Extension:
    """A network of ``config``, with all its stages, that starts from ``network``, which stays as it is.

    It copies the weights and batch norms of the cells and exits in :func:`overlap`. Each further stage grows as an
    identity where it can (:func:`ramify.ops.growing.grow.can_keep`), so that its exit answers what the one before it
    answers, else with random weights. Masks are dropped: masked weights start at zero and may learn.

    Args:
        network: one whose widths are those of its configuration.
        config: of the deeper network.
        seed: seed of the new weights.
        images: pictures ``[B, C, H, W]`` in [0, 1], as for :func:`ramify.ops.growing.grow.grow`.

    Raises:
        InputError: ``config`` does not extend that of ``network``, or ``network`` was compacted or widened.
    """
    common = overlap(network.config, config, len(network.stages))
    if common is None:
        raise InputError(
            f"network.structure: got {list(config.structure)}; accepted: one that extends "
            f"{list(network.config.structure)} up to an exit, with the same kind of cells, as many channels and the "
            "same internal classifiers"
        )
    if network.plans != plan(network.config):
        raise InputError("extend: got a network that was compacted or widened; accepted: widths as configured")
    structure = list(config.structure)
    if common.whole:
        structure[common.cells - 1] = 1  # the final classifier of the other network, as an exit at first
    kind = "dense" if config.kind == "dense" else "iterative"
    grown = config.model_copy(update={"structure": tuple(structure), "kind": kind})
    deeper = Network(grown, stages=common.exits + common.whole, seed=seed)
    cells = cell_names(network)[: common.cells]
    exits = {name: name for name in (f"stages.{i}.exit" for i in range(common.exits))}
    own_cells = dict(zip(cell_names(deeper), cells, strict=False))
    copy_parts(network, deeper, {"mean": "mean", "std": "std", "stem": "stem", **own_cells, **exits})
    for layer in masked_layers(deeper).values():
        layer.mask.fill_(True)
    if common.whole:
        _copy_last_exit(network.stages[common.exits], deeper.stages[common.exits])
    deeper.to(network.mean.device).train(network.training)
    while not deeper.complete:
        grow(deeper, init="random" if can_keep(deeper) else "identity", seed=seed, images=images)
    dropped = common.exits if common.whole and not config.structure[common.cells - 1] else None
    whole = with_exits(deeper, config, [i for i in range(len(deeper.stages)) if i != dropped], seed)
    if common.whole and dropped is None:
        exits[f"stages.{common.exits}.exit"] = f"stages.{common.exits}.exit"
    return Extension(whole, common, {"stem": "stem", **dict(zip(cell_names(whole), cells, strict=False)), **exits})


def _ends(config: NetworkConfig) -> list[int]:
    """How many cells stand before each internal classifier."""
    if config.kind == "full":
        return []
    return [cells for cells, carries in enumerate(config.structure, start=1) if carries]


def _copy_last_exit(old: nn.Module, new: nn.Module) -> None:
    before, after = old.get_submodule("exit"), new.get_submodule("exit")
    with torch.no_grad():
        state = before.state_dict()
        for key, value in after.state_dict().items():
            if key != "share" and not key.endswith("mask"):
                value.copy_(state[key])
        if isinstance(before, PooledHead) and isinstance(after, PooledHead) and after.fixed is None:
            after.share.copy_(before.share if before.fixed is None else torch.tensor(before.fixed))
