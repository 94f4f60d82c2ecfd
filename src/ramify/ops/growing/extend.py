"""Extension: a deeper network that begins as a shallower one that has learned already.

Net2Net (arXiv:1511.05641) starts a network from another one in this way; here the two have exits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ramify.config.rules import NetworkConfig
from ramify.errors import InputError
from ramify.nn.exit import PooledHead
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network, architecture, plan
from ramify.ops.growing.convert import cell_names, with_exits
from ramify.ops.growing.grow import can_keep, grow

POOLING_SHARE = {"average": 0.0, "max": 1.0}
"""What a mixed exit's share of max pooling must be for it to do what these do."""


@dataclass(frozen=True)
class Overlap:
    """What a network can take over from another one.

    Attributes:
        cells: how many of the first cells.
        exits: how many of the first exits.
        whole: whether these are all cells of the other network, whose final classifier then answers behind them.
    """

    cells: int
    exits: int
    whole: bool


@dataclass(frozen=True)
class Extension:
    """A network that began as another one.

    Attributes:
        network: the deeper network, with all its stages.
        overlap: what it took over.
        names: the prefix of the names of each part that was taken over, and that of the same part in the other network.
    """

    network: Network
    overlap: Overlap
    names: dict[str, str]


def overlap(network: NetworkConfig, wanted: NetworkConfig, stages: int | None = None) -> Overlap | None:
    """What a network of ``wanted`` can take over from one of ``network``; None if its structure does not extend it.

    Both are made of cells of the seed, alike in type, wiring and internal classifiers, and so far as their widths and
    strides are the same. ``wanted`` extends
    ``network`` as a whole if it has the same exits before the last cell of ``network``, and more cells; else it may
    extend it up to one of its exits, the last one at which both carry the same exits.

    Args:
        network: of the shallower network.
        wanted: of the deeper one.
        stages: how many stages of the shallower exist; None for all.

    Example:
        >>> short, long = NetworkConfig(structure=(0, 1, 0)), NetworkConfig(structure=(0, 1, 0, 0, 1, 0))
        >>> overlap(short, long)
        Overlap(cells=3, exits=1, whole=True)
        >>> overlap(long, NetworkConfig(structure=(0, 1, 0, 1, 0)))
        Overlap(cells=2, exits=1, whole=False)
        >>> overlap(short, NetworkConfig(structure=(1, 0, 0))) is None
        True
    """
    same = ("cell", "squeeze", "exit", "exit_reads", "cascade")
    if any(getattr(network, key) != getattr(wanted, key) for key in same):
        return None
    for key in ("input_shape", "classes"):
        if None not in (here := (getattr(network, key), getattr(wanted, key))) and here[0] != here[1]:
            return None
    odd = [each for each in (network, wanted) if each.cells != "seed" or each.exits_at is not None]
    dense = [each.kind == "dense" for each in (network, wanted)]
    if odd or dense[0] != dense[1] or wanted.kind == "full":
        return None
    built, deeper = architecture(network), architecture(wanted)
    if built.width != deeper.width:
        return None
    pairs = zip(built.cells, deeper.cells, strict=False)
    alike = next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(built.cells), len(deeper.cells)))
    ends, there = _ends(network), _ends(wanted)
    cells = len(network.structure)
    grown = stages is None or stages > len(ends)
    head = network.final or "average"
    reads = head == wanted.exit or (wanted.exit == "mixed" and head in POOLING_SHARE)
    reads = reads and wanted.exit_reads == "activation"  # as every final classifier does
    longer = len(wanted.structure) > cells and cells not in ends and alike == cells
    # In a cascade the last exit adds to the others, and could not be dropped.
    chain = not dense[0] and not network.cascade
    if grown and reads and longer and chain and [end for end in there if end < cells] == ends:
        return Overlap(cells, len(ends), True)
    exits = 0
    for one, other in zip(ends if grown else ends[:stages], there, strict=False):
        if one != other or one > alike:
            break
        exits += 1
    return Overlap(ends[exits - 1], exits, False) if exits else None


