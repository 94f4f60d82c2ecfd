"""Channels: which weights make and read each, counted from what the network computes and not from its plan."""

import copy
import itertools
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.config import NetworkConfig
from ramify.nn.cells import CELLS, CellPlan, output_size
from ramify.nn.cells.separable import DepthwiseCell
from ramify.nn.exit import EXITS, GRID, ONE_PIXEL, PooledHead, hidden_channels
from ramify.nn.masked import MaskedConv2d, MaskedLinear, masked_layers
from ramify.nn.network import Network, StagePlan
from ramify.ops.channels import (
    WIRING,
    Channel,
    Consumer,
    Part,
    Space,
    cell_width,
    channel_scores,
    channels,
    dead_trunk,
    head_parts,
    head_width,
    mask_channels,
    mask_dead_inputs,
    silence,
)
from ramify.ops.loss import exit_losses
from ramify.ops.surgery import parameter_groups, set_masks

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
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.weight.normal_(generator=draw)
                module.bias.normal_(generator=draw)
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


def outputs(network: Network) -> dict[str, Tensor]:
    """Every channel that a cell gives, by the cell's name and kind, for random pictures, ``[B, channels, H, W]``."""
    seen: dict[str, Tensor] = {}
    hooks = []
    for name, module in network.named_modules():
        if name.rpartition(".")[0].endswith("cells"):
            hooks.append(
                module.register_forward_hook(lambda _, __, out, name=name: seen.update({f"{name} output": out}))
            )
        elif name.endswith("conv3" if isinstance(owner(network, name), DepthwiseCell) else "conv2"):
            at = f"{name.rpartition('.')[0]} inner"
            hooks.append(module.register_forward_hook(lambda _, read, __, at=at: seen.update({at: read[0]})))
    with torch.no_grad():
        network(pictures_for(network))
    for hook in hooks:
        hook.remove()
    return seen


def owner(network: Network, name: str) -> nn.Module:
    return network.get_submodule(name.rpartition(".")[0])


structures = st.lists(st.integers(0, 1), min_size=1, max_size=5).map(tuple)


@given(kind=st.sampled_from(KINDS), structure=structures, data=st.data())
@settings(max_examples=12)
def test_the_channels_are_those_of_the_cells_in_order(
    kind: str, structure: tuple[int, ...], data: st.DataObject
) -> None:
    exits = 1 if kind == "full" else sum(structure) + 1
    stages = data.draw(st.integers(1, exits))
    network = build(kind, structure, stages)
    found = channels(network)
    expected = []
    first = True
    for index in range(stages):
        for i in range(len(network.plans[index].cells)):
            kinds = ["inner"] if first or kind != "dense" else ["inner", "output"]
            first = False
            expected += [(index, f"stages.{index}.cells.{i}", each, n) for each in kinds for n in range(3)]
    assert [(c.stage, c.cell, c.kind, c.index) for c in found] == expected
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("kind", KINDS)
def test_a_skip_second_cell_can_lose_none(kind: str) -> None:
    assert channels(build(kind, cell="skip_second")) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stages", [1, None])
def test_consumers_are_all_that_reads_a_channel_and_nothing_else(kind: str, stages: int | None) -> None:
    check_consumers(build(kind, stages=None if kind == "full" else stages))


@every_narrow
@pytest.mark.parametrize("stages", [1, None])
def test_consumers_are_all_that_reads_a_channel_of_any_cell(name: str, stages: int | None) -> None:
    check_consumers(chain(name, stages))


def check_consumers(network: Network) -> None:
    """With its consumers masked a channel may give anything; with one of them left, something changes."""
    pictures = pictures_for(network)
    before = copy.deepcopy(network.state_dict())
    twin = copy.deepcopy(network)

    def answers(channel: Channel, masked: tuple[Consumer, ...]) -> list[Tensor]:
        """The logits without what ``masked`` read: as it is, and when ``channel`` gives something else."""
        found = []
        for loud in (False, True):
            twin.load_state_dict(before)  # a new copy for each of them takes far longer
            if loud:
                shout(twin, channel)
            set_masks(twin, consumer_masks(twin, channel, masked))
            found.append(twin(pictures))
        return found

    with torch.inference_mode():
        for channel in channels(network):
            assert torch.equal(*answers(channel, channel.consumers)), channel
            for left in channel.consumers:
                others = tuple(consumer for consumer in channel.consumers if consumer != left)
                with pytest.MonkeyPatch.context() as patch:  # whatever is read shows, and is not lost in a ReLU
                    patch.setattr(F, "relu", F.leaky_relu)
                    assert not torch.equal(*answers(channel, others)), (channel, left)


