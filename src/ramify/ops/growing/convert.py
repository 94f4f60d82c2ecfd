"""Conversion: the cells of a network stay as they are, and its exits come and go.

Every function returns a new network with copies of the tensors; the one it is given stays as it is.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import overload

from ramify.config.rules import NetworkConfig
from ramify.errors import InputError
from ramify.nn.attached import Attached
from ramify.nn.branching import Branching
from ramify.nn.cells import CellPlan
from ramify.nn.network import Network, StagePlan, existing_cells, plan
from ramify.ops.cost import place_exits
from ramify.ops.growing.trim import first_exits, last_exit


def to_sdn(network: Network, config: NetworkConfig, seed: int | None = None) -> Network:
    """``network`` with internal classifiers where ``config`` has them: a Shallow-Deep Network (arXiv:1810.07052).

    A classifier that stands at the same cell already is kept; the others start with fresh weights. The answer of the
    last exit does not change by a bit.

    Args:
        network: with all its stages.
        config: of the same cells, with another ``structure`` or ``exits_at``; its kind is ``full_ic``, or ``dense``
            as that of ``network``.
        seed: seed of the fresh weights.

    Raises:
        InputError: ``network`` is not complete, or its cells are not those of ``config``.

    Example:
        >>> bare = Network(NetworkConfig(kind="full", structure=(0,) * 4, input_shape=(1, 8, 8), classes=10))
        >>> wanted = bare.config.model_copy(update={"kind": "full_ic", "structure": (0, 1, 1, 0)})
        >>> len(to_sdn(bare, wanted).stages)
        3
    """
    config = place_exits(config)
    if config.cascade or (network.cascade and len(network.stages) > 1):
        raise InputError("network.cascade: got true; accepted: false, as an exit put in would add to those behind it")
    _same_cells(network, config)
    at = {cells: exit_ for exit_, cells in enumerate(_exit_cells(network)[:-1])}
    kept = [at.get(cells) for cells, carries in enumerate(config.structure, start=1) if carries]
    return with_exits(network, config, [*kept, len(network.stages) - 1], seed)


@overload
def to_cnn(network: Network) -> Network: ...
@overload
def to_cnn(network: Branching) -> Branching: ...


def to_cnn(network: Branching) -> Branching:
    """``network`` without internal classifiers; it answers what the last exit answered, to the last bit.

    Raises:
        InputError: ``network`` is not complete.

    Example:
        >>> network = Network(NetworkConfig(kind="full_ic", structure=(0, 1, 0), input_shape=(1, 8, 8), classes=10))
        >>> len(to_cnn(network).stages)
        1
    """
    if isinstance(network, Attached):
        return last_exit(network)
    if not isinstance(network, Network):
        raise _unknown(network)
    config = bare_config(network.config)
    _same_cells(network, config)
    if network.cascade and len(network.stages) > 1:
        raise InputError("network.cascade: got true; accepted: false, as the last exit adds to those before it")
    return with_exits(network, config, [len(network.stages) - 1], None)


@overload
def cut(network: Network, exit: int) -> Network: ...
@overload
def cut(network: Branching, exit: int) -> Branching: ...


def cut(network: Branching, exit: int) -> Branching:  # noqa: A002 - the word for it
    """``network`` up to its ``exit``-th exit, counted from 1, which becomes the final classifier.

    Raises:
        InputError: there is no such exit.

    Example:
        >>> network = Network(NetworkConfig(kind="full_ic", structure=(0, 1, 0), input_shape=(1, 8, 8), classes=10))
        >>> cut(network, 1).config.structure
        (0, 0)
    """
    if isinstance(network, Attached):
        return first_exits(network, exit)
    if not isinstance(network, Network):
        raise _unknown(network)
    return with_exits(network, cut_config(network.config, exit, len(network.stages)), list(range(exit)), None)


def _unknown(network: Branching) -> InputError:
    return InputError(
        f"network: got a {type(network).__name__}; accepted: one of a configuration, or of ramify.attach_exits"
    )


def bare_config(config: NetworkConfig) -> NetworkConfig:
    """``config`` without internal classifiers."""
    kind = "dense" if config.kind == "dense" else "full"
    structure = (0,) * len(config.structure)
    return config.model_copy(update={"kind": kind, "structure": structure, "exits_at": None, "cascade": False})


def cut_config(config: NetworkConfig, exit: int, exits: int) -> NetworkConfig:  # noqa: A002
    """``config`` of a network that ends at its ``exit``-th of ``exits`` exits.

    Raises:
        InputError: there is no such exit.
    """
    if not 1 <= exit <= exits:
        raise InputError(f"cut: got exit {exit}; accepted: 1 to {exits}, the exits of this network")
    if exit == config.exits:
        return config
    ends = [cells for cells, carries in enumerate(config.structure, start=1) if carries]
    structure = (*config.structure[: ends[exit - 1] - 1], 0)
    kind = "full" if exit == 1 and config.kind != "dense" else config.kind
    found: dict[str, object] = {"structure": structure, "exits_at": None, "kind": kind}
    if config.cells == "seed" and any(config.strided):
        strides = config.strided[: len(structure)]
        found["strides"] = strides
        if isinstance(config.channels, tuple):
            found["channels"] = config.channels[: 1 + sum(strides)]
    return config.model_copy(update=found)


def _same_cells(network: Network, config: NetworkConfig) -> None:
    if not network.complete:
        exits = network.config.exits
        raise InputError(f"convert: got a network with {len(network.stages)} of its {exits} stages; accepted: all")
    told = network.config
    if len(told.structure) != len(config.structure):
        raise InputError(
            f"network.structure: got {len(config.structure)} cells; accepted: {len(told.structure)}, as the network "
            "to convert has them"
        )
    for key in ("cells", "cell", "channels", "strided", "squeeze", "input_shape", "classes"):
        if getattr(told, key) != getattr(config, key):
            found, wanted = getattr(config, key), getattr(told, key)
            name = "strides" if key == "strided" else key
            raise InputError(f"network.{name}: got {found}; accepted: {wanted}, as the network to convert has it")
    if (told.kind == "dense") != (config.kind == "dense"):
        raise InputError(f"network.kind: got {config.kind}; accepted: one with the wiring of {told.kind}")


def _exit_cells(network: Network) -> list[int]:
    """For each exit that exists, how many cells stand before it."""
    return list(itertools.accumulate(len(stage.cells) for stage in network.plans[: len(network.stages)]))


def with_exits(network: Network, config: NetworkConfig, sources: Sequence[int | None], seed: int | None) -> Network:
    """A network of ``config`` with the cells of ``network``; each exit is one of its own, by index, or fresh (None)."""
    cells = [cell for stage in network.plans for cell in stage.cells]
    plans: list[StagePlan] = []
    done = 0
    for stage, source in zip(plan(config), sources, strict=True):
        own = tuple(cells[done : done + len(stage.cells)])
        done += len(own)
        reads = (stage if source is None else network.plans[source]).cells[-1:]
        if own:
            sums = (*(False,) * (len(own) - 1), any(cell.gives_sum for cell in reads))
            own = tuple(replace(cell, gives_sum=each) for cell, each in zip(own, sums, strict=True))
        default = stage.head or ("average" if stage.final else config.exit)
        if source is None:
            plans.append(replace(stage, cells=own, exit_channels=_outputs(cells[:done], stage)))
            continue
        old = network.plans[source]
        head = old.head or ("average" if old.final else network.config.exit)
        plans.append(StagePlan(own, old.exit_channels, stage.final, old.grid, stage.head if head == default else head))
    converted = Network(config, stages=len(plans), seed=seed, plans=tuple(plans)).to(network.mean.device)
    prefixes = {"stem": "stem", "mean": "mean", "std": "std"}
    prefixes |= dict(zip(cell_names(converted), cell_names(network), strict=False))
    prefixes |= {f"stages.{i}.exit": f"stages.{source}.exit" for i, source in enumerate(sources) if source is not None}
    state, given = converted.state_dict(), network.state_dict()
    for new, old_name in prefixes.items():
        for key in state:
            if key == new or key.startswith(f"{new}."):
                state[key] = given[old_name + key.removeprefix(new)]
    converted.load_state_dict(state, strict=True)
    return converted.train(network.training)


def _outputs(cells: Sequence[CellPlan], stage: StagePlan) -> int:
    """Channels that a fresh internal classifier reads: the outputs of the last cell, as compaction left them."""
    return cells[-1].out_channels if cells else stage.exit_channels


def cell_names(network: Network) -> list[str]:
    """The names of the cells that exist, first to last."""
    return [name for _, name, _ in existing_cells(network)]
