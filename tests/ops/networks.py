"""Small networks that tests share, and what tests say of their channels: the cell, the kind, what stands on the way."""

from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ramify.config.rules import NetworkConfig
from ramify.nn.cells import CELLS, CellPlan, output_size
from ramify.nn.exit import GRID, ONE_PIXEL
from ramify.nn.graph import ChannelGroup, Places
from ramify.nn.masked import MaskedConv2d, MaskedLinear, masked_layers
from ramify.nn.network import Network, StagePlan, existing_cells
from ramify.ops.pruning.channels import owner

KINDS = ("dense", "iterative", "full_ic", "full")


def build(
    kind: str, structure: tuple[int, ...] = (0, 1, 0, 1, 0), stages: int | None = None, cell: str = "basic"
) -> Network:
    """A network whose batch norms have the statistics and scales of one that was trained."""
    config = NetworkConfig.model_validate(
        {"kind": kind, "cell": cell, "structure": structure, "channels": 3, "input_shape": (1, 8, 8), "classes": 2}
    )
    network = Network(config, stages=config.exits if stages is None else stages, seed=0)
    shake(network, 0)
    return network.eval()


def shake(network: nn.Module, seed: int) -> None:
    """Random batch norms and biases, so that nothing vanishes by chance."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                for parameter in module.parameters():
                    parameter.normal_(generator=draw)
                module.running_mean.normal_(generator=draw)
                module.running_var.uniform_(0.5, 2, generator=draw)
            elif isinstance(module, MaskedConv2d | MaskedLinear) and module.bias is not None:
                module.bias.normal_(generator=draw)


Spec = tuple[str, int, int]
"""A cell by its type, the channels it gives, and its stride; "skip_second+" is one that projects, and "compact~" one
with squeeze-and-excitation."""

STEMS = {"block": ("seed", 3), "convolution": ("wideresnet32_4", 16), "none": ("lenet5", 2)}
"""``network.cells`` and the channels of each kind of stem; without one it is the pictures' own."""


