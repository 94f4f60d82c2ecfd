"""Conversion: a copy of a network with other exits and the same cells."""

import copy
import itertools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import overload

from torch import Tensor, fx, nn

from ramify.config.rules import NetworkConfig
from ramify.errors import InputError
from ramify.nn.attached import Attached, AttachedStage
from ramify.nn.branching import Branching
from ramify.nn.network import Network, StagePlan, existing_cells, plan
from ramify.ops.cost import place_exits


def to_sdn(network: Network, config: NetworkConfig, seed: int | None = None) -> Network:
    """``network`` with internal classifiers where ``config`` has them: a Shallow-Deep Network (arXiv:1810.07052).

    A classifier at the same cell is kept; the others start with new weights. The answer of the last exit stays, to the
    last bit.

    Args:
        network: with all its stages.
        config: of the same cells, with another ``structure`` or ``exits_at``; its kind is ``full_ic``, or ``dense``
            as that of ``network``.
        seed: seed of the new weights.

    Raises:
        InputError: ``network`` is not complete, or its cells are not those of ``config``.

    Example:
        >>> bare = Network(NetworkConfig(kind="full", structure=(0,) * 4, input_shape=(1, 8, 8), classes=10))
        >>> config = bare.config.model_copy(update={"kind": "full_ic", "structure": (0, 1, 1, 0)})
        >>> len(to_sdn(bare, config).stages)
        3
    """
    config = place_exits(config)
    if config.cascade or (network.cascade and len(network.stages) > 1):
        raise InputError("network.cascade: got true; accepted: false, as an exit put in would add to those behind it")
    _same_cells(network, config)
    ends = itertools.accumulate(len(stage.cells) for stage in network.plans[: len(network.stages) - 1])
    at = {cells: exit_ for exit_, cells in enumerate(ends)}
    kept = [at.get(cells) for cells, carries in enumerate(config.structure, start=1) if carries]
    return with_exits(network, config, [*kept, len(network.stages) - 1], seed)


@overload
def to_cnn(network: Network) -> Network: ...
@overload
def to_cnn(network: Branching) -> Branching: ...


def to_cnn(network: Branching) -> Branching:
    """``network`` without internal classifiers; the answer of the last exit stays, to the last bit.

    Raises:
        InputError: ``network`` is not complete.

    Example:
        >>> network = Network(NetworkConfig(kind="full_ic", structure=(0, 1, 0), input_shape=(1, 8, 8), classes=10))
        >>> len(to_cnn(network).stages)
        1
    """
    if isinstance(network, Attached):
        return _last_exit(network)
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


def cut(network: Branching, exit: int) -> Branching:  # noqa: A002
    """``network`` up to its ``exit``-th exit, counted from 1, which becomes the final classifier.

    Raises:
        InputError: there is no such exit.

    Example:
        >>> network = Network(NetworkConfig(kind="full_ic", structure=(0, 1, 0), input_shape=(1, 8, 8), classes=10))
        >>> cut(network, 1).config.structure
        (0, 0)
    """
    if isinstance(network, Attached):
        if not 1 <= exit <= len(network.stages):
            raise InputError(f"cut: got exit {exit}; accepted: 1 to {len(network.stages)}, the exits of this network")
        small = copy.deepcopy(network)
        small.stages, small.points, small.pending = small.stages[:exit], small.points[: exit - 1], ()
        kept = (name for name in small.frozen_parameters if int(name.split(".")[1]) < exit)
        small.frozen_parameters = frozenset(kept)
        return small
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
    changes: dict[str, object] = {"structure": structure, "exits_at": None, "kind": kind}
    if config.cells == "seed" and any(config.strided):
        strides = config.strided[: len(structure)]
        changes["strides"] = strides
        if isinstance(config.channels, tuple):
            changes["channels"] = config.channels[: 1 + sum(strides)]
    return config.model_copy(update=changes)


def _same_cells(network: Network, config: NetworkConfig) -> None:
    if not network.complete:
        exits = network.config.exits
        raise InputError(f"convert: got a network with {len(network.stages)} of its {exits} stages; accepted: all")
    current = network.config
    if len(current.structure) != len(config.structure):
        raise InputError(
            f"network.structure: got {len(config.structure)} cells; accepted: {len(current.structure)}, as the network "
            "to convert has them"
        )
    for key in ("cells", "cell", "channels", "strided", "squeeze", "input_shape", "classes"):
        value, accepted = getattr(config, key), getattr(current, key)
        if value != accepted:
            name = "strides" if key == "strided" else key
            raise InputError(f"network.{name}: got {value}; accepted: {accepted}, as the network to convert has it")
    if (current.kind == "dense") != (config.kind == "dense"):
        raise InputError(f"network.kind: got {config.kind}; accepted: one with the wiring of {current.kind}")