def shout(network: Network, channel: Channel) -> None:
    """Let a channel give something else, by what makes it."""
    shifted = 0
    for name in (*channel.norms, *channel.producers):
        bias = network.get_submodule(name).bias
        if isinstance(bias, Tensor):
            bias.data[channel.index] += 10
            shifted += 1
    if not shifted:
        for name in channel.producers:
            masked_layers(network)[name].weight.data[channel.index] *= -3


def consumer_masks(network: Network, channel: Channel, consumers: tuple[Consumer, ...]) -> dict[str, Tensor]:
    layers, masks = masked_layers(network), dict[str, Tensor]()
    for consumer in consumers:
        assert consumer in channel.consumers
        mask = masks.setdefault(consumer.layer, layers[consumer.layer].mask.clone())
        mask[:, consumer.start : consumer.end] = False
    return masks


@pytest.mark.parametrize("kind", KINDS)
def test_producers_are_all_that_makes_a_channel_and_nothing_else(kind: str) -> None:
    check_producers(build(kind))


@every_narrow
def test_producers_are_all_that_makes_a_channel_of_any_cell(name: str) -> None:
    check_producers(chain(name))


def check_producers(network: Network) -> None:
    before = outputs(network)
    whole = copy.deepcopy(network.state_dict())
    without = copy.deepcopy(network)
    layers = masked_layers(without)
    for channel in channels(network):
        at = f"{channel.cell} {channel.kind}"
        assert before[at][:, channel.index].var() > 0 or not before[at][:, channel.index].any()
        without.load_state_dict(whole)
        for name in channel.producers:
            assert layers[name].mask[channel.index].all()
            layers[name].mask[channel.index] = False
        assert channel.alive(network)
        assert not channel.alive(without)
        after = outputs(without)[at]
        # Constant over pictures and places: only batch norm speaks.
        given = after[:, channel.index]
        assert torch.equal(given, given[:1, :1, :1].expand_as(given))
        others = [i for i in range(after.shape[1]) if i != channel.index]
        assert torch.equal(after[:, others], before[at][:, others])


@given(kind=st.sampled_from(KINDS), structure=structures, data=st.data())
@settings(max_examples=12)
def test_scores_are_sums_over_the_producers(kind: str, structure: tuple[int, ...], data: st.DataObject) -> None:
    network = build(kind, structure)
    seed = data.draw(st.integers(0, 99))
    draw = torch.Generator().manual_seed(seed)
    scores = {
        name: torch.rand(layer.weight.shape, generator=draw) - 0.2 for name, layer in masked_layers(network).items()
    }
    found = channel_scores(network, scores)
    expected = []
    for name, cell in network.named_modules():
        if not name.rpartition(".")[0].endswith("cells"):
            continue
        expected += [float(scores[f"{name}.conv1"][i].double().sum()) for i in range(3)]
        if kind == "dense" and isinstance(cell.get_submodule("shortcut"), nn.Sequential):
            expected += [
                float(scores[f"{name}.conv2"][i].double().sum() + scores[f"{name}.shortcut.0"][i].double().sum())
                for i in range(3)
            ]
    assert found.dtype == torch.float64
    assert found.shape == (len(channels(network)),)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@given(kind=st.sampled_from(KINDS), data=st.data())
@settings(max_examples=12)
def test_masks_of_lost_channels_only_take(kind: str, data: st.DataObject) -> None:
    check_masks(build(kind), data)


@given(name=st.sampled_from(list(NARROW)), data=st.data())
@settings(max_examples=12)
def test_masks_of_lost_channels_of_any_cell_only_take(name: str, data: st.DataObject) -> None:
    check_masks(chain(name), data)


def check_masks(network: Network, data: st.DataObject) -> None:
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    current = {n: torch.rand(layer.mask.shape, generator=draw) < 0.9 for n, layer in masked_layers(network).items()}
    set_masks(network, current)
    before = copy.deepcopy(network.state_dict())
    lost = data.draw(st.lists(st.sampled_from(channels(network)), unique=True, max_size=8))
    masks = mask_channels(network, lost)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert masks.keys() == current.keys()
    expected = {name: mask.clone() for name, mask in current.items()}
    for channel in lost:
        for name in (*channel.producers, *channel.gates):
            expected[name][channel.index] = False
        for name, start, end, relay in channel.consumers:
            expected[name][:, start:end] = False
            if relay is not None and relay.filter is not None:
                expected[relay.filter][relay.place] = False
    assert all(torch.equal(masks[name], mask) for name, mask in expected.items())


