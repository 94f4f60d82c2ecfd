"""Compaction of cells of every type, in any order."""

import copy
from typing import Literal

import pytest
import torch
from hypothesis import given, reject
from hypothesis import strategies as st

from ramify.errors import InputError
from ramify.nn.cells import CELLS
from ramify.nn.exit import EXITS
from ramify.nn.graph import ChannelGroup
from ramify.nn.masked import MaskedConv2d, masked_layers
from ramify.nn.network import Network
from ramify.ops.growing.grow import grow
from ramify.ops.loss import exit_losses
from ramify.ops.pruning.channels import alive, channels, owner, silence
from ramify.ops.pruning.compact import compact
from ramify.ops.pruning.prune import prune
from ramify.ops.surgery import parameter_groups, set_masks
from tests.ops.networks import (
    NARROW,
    STEMS,
    Spec,
    biased,
    chain,
    every_narrow,
    filtered,
    index_of,
    kind_of,
    narrow,
    norms,
    pictures_for,
    relays,
    shake,
    without_makers,
)
from tests.ops.pruning.touching import RELAYED, check_slices, goes, lose, same_answers, set_constant, touch, widths


@st.composite
def chains(draw: st.DrawFn) -> Network:
    """A network of any cells that follow one another, perhaps a young one, or one in which each reads all earlier."""
    stem = draw(st.sampled_from(sorted(STEMS)))
    dense = draw(st.booleans())
    side = draw(st.integers(8, 16))
    specs: list[Spec] = []
    left = side
    for _ in range(draw(st.integers(1, 5))):
        names = [name for name in CELLS if name not in ("unpadded", "linear")] + ["skip_second+"]
        names += [f"{name}~" for name, cell in CELLS.items() if cell.squeezing]
        if not dense:
            names += ["linear"] + ["unpadded"] * (left >= 6)
        name = draw(st.sampled_from(names))
        stride = draw(st.integers(1, 2))
        read = (specs[-1][1] if specs else STEMS[stem][1]) if not dense else STEMS[stem][1] + sum(s[1] for s in specs)
        # An identity wants as many channels on both sides; half of the time it is there.
        projecting = name in CELLS and CELLS[name].projecting
        out = read if projecting and draw(st.booleans()) and not dense else draw(st.integers(2, 4))
        specs.append((name, out, stride))
        left = {"linear": 1, "unpadded": (left - 4) // 2}.get(name, -(-left // stride))
    places = [*sorted(draw(st.sets(st.integers(1, len(specs)), max_size=2)) - {len(specs)}), len(specs)]
    heads = [(place, draw(st.sampled_from(list(EXITS)))) for place in places]
    network = narrow(specs, heads, stem, side, draw(st.integers(1, len(heads))), dense)
    shake(network, draw(st.integers(0, 99)))
    return network


@st.composite
def touched_chains(draw: st.DrawFn) -> tuple[Network, dict[ChannelGroup, str]]:
    """Such a network, and how each of some channels is touched; of those of each kind in each cell one is left."""
    network = draw(chains())
    ways = draw(st.permutations(RELAYED))
    chosen: dict[ChannelGroup, str] = {}
    for number, group in enumerate(channels(network)):
        if index_of(group) == 0 or not draw(st.booleans()):
            continue
        way = ways[number % len(ways)]
        if way == "relayed" and not relays(group):
            way = "silent"
        if way.startswith("unfiltered") and not filtered(group):
            way = "lost"
        if way == "constant" and not norms(group) and not biased(network, group):
            way = "silent"  # nothing but its weights can make it
        chosen[group] = way
    for group, way in chosen.items():
        touch(network, group, way)
    return network, chosen


@pytest.mark.slow
@given(example=touched_chains())
def test_exactly_what_does_not_matter_goes_from_any_cell(example: tuple[Network, dict[ChannelGroup, str]]) -> None:
    network, chosen = example
    going = [group for group, way in chosen.items() if goes(network, group, way)]
    before = copy.deepcopy(network.state_dict())
    small, receipt = compact(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    same_answers(network, small)
    assert receipt.removed == len(going)
    for name, (inner, less, out, fewer) in widths(network, small).items():
        gone = {kind: sum((owner(g), kind_of(g)) == (name, kind) for g in going) for kind in ("inner", "output")}
        assert out - fewer == gone["output"]
        if any((owner(group), kind_of(group)) == (name, "inner") for group in channels(network)):
            assert inner - less == gone["inner"]
    for old, new in zip(network.plans, small.plans, strict=True):
        assert (old.final, old.grid, old.head) == (new.final, new.grid, new.head)
        for one, other in zip(old.cells, new.cells, strict=True):
            assert (one.type, one.stride, one.area, one.projects) == (
                other.type,
                other.stride,
                other.area,
                other.projects,
            )
    assert not compact(small)[1].changed


@pytest.mark.slow
@given(network=chains(), data=st.data())
def test_what_stays_of_any_cell_are_slices_of_the_same_tensors(network: Network, data: st.DataObject) -> None:
    check_slices(network, data)


@given(network=chains(), data=st.data())
def test_pruned_and_compacted_chains_grow_train_and_are_pruned_again(network: Network, data: st.DataObject) -> None:
    """What a stage to come would have read is gone from it as well."""
    unit: Literal["weight", "channel"] = data.draw(st.sampled_from(["weight", "channel"]))
    pictures, labels = pictures_for(network, 6), torch.arange(6) % 3
    optimizer: torch.optim.Optimizer | None = None
    while True:
        if unit == "weight" or channels(network):
            try:
                prune(network, 0.6, "random", optimizer=optimizer, unit=unit, seed=len(network.stages))
            except InputError:  # so few channels that a layer would die
                assert unit == "channel"
                reject()
        small, receipt = compact(network.eval())
        same_answers(network, small)
        if unit == "channel":
            assert receipt.after[-1].kept <= receipt.before[-1].kept
        if network.complete:
            break
        grow(small, seed=0)
        same_answers(small, compact(small)[0])
        optimizer = torch.optim.SGD(parameter_groups(small, 1e-4), lr=0.001, momentum=0.9)
        exit_losses(small.train()(pictures), labels).sum().backward()
        optimizer.step()
        network = small


@every_narrow
def test_everything_that_any_cell_can_lose_goes_but_one(name: str) -> None:
    network = chain(name)
    groups = channels(network)
    lose(network, groups)
    small, receipt = compact(network)
    same_answers(network, small)
    assert receipt.removed == len(groups) - len({group.space for group in groups})
    assert not compact(small)[1].changed


@every_narrow
def test_channels_that_single_weights_starve_go_too(name: str) -> None:
    """Once they are silent: also the batch norms behind them, since here nobody masks what reads them."""
    network = chain(name)
    lost = [group for group in channels(network) if index_of(group) == 1]
    set_masks(network, without_makers(network, lost))
    silence(network, *lost)
    small, receipt = compact(network)
    same_answers(network, small)
    assert receipt.removed == len(lost) > 0


def test_a_filter_loses_its_groups() -> None:
    network = chain("separable")
    lost = [group for group in channels(network) if index_of(group) in (0, 2)]
    lose(network, lost)
    small, receipt = compact(network)
    same_answers(network, small)
    filters = [layer for layer in masked_layers(small).values() if isinstance(layer, MaskedConv2d) and layer.groups > 1]
    assert [(layer.groups, tuple(layer.weight.shape)) for layer in filters] == [
        (3, (3, 1, 3, 3)),
        (2, (2, 1, 3, 3)),
        (3, (3, 1, 3, 3)),
    ]
    assert widths(network, small) == {
        "stages.0.cells.0": (3, 3, 4, 2),
        "stages.1.cells.0": (4, 2, 5, 3),
        "stages.2.cells.0": (5, 3, 4, 2),
    }
    assert receipt.removed == 6


@pytest.mark.parametrize(("constant", "removed"), [(-0.5, 1), (0.0, 1), (1e-6, 0), (0.5, 0)])
@pytest.mark.parametrize("name", ["separable", "plain"])
def test_a_batch_norm_on_the_way_to_a_reader_may_speak(name: str, constant: float, removed: int) -> None:
    """In ``separable`` cells and before ``normed`` heads."""
    network = chain(name)
    group = next(group for group in channels(network) if relays(group))
    touch(network, group, "silent")
    for norm in relays(group):
        network.get_submodule(norm.name).get_buffer("running_mean")[norm.place] = 0
        set_constant(network, norm, constant)
    small, receipt = compact(network)
    same_answers(network, small)
    assert receipt.removed == removed


@pytest.mark.parametrize("way", ["unfiltered", "unfiltered constant"])
def test_a_channel_that_no_filter_lets_through_goes_if_nothing_comes_instead(way: str) -> None:
    network = narrow([("plain", 4, 1), ("separable", 5, 1), ("separable", 4, 2)], [(3, "average")])
    lost = [group for group in channels(network) if owner(group) != "stages.0.cells.2" and index_of(group) == 1]
    for group in lost:
        touch(network, group, way)
    assert all(alive(network, lost))
    small, receipt = compact(network)
    same_answers(network, small)
    assert receipt.removed == (2 if way == "unfiltered" else 0)


@pytest.mark.parametrize(("bias", "removed"), [(-0.5, 1), (0.0, 1), (1e-6, 0), (1e-40, 1)])
@pytest.mark.parametrize("name", ["unpadded", "linear"])
def test_a_bias_may_speak(name: str, bias: float, removed: int) -> None:
    network = chain(name)
    group = channels(network)[1]
    touch(network, group, "silent")
    set_constant(network, biased(network, group)[0], bias)
    small, receipt = compact(network)
    same_answers(network, small)
    assert receipt.removed == removed


def test_a_linear_cell_loses_the_pixels_of_a_channel() -> None:
    network = chain("unpadded")
    group = next(group for group in channels(network) if owner(group) == "stages.1.cells.0" and index_of(group) == 2)
    old = masked_layers(network)["stages.2.cells.0.linear"].weight.detach().clone()
    touch(network, group, "lost")
    small = compact(network)[0]
    kept = [i for i in range(5 * 4) if i // 4 != 2]
    assert torch.equal(masked_layers(small)["stages.2.cells.0.linear"].weight, old[:, kept])
    assert small.plans[2].cells[0].area == 4


@pytest.mark.parametrize("name", list(NARROW))
def test_young_chains_are_cut_in_the_stages_to_come(name: str) -> None:
    network = chain(name, stages=1)
    lost = [group for group in channels(network) if index_of(group) == 1]
    lose(network, lost)
    small, receipt = compact(network)
    assert receipt.removed == len(lost)
    while not small.complete:
        grow(small, seed=0)
        same_answers(small, compact(small)[0])
    last = {owner(group) for group in lost if kind_of(group) == "output"}
    cells = [cell for stage in small.plans for cell in stage.cells]
    before = [cell for stage in network.plans for cell in stage.cells]
    assert [old.in_channels - new.in_channels for old, new in zip(before, cells, strict=True)][1:] == [
        int(f"stages.0.cells.{i}" in last) for i in range(len(cells) - 1)
    ]
