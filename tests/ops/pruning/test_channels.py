"""Channels: which weights make and read each, counted from what the network computes and not from its plan."""

import copy
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.nn.branching import stage_of
from ramify.nn.cells.separable import DepthwiseCell
from ramify.nn.graph import ChannelGroup, Places
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network, existing_cells
from ramify.ops.loss import exit_losses
from ramify.ops.pruning.channels import (
    alive,
    channel_scores,
    channels,
    dead_trunk,
    mask_channels,
    mask_dead_inputs,
    owner,
    silence,
)
from ramify.ops.surgery import parameter_groups, set_masks
from tests.ops.networks import (
    KINDS,
    NARROW,
    build,
    chain,
    every_narrow,
    index_of,
    kind_of,
    last_cell,
    norms,
    pictures_for,
    rectified,
    shout,
    structures,
    without_makers,
)

NAMES = [*KINDS, *NARROW]
"""Networks of cells of the seed, by wiring, and chains of cells of any type."""


def network_of(name: str, stages: int | None = None) -> Network:
    return build(name, stages=None if name == "full" else stages) if name in KINDS else chain(name, stages)


def outputs(network: Network) -> dict[str, Tensor]:
    """Every channel that a cell gives, by the cell's name and kind, for random pictures, ``[B, channels, H, W]``."""
    seen: dict[str, Tensor] = {}
    hooks = []
    for name, module in network.named_modules():
        cell, _, last = name.rpartition(".")
        if cell.endswith("cells"):
            hooks.append(
                module.register_forward_hook(lambda _, __, out, name=name: seen.update({f"{name} output": out}))
            )
        elif last == ("conv3" if isinstance(network.get_submodule(cell), DepthwiseCell) else "conv2"):
            at = f"{cell} inner"
            hooks.append(module.register_forward_hook(lambda _, read, __, at=at: seen.update({at: read[0]})))
    with torch.no_grad():
        network(pictures_for(network))
    for hook in hooks:
        hook.remove()
    return seen


@given(wiring=st.sampled_from(KINDS), structure=structures, data=st.data())
def test_the_channels_are_those_of_the_cells_in_order(
    wiring: str, structure: tuple[int, ...], data: st.DataObject
) -> None:
    exits = 1 if wiring == "full" else sum(structure) + 1
    stages = data.draw(st.integers(1, exits))
    network = build(wiring, structure, stages)
    found = channels(network)
    expected = []
    first = True
    for stage in range(stages):
        for i in range(len(network.plans[stage].cells)):
            kinds = ["inner"] if first or wiring != "dense" else ["inner", "output"]
            first = False
            expected += [(stage, f"stages.{stage}.cells.{i}", each, n) for each in kinds for n in range(3)]
    assert [
        (min(map(stage_of, group.space)), owner(group), kind_of(group), index_of(group)) for group in found
    ] == expected
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("wiring", KINDS)
def test_a_skip_second_cell_can_lose_none(wiring: str) -> None:
    assert channels(build(wiring, cell="skip_second")) == ()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stages", [1, None])
def test_readers_are_all_that_reads_a_channel_and_nothing_else(name: str, stages: int | None) -> None:
    """With its readers masked a channel may give anything; with one of them left, something changes."""
    network = network_of(name, stages)
    pictures = pictures_for(network)
    before = copy.deepcopy(network.state_dict())
    twin = copy.deepcopy(network)

    def answers(group: ChannelGroup, masked: Sequence[Places]) -> list[Tensor]:
        """The logits without what ``masked`` read: as it is, and when ``group`` gives something else."""
        found = []
        for loud in (False, True):
            twin.load_state_dict(before)  # a new copy for each of them takes far longer
            if loud:
                shout(twin, group)
            set_masks(twin, reader_masks(twin, masked))
            found.append(twin(pictures))
        return found

    with torch.inference_mode():
        for group in channels(network):
            assert torch.equal(*answers(group, group.readers)), group
            for left in group.readers:
                others = [reader for reader in group.readers if reader != left]
                with pytest.MonkeyPatch.context() as patch:  # whatever is read shows, and is not lost in a ReLU
                    patch.setattr(F, "relu", F.leaky_relu)
                    assert not torch.equal(*answers(group, others)), (group, left)