def extend(network: Network, config: NetworkConfig, seed: int | None = None, images: Tensor | None = None) -> Extension:
    """A network of ``config``, with all its stages, that begins as ``network``, which stays as it is.

    It takes over weights and batch norms of the cells and exits that :func:`overlap` tells. The rest grows on them,
    each stage as an identity where it can be one (:func:`ramify.ops.growing.grow.can_keep`), else with random weights:
    the exits behind the last one taken over answer what that one answers. Pruning is undone: weights that were masked
    start at zero and may learn.

    Args:
        network: one whose widths are those of its configuration.
        config: of the deeper network.
        seed: seed of the fresh weights.
        images: pictures ``[B, C, H, W]`` in [0, 1], as for :func:`ramify.ops.growing.grow.grow`.

    Raises:
        InputError: ``config`` does not extend that of ``network``, or ``network`` was compacted or widened.

    Example:
        >>> short = NetworkConfig(kind="full_ic", structure=(1, 0), final="mixed", input_shape=(1, 8, 8), classes=10)
        >>> small, pictures = Network(short).eval(), torch.rand(5, 1, 8, 8)
        >>> large = extend(small, short.model_copy(update={"structure": (1, 0, 0, 1, 0)})).network.eval()
        >>> torch.equal(large(pictures)[-1], small(pictures)[-1])
        True
    """
    found = overlap(network.config, config, len(network.stages))
    if found is None:
        told = list(network.config.structure)
        raise InputError(
            f"network.structure: got {list(config.structure)}; accepted: one that extends {told} up to an exit, with "
            "the same kind of cells, as many channels and the same internal classifiers"
        )
    if network.plans != plan(network.config):
        raise InputError("extend: got a network that was compacted or widened; accepted: widths as configured")
    structure = list(config.structure)
    if found.whole:
        structure[found.cells - 1] = 1  # the final classifier of the other network, as an exit for now
    kind = "dense" if config.kind == "dense" else "iterative"
    deeper = Network(
        config.model_copy(update={"structure": tuple(structure), "kind": kind}),
        stages=found.exits + found.whole,
        seed=seed,
    )
    cells = cell_names(network)[: found.cells]
    exits = {f"stages.{i}.exit": f"stages.{i}.exit" for i in range(found.exits)}
    _copy(network, deeper, {"mean": "mean", "std": "std", "stem": "stem", **_named(deeper, cells), **exits})
    if found.whole:
        _copy_last_exit(network.stages[found.exits], deeper.stages[found.exits])
    deeper.to(network.mean.device).train(network.training)
    while not deeper.complete:
        grow(deeper, init="random" if can_keep(deeper) else "identity", seed=seed, images=images)
    dropped = found.exits if found.whole and not config.structure[found.cells - 1] else None
    whole = with_exits(deeper, config, [i for i in range(len(deeper.stages)) if i != dropped], seed)
    if found.whole and dropped is None:
        exits[f"stages.{found.exits}.exit"] = f"stages.{found.exits}.exit"
    return Extension(whole, found, {"stem": "stem", **_named(whole, cells), **exits})


def _named(network: Network, cells: Sequence[str]) -> dict[str, str]:
    """The first cells of ``network`` by name, and which of ``cells`` each of them is."""
    return dict(zip(cell_names(network), cells, strict=False))


def _ends(config: NetworkConfig) -> list[int]:
    """How many cells stand before each internal classifier."""
    if config.kind == "full":
        return []
    return [cells for cells, carries in enumerate(config.structure, start=1) if carries]


def _copy(old: Network, new: Network, names: dict[str, str]) -> None:
    state, given = new.state_dict(), old.state_dict()
    for prefix, source in names.items():
        for key in state:
            if key == prefix or key.startswith(f"{prefix}."):
                state[key] = given[source + key.removeprefix(prefix)]
    new.load_state_dict(state, strict=True)
    for layer in masked_layers(new).values():
        layer.mask.fill_(True)


def _copy_last_exit(old: nn.Module, new: nn.Module) -> None:
    before, after = old.get_submodule("exit"), new.get_submodule("exit")
    assert isinstance(before, PooledHead)
    assert isinstance(after, PooledHead)
    with torch.no_grad():
        given = before.state_dict()
        for key, value in after.state_dict().items():
            if key != "share" and not key.endswith("mask"):
                value.copy_(given[key])
        if after.fixed is None:
            after.share.copy_(before.share if before.fixed is None else torch.tensor(before.fixed))