def narrow(
    specs: Sequence[Spec],
    heads: Sequence[tuple[int, str]],
    stem: str = "block",
    side: int = 16,
    stages: int | None = None,
    dense: bool = False,
) -> Network:
    """A network of any cells, with everything a trained one has, in evaluation mode.

    Args:
        specs: its cells.
        heads: each by the number of cells before it, and its name; the last stands behind all cells.
        stem: a key of :data:`STEMS`.
        side: of the pictures, of two channels.
        stages: how many exist.
        dense: whether each cell reads all earlier ones.
    """
    cells, trunk = STEMS[stem]
    plans: list[StagePlan] = []
    height = width = side
    built: list[CellPlan] = []
    places = [place for place, _ in heads]
    for number, (name, out, stride) in enumerate(specs, start=1):
        kind = name.rstrip("+~")
        pooled = dense and stride != 1
        stride = 1 if pooled else stride
        projects = name.endswith("+") or (CELLS[kind].projecting and (trunk != out or stride != 1))
        inner = {"skip_second": out + projects, "separable": trunk, "grouped": 12}
        inner |= dict.fromkeys(("basic", "preactivation", "depthwise", "compact"), out + 1)
        squeeze = 2 if name.endswith("~") else 0
        plan = CellPlan(
            trunk, inner.get(kind, out), out, projects, kind, stride, height * width, squeeze=squeeze, pooled=pooled
        )
        height, width = output_size(plan, height, width)
        built.append(plan)
        trunk = trunk + out if dense else out
        if number in places[:-1]:
            plans.append(stage(built, out, heads[len(plans)][1], height))
            built = []
    plans.append(stage(built, trunk, heads[-1][1], height, final=True))
    config = NetworkConfig.model_validate(
        {"kind": "dense" if dense else "iterative", "cells": cells, "channels": 3, "structure": (1,) * len(plans)}
        | {"input_shape": (2, side, side), "classes": 3}
    )
    network = Network(config, stages=len(plans) if stages is None else stages, seed=0, plans=tuple(plans))
    shake(network, 0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("share"):
                parameter.fill_(0.3)
    network.set_normalization([0.4, 0.6], [0.2, 0.3])
    return network.eval()


def stage(cells: Sequence[CellPlan], read: int, head: str, side: int, final: bool = False) -> StagePlan:
    grid = 1 if head in ONE_PIXEL else min(GRID, side)
    return StagePlan(tuple(cells), read, final, (grid, grid), head)


NARROW: dict[str, tuple[list[Spec], list[tuple[int, str]], str, int]] = {
    "basic": (
        [("basic", 3, 1), ("basic", 4, 2), ("basic", 5, 2), ("basic", 5, 1)],
        [(1, "mixed"), (2, "normed"), (4, "average")],
        "block",
        16,
    ),
    "preactivation": (
        [("preactivation", 4, 1), ("preactivation", 4, 1), ("preactivation", 5, 2)],
        [(2, "average"), (3, "normed")],
        "convolution",
        8,
    ),
    "plain": (
        [("plain", 4, 1), ("plain", 5, 2), ("plain", 3, 1)],
        [(1, "mixed"), (2, "normed"), (3, "max")],
        "block",
        9,
    ),
    "separable": (
        [("separable", 4, 1), ("separable", 5, 2), ("separable", 4, 1)],
        [(1, "mixed"), (2, "normed"), (3, "average")],
        "block",
        9,
    ),
    "unpadded": (
        [("unpadded", 4, 1), ("unpadded", 5, 1), ("linear", 6, 1)],
        [(1, "max"), (2, "mixed"), (3, "average")],
        "none",
        20,
    ),
    "linear": ([("linear", 6, 1), ("linear", 5, 1)], [(1, "normed"), (2, "average")], "none", 8),
    "skip_second": ([("skip_second+", 4, 1), ("skip_second", 4, 1)], [(1, "mixed"), (2, "average")], "block", 8),
    "depthwise": (
        [("depthwise", 3, 1), ("depthwise~", 4, 2), ("depthwise", 5, 2), ("depthwise~", 5, 1)],
        [(1, "global"), (2, "conv"), (4, "average")],
        "block",
        9,
    ),
    "grouped": (
        [("grouped", 3, 1), ("grouped~", 4, 2), ("grouped", 5, 2)],
        [(1, "global"), (2, "normed"), (3, "conv")],
        "block",
        8,
    ),
    "compact": (
        [("compact", 3, 1), ("compact~", 4, 2), ("compact", 5, 2), ("compact~", 5, 1)],
        [(1, "conv"), (2, "normed"), (4, "global")],
        "block",
        9,
    ),
    "motley": (
        [
            ("plain", 4, 1),
            ("separable", 5, 2),
            ("basic", 5, 1),
            ("preactivation", 4, 2),
            ("separable", 4, 1),
            ("plain", 5, 1),
            ("skip_second+", 5, 1),
            ("compact", 4, 1),
            ("depthwise~", 5, 1),
            ("linear", 6, 1),
        ],
        [(1, "mixed"), (2, "average"), (6, "normed"), (10, "average")],
        "convolution",
        16,
    ),
}
"""A small chain for every type of cell, and one of nearly all of them."""

every_narrow = pytest.mark.parametrize("name", list(NARROW))


def chain(name: str, stages: int | None = None) -> Network:
    """One of :data:`NARROW`."""
    specs, heads, stem, side = NARROW[name]
    return narrow(specs, heads, stem, side, stages)


def pictures_for(network: Network, number: int = 4) -> Tensor:
    assert network.config.input_shape is not None
    return torch.rand(number, *network.config.input_shape, generator=torch.Generator().manual_seed(1))


structures = st.lists(st.integers(0, 1), min_size=1, max_size=5).map(tuple)


class Norm(NamedTuple):
    """The place of a channel in a batch norm."""

    name: str
    place: int


def kind_of(group: ChannelGroup) -> str:
    """Whether only the cell that makes a group reads it: ``inner`` or ``output``."""
    cell = f"{owner(group)}."
    return "inner" if all(place.name.startswith(cell) for place in group.readers) else "output"


def index_of(group: ChannelGroup) -> int:
    """The row of its makers that makes a group of a single channel."""
    rows = {row for place in group.makers for row in place.at}
    assert len(rows) == 1, group
    return rows.pop()


def norms(group: ChannelGroup) -> list[Norm]:
    """The batch norms behind the layers that make a channel, before anything else."""
    return [norm for norm in _norms(group) if _is_own(group, norm)]


def relays(group: ChannelGroup) -> list[Norm]:
    """The other batch norms on the way to its readers: those behind a depthwise convolution, or of a reader."""
    return [norm for norm in _norms(group) if not _is_own(group, norm)]


def _norms(group: ChannelGroup) -> list[Norm]:
    return [
        Norm(vector.name.rpartition(".")[0], place)
        for vector in group.vectors
        if vector.name.endswith("running_mean")
        for place in vector.at
    ]


def _is_own(group: ChannelGroup, norm: Norm) -> bool:
    filters = {place.name for place in group.filters}
    return norm.name.startswith(f"{owner(group)}.") and norm.name.replace("norm", "conv") not in filters


def filtered(group: ChannelGroup) -> bool:
    """Whether every reader gets a channel through a depthwise convolution, which stands right before it."""
    cells = {place.name.rpartition(".")[0] for place in group.filters}
    names = {place.name for place in group.filters}

    def behind(reader: Places) -> bool:
        cell, _, name = reader.name.rpartition(".")
        if name == "reduce":
            return cell.removesuffix(".squeeze") in cells
        return name.startswith("conv") and name != "conv" and f"{cell}.conv{int(name[4:]) - 1}" in names

    return all(map(behind, group.readers))


def rectified(network: Network, group: ChannelGroup) -> bool:
    """Whether a channel passes a ReLU before anything reads it."""
    types = {name: cell.type for _, name, cell in existing_cells(network)}
    if types[owner(group)] == "pooling":  # GELU throughout
        return False
    return kind_of(group) == "inner" or types[owner(group)] not in ("preactivation", "compact")


def biased(network: nn.Module, group: ChannelGroup) -> list[Norm]:
    """The layers with a bias that make a channel, with its place there.

    On a map of one pixel the factors of a squeeze look like channels, and what makes them counts as a maker too.
    """
    layers = masked_layers(network)
    makers = [place for place in group.makers if not place.name.endswith("squeeze.expand")]
    return [Norm(place.name, place.at[0]) for place in makers if layers[place.name].bias is not None]


def shout(network: nn.Module, group: ChannelGroup) -> None:
    """Let a channel give something else, by what makes it."""
    shifted = [*norms(group), *biased(network, group)]
    for name, place in shifted:
        network.get_submodule(name).get_parameter("bias").data[place] += 10
    if not shifted:
        for name, at, _ in group.makers:
            masked_layers(network)[name].weight.data[list(at)] *= -3


def without_makers(network: nn.Module, lost: Sequence[ChannelGroup]) -> dict[str, Tensor]:
    """The masks without the weights that make the channels in ``lost``, as when single weights are pruned."""
    masks = {name: layer.mask.clone() for name, layer in masked_layers(network).items()}
    for group in lost:
        for name, at, _ in group.makers:
            masks[name][list(at)] = False
    return masks


def last_cell(network: Network, stage: int | None = None) -> str:
    """The name of the last cell of a stage; by default of the last that exists."""
    at = len(network.stages) - 1 if stage is None else stage
    return f"stages.{at}.cells.{len(network.plans[at].cells) - 1}"