def reader_masks(network: nn.Module, readers: Sequence[Places]) -> dict[str, Tensor]:
    layers, masks = masked_layers(network), dict[str, Tensor]()
    for name, at, dim in readers:
        assert dim == 1
        mask = masks.setdefault(name, layers[name].mask.clone())
        mask[:, list(at)] = False
    return masks


@pytest.mark.parametrize("name", NAMES)
def test_makers_are_all_that_makes_a_channel_and_nothing_else(name: str) -> None:
    network = network_of(name)
    before = outputs(network)
    whole = copy.deepcopy(network.state_dict())
    twin = copy.deepcopy(network)
    for group in channels(network):
        at = f"{owner(group)} {kind_of(group)}"
        assert before[at][:, index_of(group)].var() > 0 or not before[at][:, index_of(group)].any()
        twin.load_state_dict(whole)
        masks = without_makers(network, [group])
        for name in group.space:
            assert masked_layers(twin)[name].mask[index_of(group)].all()
            masked_layers(twin)[name].mask.copy_(masks[name])
        assert alive(network, [group]) == [True]
        assert alive(twin, [group]) == [False]
        after = outputs(twin)[at]
        # Constant over pictures and places: only batch norm speaks.
        given = after[:, index_of(group)]
        assert torch.equal(given, given[:1, :1, :1].expand_as(given))
        others = [i for i in range(after.shape[1]) if i != index_of(group)]
        assert torch.equal(after[:, others], before[at][:, others])


@given(wiring=st.sampled_from(KINDS), structure=structures, data=st.data())
def test_scores_are_sums_over_the_makers(wiring: str, structure: tuple[int, ...], data: st.DataObject) -> None:
    network = build(wiring, structure)
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    scores = {
        name: torch.rand(layer.weight.shape, generator=draw) - 0.2 for name, layer in masked_layers(network).items()
    }
    found = channel_scores(channels(network), scores)
    expected = []
    for name, cell in network.named_modules():
        if not name.rpartition(".")[0].endswith("cells"):
            continue
        expected += [float(scores[f"{name}.conv1"][i].double().sum()) for i in range(3)]
        if wiring == "dense" and isinstance(cell.get_submodule("shortcut"), nn.Sequential):
            expected += [
                float(scores[f"{name}.conv2"][i].double().sum() + scores[f"{name}.shortcut.0"][i].double().sum())
                for i in range(3)
            ]
    assert found.dtype == torch.float64
    assert found.shape == (len(channels(network)),)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@given(name=st.sampled_from(NAMES), data=st.data())
def test_masks_of_lost_channels_only_take(name: str, data: st.DataObject) -> None:
    network = network_of(name)
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    current = {n: torch.rand(layer.mask.shape, generator=draw) < 0.9 for n, layer in masked_layers(network).items()}
    set_masks(network, current)
    before = copy.deepcopy(network.state_dict())
    found = channels(network)
    lost = data.draw(st.lists(st.sampled_from(found), unique=True, max_size=8)) if found else []
    masks = mask_channels(network, lost)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert masks.keys() == current.keys()
    expected = {name: mask.clone() for name, mask in current.items()}
    for group in lost:
        for name, at, dim in (*group.makers, *group.gates, *group.filters, *group.readers):
            for place in at:
                expected[name].select(dim, place).fill_(False)
    assert all(torch.equal(masks[name], mask) for name, mask in expected.items())