@given(kind=st.sampled_from(KINDS), data=st.data())
@settings(max_examples=12)
def test_a_silent_channel_gives_zero_in_both_modes_and_stays_so(kind: str, data: st.DataObject) -> None:
    check_silence(build(kind), data)


@given(name=st.sampled_from(list(NARROW)), data=st.data())
@settings(max_examples=16)
def test_a_silent_channel_of_any_cell_gives_zero_in_both_modes_and_stays_so(name: str, data: st.DataObject) -> None:
    check_silence(chain(name), data)


def check_silence(network: Network, data: st.DataObject) -> None:
    lost = data.draw(st.lists(st.sampled_from(channels(network)), unique=True, min_size=1, max_size=8))
    untouched = copy.deepcopy(network.state_dict())
    read = data.draw(st.booleans())
    if read:  # behind a batch norm without a ReLU a shift learns again, so that readers must be masked
        lost = [channel for channel in lost if channel.rectified or not channel.norms]
    set_masks(network, without_producers(network, lost) if read else mask_channels(network, lost))
    silence(network, *lost)
    places = {(name, channel.index) for channel in lost for name in (*channel.producers, *channel.norms)}
    relays = [consumer.relay for channel in lost for consumer in channel.consumers if consumer.relay is not None]
    places |= {(relay.norm, relay.place) for relay in relays}
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d) or isinstance(getattr(module, "bias", None), Tensor):
            names = ["weight", "bias"] if isinstance(module, nn.BatchNorm2d) else ["bias"]
            for key in names:
                value = module.get_parameter(key)
                kept = [i for i in range(len(value)) if (name, i) not in places]
                assert torch.equal(value[kept], untouched[f"{name}.{key}"][kept])
    optimizer = torch.optim.SGD(parameter_groups(network, 1e-2), lr=0.1, momentum=0.9)
    pictures, labels = pictures_for(network, 6), torch.arange(6) % 2
    deaf = {name: torch.ones_like(layer.mask) for name, layer in masked_layers(network).items()}
    for channel in lost:
        for consumer in channel.consumers:
            deaf[consumer.layer][:, consumer.start : consumer.end] = False
    twin = copy.deepcopy(network)
    for mode in (True, False, True, False):
        seen = outputs(network.train(mode))
        assert not any(seen[f"{channel.cell} {channel.kind}"][:, channel.index].any() for channel in lost)
        # Nor does anything reach its readers, be it through a batch norm of theirs.
        with torch.no_grad():
            twin.train(mode).load_state_dict(network.state_dict())
            heard = twin(pictures)
            twin.load_state_dict(network.state_dict())
            set_masks(twin, deaf)
            torch.testing.assert_close(twin(pictures), heard, rtol=1e-5, atol=1e-4)
        exit_losses(network(pictures), labels).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def without_producers(network: Network, lost: Sequence[Channel]) -> dict[str, Tensor]:
    """The masks without the weights that make the channels in ``lost``, as when single weights are pruned."""
    masks = {name: layer.mask.clone() for name, layer in masked_layers(network).items()}
    for channel in lost:
        for name in channel.producers:
            masks[name][channel.index] = False
    return masks


def test_channels_die_in_the_trunk_when_nothing_makes_them() -> None:
    network = build("dense")
    assert not dead_trunk(network).any()
    layers = masked_layers(network)
    layers["stem.conv"].mask[1:] = False
    layers["stages.0.cells.0.conv2"].mask[2] = False  # its shortcut carries a channel that is dead
    layers["stages.0.cells.1.conv2"].mask[0] = False  # its shortcut makes it still
    layers["stages.1.cells.0.conv2"].mask[1] = False
    layers["stages.1.cells.0.shortcut.0"].mask[1] = False
    assert dead_trunk(network).nonzero().flatten().tolist() == [1, 2, 5, 10]
    assert dead_trunk(network).shape == (18,)


def test_a_skip_second_cell_and_a_chain_carry_what_lives() -> None:
    network = build("dense", cell="skip_second")
    layers = masked_layers(network)
    layers["stages.0.cells.0.conv1"].mask[0] = False
    layers["stages.0.cells.0.conv2"].mask[:2] = False
    assert dead_trunk(network).nonzero().flatten().tolist() == [3]
    chain = build("iterative")
    for name, layer in masked_layers(chain).items():
        if name.endswith(("stem.conv", "conv2")):
            layer.mask[0] = False
    assert dead_trunk(chain).tolist() == [True, False, False]
    masked_layers(chain)["stages.1.cells.0.conv2"].mask[0] = True
    assert dead_trunk(chain).tolist() == [False, False, False]