def with_exits(network: Network, config: NetworkConfig, sources: Sequence[int | None], seed: int | None) -> Network:
    """A network of ``config`` with the cells of ``network``; each exit is one of its exits, by index, or new (None)."""
    cells = [cell for stage in network.plans for cell in stage.cells]
    plans: list[StagePlan] = []
    done = 0
    for stage, source in zip(plan(config), sources, strict=True):
        own = tuple(cells[done : done + len(stage.cells)])
        done += len(own)
        reads = (stage if source is None else network.plans[source]).cells[-1:]
        if own:
            sums = (*(False,) * (len(own) - 1), any(cell.gives_sum for cell in reads))
            own = tuple(replace(cell, gives_sum=gives) for cell, gives in zip(own, sums, strict=True))
        if source is None:
            # What the last cell gives, as compaction left it.
            channels = cells[done - 1].out_channels if done else stage.exit_channels
            plans.append(replace(stage, cells=own, exit_channels=channels))
            continue
        old = network.plans[source]
        head = old.head_name(network.config.exit)
        head_of_plan = stage.head if head == stage.head_name(config.exit) else head
        plans.append(StagePlan(own, old.exit_channels, stage.final, old.grid, head_of_plan))
    converted = Network(config, stages=len(plans), seed=seed, plans=tuple(plans)).to(network.mean.device)
    prefixes = {"stem": "stem", "mean": "mean", "std": "std"}
    prefixes |= dict(zip(cell_names(converted), cell_names(network), strict=False))
    prefixes |= {f"stages.{i}.exit": f"stages.{source}.exit" for i, source in enumerate(sources) if source is not None}
    copy_parts(network, converted, prefixes)
    return converted.train(network.training)


def copy_parts(source: nn.Module, target: nn.Module, prefixes: Mapping[str, str]) -> None:
    """Copy tensors of ``source`` to ``target``, by the prefix of their names in ``target`` and that in ``source``."""
    state: dict[str, Tensor] = target.state_dict()
    tensors = source.state_dict()
    for new, old in prefixes.items():
        for key in state:
            if key == new or key.startswith(f"{new}."):
                state[key] = tensors[old + key.removeprefix(new)]
    target.load_state_dict(state, strict=True)


def cell_names(network: Network) -> list[str]:
    """The names of the cells that exist, first to last."""
    return [name for _, name, _ in existing_cells(network)]


def _last_exit(network: Attached) -> Attached:
    """A copy of ``network`` with its layers in one stage, and the last exit alone.

    Layers of one module keep their names. Stages of :func:`ramify.branches`, which have names in common, do not.
    """
    if not network.complete:
        raise InputError(f"cut: got a network of {len(network.stages)} stages, to which others are to come")
    small = copy.deepcopy(network)
    stages = [stage for stage in small.stages if isinstance(stage, AttachedStage)]
    layers: dict[str, object] = {}
    graph = fx.Graph()
    trunk = graph.placeholder("trunk")
    for at, body in enumerate(stage.body for stage in stages):
        [entry] = [node for node in body.graph.nodes if node.op == "placeholder"]
        copies = {entry: trunk}
        output = graph.graph_copy(body.graph, copies)
        for node, copied in copies.items():
            if node.op in ("call_module", "get_attr"):
                old = str(node.target)
                copied.target = new = old if network.points or old == "training" else f"stage{at}.{old}"
                layers[new] = operator.attrgetter(old)(body)
        assert isinstance(output, fx.Node)
        trunk = output
    graph.output(trunk)
    joined = AttachedStage(fx.GraphModule(layers, graph, "Body"), stages[-1].exit)
    small.stages = nn.ModuleList([joined.train(network.training)])
    small.points = ()
    places = (name.split(".", 3) for name in network.frozen_parameters)
    small.frozen_parameters = frozenset(
        f"stages.0.body.{rest if network.points else f'stage{at}.{rest}'}"
        for _, at, part, rest in places
        if part == "body"
    )
    return small.train(network.training)