@given(name=st.sampled_from(NAMES), data=st.data())
def test_a_silent_channel_gives_zero_in_both_modes_and_stays_so(name: str, data: st.DataObject) -> None:
    network = network_of(name)
    lost = data.draw(st.lists(st.sampled_from(channels(network)), unique=True, min_size=1, max_size=8))
    untouched = copy.deepcopy(network.state_dict())
    read = data.draw(st.booleans())
    if read:  # behind a batch norm without a ReLU a shift learns again, so that readers must be masked
        lost = [group for group in lost if rectified(network, group) or not norms(group)]
    set_masks(network, without_makers(network, lost) if read else mask_channels(network, lost))
    silence(network, *lost)
    # Gates keep their biases.
    gates = {f"{gate.name}.bias" for group in lost for gate in group.gates}
    places = {(name, i) for group in lost for name, at, _ in group.vectors if name not in gates for i in at}
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d) or isinstance(getattr(module, "bias", None), Tensor):
            keys = ["weight", "bias"] if isinstance(module, nn.BatchNorm2d) else ["bias"]
            for key in keys:
                value = module.get_parameter(key)
                kept = [i for i in range(len(value)) if (f"{name}.{key}", i) not in places]
                assert torch.equal(value[kept], untouched[f"{name}.{key}"][kept])
    optimizer = torch.optim.SGD(parameter_groups(network, 1e-2), lr=0.1, momentum=0.9)
    pictures, labels = pictures_for(network, 6), torch.arange(6) % 2
    deaf = reader_masks(network, [reader for group in lost for reader in group.readers])
    twin = copy.deepcopy(network)
    for mode in (True, False, True, False):
        seen = outputs(network.train(mode))
        assert not any(seen[f"{owner(group)} {kind_of(group)}"][:, index_of(group)].any() for group in lost)
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


def test_a_channel_made_of_dead_ones_alone_is_dead() -> None:
    """Whatever they give: the borders of the map may differ from the rest, but no picture from another."""
    network = build("dense").train()
    layers = masked_layers(network)
    layers["stages.0.cells.0.conv1"].mask[:2] = False  # inner channels 0 and 1 are dead, and give what they like
    layers["stages.0.cells.0.conv2"].mask[1, 2] = False  # of inner channels output 1 reads those two alone
    assert not dead_trunk(network).any()  # the shortcut carries a channel that lives
    layers["stem.conv"].mask[1] = False
    network.get_parameter("stages.0.cells.0.norm2.bias").data[1] = 5
    assert dead_trunk(network).nonzero().flatten().tolist() == [1, 4]
    assert network.training
    with torch.no_grad():
        trunk = network.eval().get_submodule("stages.0.cells.0")(network.enter(pictures_for(network)))
    assert torch.equal(trunk[:1, 1].expand_as(trunk[:, 1]), trunk[:, 1])
    assert len(trunk[0, 1].unique()) > 1


def test_a_skip_second_cell_and_a_chain_carry_what_lives() -> None:
    network = build("dense", cell="skip_second")
    layers = masked_layers(network)
    layers["stages.0.cells.0.conv1"].mask[0] = False
    layers["stages.0.cells.0.conv2"].mask[:2] = False
    assert dead_trunk(network).nonzero().flatten().tolist() == [3]
    network = build("iterative")
    for name, layer in masked_layers(network).items():
        if name.endswith(("stem.conv", "conv2")):
            layer.mask[0] = False
    assert dead_trunk(network).tolist() == [True, False, False]
    masked_layers(network)["stages.1.cells.0.conv2"].mask[0] = True
    assert dead_trunk(network).tolist() == [False, False, False]