@pytest.mark.parametrize("cell", ["basic", "skip_second"])
@pytest.mark.parametrize("kind", ["dense", "iterative"])
def test_a_grown_stage_does_not_read_the_dead(kind: str, cell: str) -> None:
    network = build(kind, stages=1, cell=cell)
    for name, layer in masked_layers(network).items():
        if not name.endswith("linear"):
            layer.mask[1] = False
    dead = dead_trunk(network)
    assert dead.sum() == (3 if kind == "dense" else 1)
    for index in (1, 2):
        reads = dead_trunk(network).nonzero().flatten().tolist()
        network.append_stage(seed=0)
        weights = {name: layer.weight.clone() for name, layer in masked_layers(network).items()}
        masks = {name: layer.mask.clone() for name, layer in masked_layers(network).items()}
        masked = mask_dead_inputs(network, index)
        assert mask_dead_inputs(network, index) == 0
        changed = 0
        for name, layer in masked_layers(network).items():
            expected = masks[name]
            if name.startswith(f"stages.{index}") and name.endswith(("conv1", "shortcut.0")):
                if kind == "dense" or name.startswith(f"stages.{index}.cells.0."):
                    expected[:, reads] = False
            elif name == "stages.2.exit.linear" and kind == "dense":
                for i in reads:
                    expected[:, i * 16 : i * 16 + 16] = False
            assert torch.equal(layer.mask, expected), name
            new = name.startswith(f"stages.{index}")
            assert torch.equal(layer.weight, weights[name] * expected if new else weights[name]), name
            changed += int((layer.weight != weights[name]).sum())
        assert masked == changed
        assert (masked > 0) is bool(reads)
    network(torch.rand(3, 1, 8, 8))


# Cells of every type


def test_every_cell_and_exit_has_its_wiring() -> None:
    """Each tensor is named once, and has as many rows and columns as the wiring says."""
    assert WIRING.keys() == CELLS.keys()
    for name, wiring in WIRING.items():
        for projects, squeeze in itertools.product({False, wiring.carries is not None}, {0, 2 * bool(wiring.squeeze)}):
            inner = {"separable": 3, "plain": 7, "unpadded": 7, "linear": 7}.get(name, 5)
            plan = CellPlan(3, inner, 7, projects, name, 1, 4, squeeze)
            counts: dict[Space, int] = {"trunk": 3, "inner": inner, "output": 7}
            assert counts[wiring.inner] == inner
            check_parts(CELLS[name](plan), wiring.of(plan), counts, cell_width(plan))
    for name, head in EXITS.items():
        stage = StagePlan((), 3, False, (1, 1) if name in ONE_PIXEL else (2, 4), name)
        check_parts(head(3, 7, (2, 4)), head_parts(stage), {"trunk": 3}, head_width(stage))


def check_parts(module: nn.Module, parts: Sequence[Part], counts: dict[Space, int], width: int) -> None:
    owners = {key.rpartition(".")[0] for key in module.state_dict()} - {""}  # a pooling share belongs to no channel
    if "conv" in owners and isinstance(module, PooledHead):
        owners -= {"norm", "linear"}  # behind the block nothing is a channel of the trunk
    assert sorted(part.name for part in parts) == sorted(owners)
    for part in parts:
        own = module.get_submodule(part.name)
        for value in own.state_dict().values():
            hidden = {"squeeze.reduce": 2, "conv": hidden_channels(7)}.get(part.name, 7)
            assert value.dim() == 0 or value.shape[0] == (hidden if part.rows is None else counts[part.rows])
        assert isinstance(own, nn.BatchNorm2d) is (not isinstance(own, MaskedConv2d | MaskedLinear))
        if part.columns is None:
            weight = own.get_parameter("weight")
            assert weight.dim() == 1 or weight.shape[1] == (2 if part.gate else 1)
        else:
            assert own.get_parameter("weight").shape[1] == counts[part.columns] * width
        for other in (part.norm, part.filter):
            assert other is None or other in {each.name for each in parts if each.columns is None}


LOST = {
    # What each cell of NARROW can lose, as (inner, outputs).
    "basic": [(4, 0), (5, 4), (6, 0), (6, 0)],
    "preactivation": [(5, 0), (5, 0), (6, 5)],
    "plain": [(0, 4), (0, 5), (0, 3)],
    "separable": [(0, 4), (0, 5), (0, 4)],
    "depthwise": [(4, 0), (5, 4), (6, 0), (6, 0)],
    "grouped": [(0, 0), (0, 4), (0, 5)],
    "compact": [(4, 0), (5, 4), (6, 0), (6, 0)],
    "unpadded": [(0, 4), (0, 5), (0, 6)],
    "linear": [(0, 6), (0, 5)],
    "skip_second": [(5, 4), (0, 0)],
    "motley": [(0, 4), (0, 0), (6, 0), (5, 4), (0, 4), (0, 5), (6, 5), (5, 4), (6, 5), (0, 6)],
}


