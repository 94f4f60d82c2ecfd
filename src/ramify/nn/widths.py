"""Which channels the plans of a network can lose or gain, read off the network that they grow to.

A plan has one number for the inner channels of a cell and one for its outputs, so not every group of channels can go:
what an identity shortcut carries stays, and so do the outputs of the stem and inner channels of more than one kind.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ramify.config import NetworkConfig
from ramify.nn.cells import CELLS, CellPlan
from ramify.nn.graph import ChannelGroup, Places, channel_graph

if TYPE_CHECKING:
    from ramify.nn.network import Network, StagePlan


@dataclass(frozen=True)
class CellGroups:
    """The groups of channels that the layers of one cell make.

    Attributes:
        inner: those that only the cell itself reads, in order.
        outputs: the others.
        own: whether the cell has inner channels at all, be they removable or not.
    """

    inner: tuple[ChannelGroup, ...] = ()
    outputs: tuple[ChannelGroup, ...] = ()
    own: bool = False


def cell_groups(network: "Network") -> dict[str, CellGroups]:
    """For each cell of the network that ``network`` grows to, by name, the groups that its plan can lose."""
    return _cell_groups(network.config, network.plans)


@functools.lru_cache(maxsize=64)
def _cell_groups(config: NetworkConfig, plans: "tuple[StagePlan, ...]") -> dict[str, CellGroups]:
    from ramify.nn.network import Network

    with torch.device("meta"):  # shapes are all that counts
        network = Network(config, stages=len(plans), plans=plans)
    graph = channel_graph(network, network.blank(2))
    made: defaultdict[str, list[ChannelGroup]] = defaultdict(list)
    for group in graph.groups:
        cells = {_cell(name) for name in group.space}
        if len(cells) == 1:
            made[cells.pop()].append(group)
    plan_of = dict(zip(cell_names(plans), [cell for stage in plans for cell in stage.cells], strict=True))
    return {name: _sorted(network, name, plan, made[name]) for name, plan in plan_of.items()}


def _sorted(network: "Network", cell: str, plan: CellPlan, groups: Sequence[ChannelGroup]) -> CellGroups:
    inner: list[ChannelGroup] = []
    outputs: list[ChannelGroup] = []
    for group in groups:
        inside = all(_cell(place.name) == cell for place in (*group.readers, *group.filters))
        (inner if inside else outputs).append(group)
    spaces = {group.space: group for group in inner if _can_go(group)}
    counted = {space for space, group in spaces.items() if _is_inner(network, cell, plan, group)}
    lost = tuple(group for group in inner if group.space in counted and _can_go(group))
    return CellGroups(lost, tuple(filter(_can_go, outputs)), bool(inner))


def _can_go(group: ChannelGroup) -> bool:
    return not group.carried and all(len(place.at) == 1 for place in group.makers)


def _is_inner(network: "Network", name: str, plan: CellPlan, group: ChannelGroup) -> bool:
    """Whether the cell of a plan with one inner channel more has one more of the channels of ``group``."""
    shapes = {key: list(value.shape) for key, value in network.get_submodule(name).state_dict().items()}
    for (tensor, dim), places in cuts([group]).items():
        key = tensor.removeprefix(f"{name}.")
        if key in shapes:
            shapes[key][dim] += len(places)
    with torch.device("meta"):
        more = CELLS[plan.type](replace(plan, inner_channels=plan.inner_channels + 1))
    return shapes == {key: list(value.shape) for key, value in more.state_dict().items()}


def _cell(name: str) -> str:
    """The name of the cell that a layer is in: ``stages.1.cells.0`` of ``stages.1.cells.0.conv1``."""
    parts = name.split(".")
    return ".".join(parts[:4]) if parts[2:3] == ["cells"] else ""


def cell_names(plans: "Sequence[StagePlan]") -> list[str]:
    """The names of all cells, first to last."""
    return [f"stages.{stage}.cells.{i}" for stage, plan in enumerate(plans) for i in range(len(plan.cells))]


def existing_groups(network: "Network") -> tuple[ChannelGroup, ...]:
    """The groups that ``network`` can lose now: of stages that exist, with readers that exist."""

    def there(places: tuple[Places, ...]) -> tuple[Places, ...]:
        return tuple(
            place
            for place in places
            if not place.name.startswith("stages.") or int(place.name.split(".")[1]) < len(network.stages)
        )

    return tuple(
        replace(
            group,
            readers=there(group.readers),
            filters=there(group.filters),
            gates=there(group.gates),
            vectors=there(group.vectors),
        )
        for name, groups in cell_groups(network).items()
        if int(name.split(".")[1]) < len(network.stages)
        for group in (*groups.inner, *groups.outputs)
    )


def narrowed(network: "Network", lost: Sequence[ChannelGroup]) -> "tuple[StagePlan, ...]":
    """The plans of all stages, those to come included, once the channels in ``lost`` are gone."""
    makers = {group.makers for group in lost}
    left: dict[str, tuple[int, list[bool]]] = {}
    for name, groups in cell_groups(network).items():
        inner = sum(group.makers not in makers for group in groups.inner)
        left[name] = (inner if groups.inner else 0, [group.makers not in makers for group in groups.outputs])

    def cells(name: str, plan: CellPlan, trunk: list[bool]) -> tuple[CellPlan, list[bool]]:
        inner, outputs = left[name]
        outputs = outputs or [True] * plan.out_channels
        reads, gives = sum(trunk), sum(outputs)
        if inner == 0:
            own = cell_groups(network)[name].own
            inner = plan.inner_channels if own else CELLS[plan.type].inner_channels(reads, gives)
        return replace(plan, in_channels=reads, inner_channels=inner, out_channels=gives), outputs

    return _walked(network, cells)


def _walked(
    network: "Network", new: Callable[[str, CellPlan, list[bool]], tuple[CellPlan, list[bool]]]
) -> "tuple[StagePlan, ...]":
    """The plans with ``new`` cells: it gets a cell's name, plan and which channels of the trunk it reads are left."""
    trunk = [True] * network.trunk_channels
    plans: list[StagePlan] = []
    for index, stage in enumerate(network.plans):
        changed: list[CellPlan] = []
        for i, cell in enumerate(stage.cells):
            plan, outputs = new(f"stages.{index}.cells.{i}", cell, trunk)
            changed.append(plan)
            trunk = trunk + outputs if network.config.kind == "dense" else outputs
        read = sum(trunk[-stage.exit_channels :])
        plans.append(replace(stage, cells=tuple(changed), exit_channels=read))
    return tuple(plans)


def cuts(lost: Sequence[ChannelGroup]) -> Mapping[tuple[str, int], list[int]]:
    """For each tensor and dimension the places that go with the channels in ``lost``; masks go as weights do."""
    found: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for group in lost:
        for name, at, dim in (*group.makers, *group.gates, *group.filters, *group.readers):
            for tensor in ("weight", "mask"):
                found[f"{name}.{tensor}", dim].extend(at)
        for name, at, dim in group.vectors:
            found[name, dim].extend(at)
    return found