@pytest.mark.parametrize("cell", ["basic", "skip_second"])
@pytest.mark.parametrize("wiring", ["dense", "iterative"])
def test_a_grown_stage_does_not_read_the_dead(wiring: str, cell: str) -> None:
    network = build(wiring, stages=1, cell=cell)
    for name, layer in masked_layers(network).items():
        if not name.endswith("linear"):
            layer.mask[1] = False
    dead = dead_trunk(network)
    assert dead.sum() == (3 if wiring == "dense" else 1)
    for stage in (1, 2):
        reads = dead_trunk(network).nonzero().flatten().tolist()
        network.append_stage(seed=0)
        weights = {name: layer.weight.clone() for name, layer in masked_layers(network).items()}
        masks = {name: layer.mask.clone() for name, layer in masked_layers(network).items()}
        masked = mask_dead_inputs(network, stage)
        assert mask_dead_inputs(network, stage) == 0
        changed = 0
        for name, layer in masked_layers(network).items():
            expected = masks[name]
            if name.startswith(f"stages.{stage}") and name.endswith(("conv1", "shortcut.0")):
                if wiring == "dense" or name.startswith(f"stages.{stage}.cells.0."):
                    expected[:, reads] = False
            elif name == "stages.2.exit.linear" and wiring == "dense":
                for i in reads:
                    expected[:, i * 16 : i * 16 + 16] = False
            assert torch.equal(layer.mask, expected), name
            new = name.startswith(f"stages.{stage}")
            assert torch.equal(layer.weight, weights[name] * expected if new else weights[name]), name
            changed += int((layer.weight != weights[name]).sum())
        assert masked == changed
        assert (masked > 0) is bool(reads)
    network(torch.rand(3, 1, 8, 8))


# Cells of every type

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
    counts = [
        tuple(sum((owner(group), kind_of(group)) == (cell, each) for group in found) for each in ("inner", "output"))
        for _, cell, _ in existing_cells(network)
    ]
    assert counts == LOST[name]
    assert len(set(found)) == len(found)
    # No weight belongs to two of them, nor any number of a batch norm or bias.
    for part in ("makers", "readers", "filters", "gates", "vectors"):
        places = [(place.name, place.dim, at) for group in found for place in getattr(group, part) for at in place.at]
        assert len(set(places)) == len(places), part


@every_narrow
def test_a_young_chain_can_lose_no_more_than_when_it_has_grown(name: str) -> None:
    """An identity to come keeps what it will add up; and what it can lose, it can lose when it has grown."""
    whole = {group.makers: group for group in channels(chain(name))}
    for stages in range(1, len(NARROW[name][1]) + 1):
        young = channels(chain(name, stages))
        assert {group.makers for group in young} == {
            makers for makers, g in whole.items() if min(map(stage_of, g.space)) < stages
        }
        for group in young:
            then = [place for place in whole[group.makers].readers if int(place.name.split(".")[1]) < stages]
            assert list(group.readers) == then


@pytest.mark.parametrize("name", [name for name in NARROW if name not in ("basic", "skip_second", "grouped")])
def test_a_grown_stage_of_any_cell_does_not_read_the_dead(name: str) -> None:
    """What it would read of them may change as it likes."""
    for stages in range(1, len(NARROW[name][1])):
        network = chain(name, stages)
        lost = [group for group in channels(network) if kind_of(group) == "output" and index_of(group) == 1]
        set_masks(network, without_makers(network, lost))
        last = network.plans[stages - 1].cells[-1]
        dead = dead_trunk(network)
        assert dead.shape == (last.out_channels,)
        assert dead.nonzero().flatten().tolist() == ([1] if lost and owner(lost[-1]) == last_cell(network) else [])
        network.append_stage(seed=0)
        before = {key: layer.mask.clone() for key, layer in masked_layers(network).items()}
        masked = mask_dead_inputs(network, stages)
        after = {key: layer.mask for key, layer in masked_layers(network).items()}
        assert masked == sum(int(before[key].sum() - mask.sum()) for key, mask in after.items())
        assert mask_dead_inputs(network, stages) == 0
        assert (masked > 0) is bool(dead.any())
        network.eval()
        loud = copy.deepcopy(network)
        for group in lost:
            if owner(group) == last_cell(network, stages - 1):
                shout(loud, group)
        pictures = pictures_for(network)
        assert torch.equal(loud(pictures)[-1], network(pictures)[-1])
        assert network.train()(pictures).isfinite().all()


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