@every_narrow
def test_a_chain_can_lose_what_no_identity_adds_up(name: str) -> None:
    network = chain(name)
    found = channels(network)
    names = [f"stages.{i}.cells.{j}" for i, stage in enumerate(network.plans) for j in range(len(stage.cells))]
    counts = [
        tuple(sum((c.cell, c.kind) == (cell, kind) for c in found) for kind in ("inner", "output")) for cell in names
    ]
    assert counts == LOST[name]
    assert len(set(found)) == len(found)


@every_narrow
def test_a_young_chain_can_lose_no_more_than_when_it_has_grown(name: str) -> None:
    """An identity to come keeps what it will add up."""
    whole = {(c.cell, c.kind, c.index) for c in channels(chain(name))}
    for stages in range(1, len(NARROW[name][1]) + 1):
        network = chain(name, stages)
        young = {(c.cell, c.kind, c.index) for c in channels(network)}
        assert young == {each for each in whole if int(each[0].split(".")[1]) < stages}


@pytest.mark.parametrize("name", [name for name in NARROW if name not in ("basic", "skip_second", "grouped")])
def test_a_grown_stage_of_any_cell_does_not_read_the_dead(name: str) -> None:
    """What it would read of them may change as it likes."""
    for stages in range(1, len(NARROW[name][1])):
        network = chain(name, stages)
        lost = [channel for channel in channels(network) if channel.kind == "output" and channel.index == 1]
        set_masks(network, without_producers(network, lost))
        last = network.plans[stages - 1].cells[-1]
        dead = dead_trunk(network)
        assert dead.shape == (last.out_channels,)
        assert dead.nonzero().flatten().tolist() == ([1] if lost and lost[-1].cell == last_cell(network) else [])
        network.append_stage(seed=0)
        before = {key: layer.mask.clone() for key, layer in masked_layers(network).items()}
        masked = mask_dead_inputs(network, stages)
        after = {key: layer.mask for key, layer in masked_layers(network).items()}
        assert masked == sum(int(before[key].sum() - mask.sum()) for key, mask in after.items())
        assert mask_dead_inputs(network, stages) == 0
        assert (masked > 0) is bool(dead.any())
        network.eval()
        loud = copy.deepcopy(network)
        for channel in lost:
            if channel.cell == last_cell(network, stages - 1):
                shout(loud, channel)
        pictures = pictures_for(network)
        assert torch.equal(loud(pictures)[-1], network(pictures)[-1])
        assert network.train()(pictures).isfinite().all()


def last_cell(network: Network, stage: int | None = None) -> str:
    """The name of the last cell of a stage; by default of the last that exists."""
    index = len(network.stages) - 1 if stage is None else stage
    return f"stages.{index}.cells.{len(network.plans[index].cells) - 1}"


def test_a_stem_that_is_none_or_a_bare_convolution_dies_as_it_should() -> None:
    network = chain("preactivation", 1)
    network.get_submodule("stem.conv").get_buffer("mask")[5] = False
    conv1, conv2 = (masked_layers(network)[f"stages.0.cells.{i}.conv2"].mask for i in (0, 1))
    shortcut = masked_layers(network)["stages.0.cells.0.shortcut"].mask
    assert not dead_trunk(network).any()
    conv1[2] = shortcut[2] = conv2[2] = conv2[0] = False
    assert dead_trunk(network).nonzero().flatten().tolist() == [2]
    assert not dead_trunk(chain("unpadded", 1)).any()


def test_the_filter_of_a_lost_channel_is_masked_with_it() -> None:
    """In the next cell, whether it exists or grows."""
    whole, young = chain("separable"), chain("separable", stages=1)
    for network in (whole, young):
        set_masks(network, mask_channels(network, [channels(network)[2]]))
    young.append_stage(seed=0)
    # 9 weights of the filter, 5 that read it, and none of the head of that stage.
    assert mask_dead_inputs(young, 1) == 9 + 5
    for network in (whole, young):
        masks = {key: layer.mask for key, layer in masked_layers(network).items()}
        assert masks["stages.1.cells.0.conv1"].flatten(1).any(dim=1).tolist() == [True, True, False, True]
        assert masks["stages.1.cells.0.conv2"].flatten(2).any(dim=2).any(dim=0).tolist() == [True, True, False, True]
        assert masks["stages.1.exit.linear"].all()
