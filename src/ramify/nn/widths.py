"""Which channels the plans of a network can lose or gain.

A plan has one number for the inner channels of a cell and one for its outputs, so not every group of channels can go:
those that an identity shortcut carries stay, and so do the outputs of the stem and inner channels of two kinds.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ramify.nn.branching import stage_of
from ramify.nn.cells import CELLS, CellPlan
from ramify.nn.graph import ChannelGraph, ChannelGroup, Places
from ramify.seeds import drawing

_Shapes = Mapping[str, torch.Size]
"""Of parameters and buffers, by name."""


@dataclass(frozen=True)
class CellGroups:
    """The groups of channels that the layers of one cell make: ``inner`` ones are read by the cell itself alone.

    Both tuples have the removable ones, in order; ``own`` is whether the cell has inner channels, removable or not.
    """

    inner: tuple[ChannelGroup, ...] = ()
    outputs: tuple[ChannelGroup, ...] = ()
    own: bool = False


def cell_groups(graph: ChannelGraph, plans: Mapping[str, CellPlan], shapes: _Shapes) -> dict[str, CellGroups]:
    """The groups that the plan of each cell can lose, by the name of the cell; ``shapes`` are of the whole network."""
    by_cell: defaultdict[str, list[ChannelGroup]] = defaultdict(list)
    for group in graph.groups:
        cells = {_cell(name) for name in group.space}
        if len(cells) == 1:
            by_cell[cells.pop()].append(group)
    return {name: _groups_of_cell(name, plan, by_cell[name], shapes) for name, plan in plans.items()}


def _groups_of_cell(cell: str, plan: CellPlan, groups: Sequence[ChannelGroup], shapes: _Shapes) -> CellGroups:
    inner: list[ChannelGroup] = []
    outputs: list[ChannelGroup] = []
    for group in groups:
        inside = all(_cell(place.name) == cell for place in (*group.readers, *group.filters))
        (inner if inside else outputs).append(group)
    spaces = {group.space: group for group in inner if _can_go(group)}
    counted = {space for space, group in spaces.items() if _is_inner(cell, plan, group, shapes)}
    lost = tuple(group for group in inner if group.space in counted and _can_go(group))
    return CellGroups(lost, tuple(filter(_can_go, outputs)), bool(inner))


def _can_go(group: ChannelGroup) -> bool:
    return not group.carried and all(len(place.at) == 1 for place in group.makers)


def _is_inner(name: str, plan: CellPlan, group: ChannelGroup, shapes: _Shapes) -> bool:
    """Whether the cell of a plan with one inner channel more has one more of the channels of ``group``."""
    wider = {key: list(shape) for key, shape in shapes.items() if key.startswith(f"{name}.")}
    for (tensor, dim), places in cuts([group]).items():
        if tensor in wider:
            wider[tensor][dim] += len(places)
    with drawing(0):  # only the shapes matter
        more = CELLS[plan.type](replace(plan, inner_channels=plan.inner_channels + 1))
    return wider == {f"{name}.{key}": list(value.shape) for key, value in more.state_dict().items()}


def _cell(name: str) -> str:
    """The name of the cell that a layer is in: ``stages.1.cells.0`` of ``stages.1.cells.0.conv1``."""
    parts = name.split(".")
    return ".".join(parts[:4]) if parts[2:3] == ["cells"] else ""


def existing_groups(cells: Mapping[str, CellGroups], stages: int) -> tuple[ChannelGroup, ...]:
    """The groups of the first ``stages``, without places in later ones."""

    def existing(places: tuple[Places, ...]) -> tuple[Places, ...]:
        return tuple(place for place in places if stage_of(place.name) < stages)

    return tuple(
        replace(
            group,
            readers=existing(group.readers),
            filters=existing(group.filters),
            gates=existing(group.gates),
            vectors=existing(group.vectors),
        )
        for name, groups in cells.items()
        if stage_of(name) < stages
        for group in (*groups.inner, *groups.outputs)
    )


def narrowed(
    plan: CellPlan, groups: CellGroups, trunk: Sequence[bool], lost: Sequence[ChannelGroup]
) -> tuple[CellPlan, list[bool]]:
    """The plan of a cell without the channels in ``lost``, and which of its outputs are left.

    ``trunk`` says which of its input channels are left, ``groups`` are those of the cell.
    """
    makers = {group.makers for group in lost}
    outputs = [group.makers not in makers for group in groups.outputs] or [True] * plan.out_channels
    inner = sum(group.makers not in makers for group in groups.inner)
    reads, gives = sum(trunk), sum(outputs)
    if not groups.inner:
        inner = plan.inner_channels if groups.own else CELLS[plan.type].inner_channels(reads, gives)
    return replace(plan, in_channels=reads, inner_channels=inner, out_channels=gives), outputs


def cuts(lost: Sequence[ChannelGroup]) -> Mapping[tuple[str, int], list[int]]:
    """The places along each dimension of each tensor that belong to the channels in ``lost``."""
    places: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for group in lost:
        for name, at, dim in (*group.makers, *group.gates, *group.filters, *group.readers):
            for tensor in ("weight", "mask"):
                places[f"{name}.{tensor}", dim].extend(at)
        for name, at, dim in group.vectors:
            places[name, dim].extend(at)
    return places


def cut_out(value: Tensor, dim: int, places: Sequence[int]) -> Tensor:
    """A tensor without ``places`` along a dimension; itself without any."""
    if not places:
        return value
    stays = torch.ones(value.shape[dim], dtype=torch.bool, device=value.device)
    stays[list(places)] = False
    return value.index_select(dim, stays.nonzero()[:, 0])
