"""Channels: which weights make and read each, counted from what the network computes and not from its plan."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ramify.config import NetworkConfig
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.ops.channels import (
    Channel,
    channel_scores,
    channels,
    dead_trunk,
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
            elif isinstance(module, nn.Linear):
                module.bias.normal_(generator=draw)


def outputs(network: Network) -> dict[str, Tensor]:
    """Every channel that a cell gives, by the cell's name and kind, for random pictures, ``[B, channels, H, W]``."""
    seen: dict[str, Tensor] = {}
    hooks = []
    for name, module in network.named_modules():
        if name.rpartition(".")[0].endswith("cells"):
            hooks.append(
                module.register_forward_hook(lambda _, __, out, name=name: seen.update({f"{name} output": out}))
            )
        elif name.endswith("conv2"):
            at = f"{name.removesuffix('.conv2')} inner"
            hooks.append(module.register_forward_hook(lambda _, read, __, at=at: seen.update({at: read[0]})))
    with torch.no_grad():
        network(torch.rand(4, *(network.config.input_shape or ()), generator=torch.Generator().manual_seed(1)))
    for hook in hooks:
        hook.remove()
    return seen


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
    """With its consumers masked a channel may give anything; with one of them left, something changes."""
    network = build(kind, stages=None if kind == "full" else stages)
    pictures = torch.rand(4, 1, 8, 8)
    for channel in channels(network):
        loud = copy.deepcopy(network)
        for name in channel.norms:
            loud.get_submodule(name).get_parameter("bias").data[channel.index] += 10

        unread, unread_loud = copy.deepcopy(network), copy.deepcopy(loud)
        for each in (unread, unread_loud):
            set_masks(each, consumer_masks(each, channel, channel.consumers))
        assert torch.equal(unread(pictures), unread_loud(pictures)), channel

        for left in channel.consumers:
            others = tuple(consumer for consumer in channel.consumers if consumer != left)
            half, half_loud = copy.deepcopy(network), copy.deepcopy(loud)
            for each in (half, half_loud):
                set_masks(each, consumer_masks(each, channel, others))
            assert not torch.equal(half(pictures), half_loud(pictures)), (channel, left)


def consumer_masks(
    network: Network, channel: Channel, consumers: tuple[tuple[str, int, int], ...]
) -> dict[str, Tensor]:
    masks = {name: layer.mask.clone() for name, layer in masked_layers(network).items()}
    for name, start, end in consumers:
        assert (name, start, end) in channel.consumers
        masks[name][:, start:end] = False
    return masks


@pytest.mark.parametrize("kind", KINDS)
def test_producers_are_all_that_makes_a_channel_and_nothing_else(kind: str) -> None:
    network = build(kind)
    before = outputs(network)
    for channel in channels(network):
        at = f"{channel.cell} {channel.kind}"
        assert before[at][:, channel.index].var() > 0 or not before[at][:, channel.index].any()
        without = copy.deepcopy(network)
        layers = masked_layers(without)
        for name in channel.producers:
            assert layers[name].mask[channel.index].all()
            layers[name].mask[channel.index] = False
        assert channel.alive(network)
        assert not channel.alive(without)
        after = outputs(without)[at]
        # Constant over pictures and places: only batch norm speaks.
        assert torch.equal(after[:, channel.index], after[:1, channel.index, :1, :1].expand(4, 8, 8))
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
    network = build(kind)
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
        for name in channel.producers:
            expected[name][channel.index] = False
        for name, start, end in channel.consumers:
            expected[name][:, start:end] = False
    assert all(torch.equal(masks[name], mask) for name, mask in expected.items())


@given(kind=st.sampled_from(KINDS), data=st.data())
@settings(max_examples=12)
def test_a_silent_channel_gives_zero_in_both_modes_and_stays_so(kind: str, data: st.DataObject) -> None:
    network = build(kind)
    lost = data.draw(st.lists(st.sampled_from(channels(network)), unique=True, min_size=1, max_size=8))
    untouched = copy.deepcopy(network.state_dict())
    set_masks(network, mask_channels(network, lost))
    silence(network, *lost)
    places = {(name, channel.index) for channel in lost for name in channel.norms}
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            kept = [i for i in range(module.num_features) if (name, i) not in places]
            for key, value in module.named_parameters():
                assert torch.equal(value[kept], untouched[f"{name}.{key}"][kept])
    optimizer = torch.optim.SGD(parameter_groups(network, 1e-2), lr=0.1, momentum=0.9)
    pictures, labels = torch.rand(6, 1, 8, 8), torch.arange(6) % 2
    for mode in (True, False, True, False):
        seen = outputs(network.train(mode))
        assert not any(seen[f"{channel.cell} {channel.kind}"][:, channel.index].any() for channel in lost)
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
