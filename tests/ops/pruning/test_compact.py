"""Compaction: what goes did not matter, what did not matter goes, and the rest is the same network."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ramify.config.rules import NetworkConfig
from ramify.errors import RunError
from ramify.nn.constants import Constants, LayerInput, constants
from ramify.nn.graph import ChannelGroup
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network, StagePlan, plan
from ramify.ops.cost import cost
from ramify.ops.growing.grow import grow
from ramify.ops.loss import exit_losses
from ramify.ops.pruning import compact as compaction
from ramify.ops.pruning.channels import channels, dead_trunk, mask_channels, mask_dead_inputs, owner, silence
from ramify.ops.pruning.compact import compact
from ramify.ops.surgery import parameter_groups, set_masks
from ramify.run.checkpoint import Card, card_with, pack_model, read_model
from tests.ops.networks import KINDS, Norm, index_of, kind_of, norms, pictures_for, shake, structures
from tests.ops.pruning.touching import WAYS, check_slices, goes, lose, same_answers, set_constant, touch, widths


def build(
    wiring: str = "dense",
    structure: tuple[int, ...] = (0, 1, 0, 1, 0),
    stages: int | None = None,
    cell: str = "basic",
    exit: str = "mixed",  # noqa: A002 - the name of the configuration key
    channels: int = 4,
) -> Network:
    """A network that has everything a trained one has: statistics, biases, pooling shares, normalisation."""
    config = NetworkConfig.model_validate(
        {"kind": wiring, "cell": cell, "structure": structure, "channels": channels, "exit": exit}
        | {"input_shape": (2, 8, 8), "classes": 3}
    )
    network = Network(config, stages=config.exits if stages is None else stages, seed=0)
    shake(network, 0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("share"):
                parameter.fill_(0.3)
        for name, buffer in network.named_buffers():
            if name.endswith("num_batches_tracked"):
                buffer.fill_(7)
    network.set_normalization([0.4, 0.6], [0.2, 0.3])
    return network.eval()


def parameters_of(plans: tuple[StagePlan, ...], stages: int, network: Network) -> int:
    """How many parameters a network has, from the widths alone."""
    config = network.config
    total = 9 * 2 * config.widths[0] + 2 * config.widths[0]
    for stage in plans[:stages]:
        for c in stage.cells:
            total += 9 * c.in_channels * c.inner_channels + 2 * c.inner_channels
            total += 9 * c.inner_channels * c.out_channels + 2 * c.out_channels
            total += (c.in_channels * c.out_channels + 2 * c.out_channels) if c.projects else 0
        total += 3 * 16 * stage.exit_channels + 3
        total += 1 if config.exit == "mixed" and not stage.final else 0
    return total


@st.composite
def touched(draw: st.DrawFn) -> tuple[Network, dict[ChannelGroup, str]]:
    """A network, perhaps a young one, and how each of some channels is touched; in each cell one is left alone."""
    wiring = draw(st.sampled_from(KINDS))
    structure = draw(structures)
    exits = 1 if wiring == "full" else sum(structure) + 1
    network = build(
        wiring,
        structure,
        draw(st.integers(1, exits)),
        draw(st.sampled_from(["basic", "basic", "basic", "skip_second"])),
        draw(st.sampled_from(["mixed", "average", "max"])),
        draw(st.integers(2, 5)),
    )
    shake(network, draw(st.integers(0, 99)))
    ways = draw(st.permutations(WAYS))  # each example sees all of them if it has the channels
    width = network.config.widths[0]
    chosen: dict[ChannelGroup, str] = {}
    for i, group in enumerate(channels(network)):
        if index_of(group) != (i // width) % width and draw(st.booleans()):
            chosen[group] = ways[len(chosen) % len(ways)]
    for group, way in chosen.items():
        touch(network, group, way)
    return network, chosen


@given(example=touched())
def test_exactly_what_does_not_matter_goes(example: tuple[Network, dict[ChannelGroup, str]]) -> None:
    network, chosen = example
    going = [group for group, way in chosen.items() if way != "constant"]
    assert going == [group for group, way in chosen.items() if goes(network, group, way)]
    before = copy.deepcopy(network.state_dict())
    small, receipt = compact(network)

    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    same_answers(network, small)
    assert receipt.difference <= 1e-12 * max(1, float(network(torch.rand(32, 2, 8, 8)).detach().abs().max()))
    width = network.config.widths[0]
    for name, counts in widths(network, small).items():
        inner, out = (sum((owner(g), kind_of(g)) == (name, kind) for g in going) for kind in ("inner", "output"))
        assert counts == (width, width - inner, width, width - out)
    now = {name: len(layer.weight) for name, layer in masked_layers(small).items()}
    rows = {name: (len(layer.weight), now[name]) for name, layer in masked_layers(network).items()}
    assert receipt.layers == {name: counts for name, counts in rows.items() if counts[0] != counts[1]}
    assert receipt.removed == len(going)
    assert receipt.changed is bool(going)
    assert receipt.flushed == 0
    assert (list(receipt.before), list(receipt.after)) == (cost(network), cost(small))
    stages = len(network.stages)
    assert receipt.after[-1].parameters == parameters_of(small.plans, stages, small)
    assert receipt.before[-1].parameters == parameters_of(plan(network.config), stages, network)
    assert (receipt.after[-1].macs < receipt.before[-1].macs) is bool(going)
    if "silent" not in chosen.values() and "unread" not in chosen.values():
        assert [exit_cost.kept for exit_cost in receipt.after] == [exit_cost.kept for exit_cost in receipt.before]

    again, second = compact(small)
    assert not second.changed
    assert second.before == second.after == receipt.after
    assert again.plans == small.plans
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in small.state_dict().items())


@given(example=touched(), data=st.data())
def test_what_stays_are_slices_of_the_same_tensors(
    example: tuple[Network, dict[ChannelGroup, str]], data: st.DataObject
) -> None:
    """Also under random weight masks, where more may go than was touched."""
    check_slices(example[0], data)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("side", ["inner", "output"])
def test_one_channel_of_each_kind_goes_in_each_way(way: str, side: str) -> None:
    network = build()
    for number, group in enumerate(
        group for group in channels(network) if (kind_of(group), index_of(group)) == (side, 1)
    ):
        one = copy.deepcopy(network)
        touch(one, group, way)
        small, receipt = compact(one)
        same_answers(one, small)
        assert receipt.removed == (way != "constant"), number
        inner, less, out, fewer = widths(one, small)[owner(group)]
        assert (inner - less, out - fewer) == ((receipt.removed, 0) if side == "inner" else (0, receipt.removed))


@pytest.mark.parametrize("values", [(0.0, 0.0), (0.0, -1.0), (1.0, -1.0), (2.0, -1.9), (-2.0, 1.9), (0.0, 1e-6)])
def test_two_batch_norms_count_by_their_sum(values: tuple[float, float]) -> None:
    network = build()
    group = next(group for group in channels(network) if kind_of(group) == "output")
    touch(network, group, "silent")
    for norm, value in zip(norms(group), values, strict=True):
        network.get_submodule(norm.name).get_buffer("running_mean")[norm.place] = 0
        set_constant(network, norm, value)
    small, receipt = compact(network)
    assert receipt.removed == (sum(values) <= 0)
    same_answers(network, small)


def test_the_heads_follow_the_outputs_they_read() -> None:
    network = build()  # stages of 2, 2 and 1 cells
    lost = [group for group in channels(network) if kind_of(group) == "output" and index_of(group) in (0, 2)]
    lose(network, lost)
    small, receipt = compact(network)
    assert [stage.exit_channels for stage in small.plans] == [2, 2, 4 + 4 + 2 * 4]
    assert [[c.in_channels for c in stage.cells] for stage in small.plans] == [[4, 8], [10, 12], [14]]
    for stage, (new, old) in enumerate(zip(small.stages, network.stages, strict=True)):
        ours, theirs = masked_layers(new)["exit.linear"].weight, masked_layers(old)["exit.linear"].weight
        channelwise = theirs.view(3, -1, 16)
        columns = [1, 3] if stage < 2 else [*range(8), *(8 + 4 * c + i for c in range(4) for i in (1, 3))]
        assert torch.equal(ours.view(3, -1, 16), channelwise[:, columns])
    # Nothing but masked weights went: those kept are the same, exit by exit.
    assert [exit_cost.kept for exit_cost in receipt.before] == [exit_cost.kept for exit_cost in receipt.after]
    assert all(after.macs < before.macs for after, before in zip(receipt.after, receipt.before, strict=True))
    same_answers(network, small)


def test_a_channel_whose_only_reader_goes_follows_it() -> None:
    network = build(structure=(0, 1), stages=1)
    masks = {name: layer.mask.clone() for name, layer in masked_layers(network).items()}
    # No head reads output 0 of cell 1, which alone reads its inner channel 3.
    masks["stages.0.exit.linear"][:, :16] = False
    masks["stages.0.cells.1.conv2"][1:, 3] = False
    # And inner channel 0 of cell 0 is silent; output 2 of cell 1 reads inner channel 1 of its cell alone.
    masks["stages.0.cells.0.conv1"][0] = False
    set_constant(network, Norm("stages.0.cells.0.norm1", 0), -1)
    masks["stages.0.cells.1.conv1"][1] = False
    set_constant(network, Norm("stages.0.cells.1.norm1", 1), -1)
    masks["stages.0.cells.1.conv2"][2, [0, 2, 3]] = False
    masks["stages.0.cells.1.shortcut.0"][2] = False
    for name in ("norm2", "shortcut.1"):
        set_constant(network, Norm(f"stages.0.cells.1.{name}", 2), -1)
    set_masks(network, masks)
    small, receipt = compact(network)
    assert receipt.removed == 1 + 2 + 2
    assert widths(network, small) == {"stages.0.cells.0": (4, 3, 4, 4), "stages.0.cells.1": (4, 2, 4, 2)}
    same_answers(network, small)


@pytest.mark.parametrize("wiring", KINDS)
def test_each_cell_keeps_one_channel_of_each_kind(wiring: str) -> None:
    network = build(wiring)
    lose(network, channels(network))
    small = compact(network)[0]
    left = {(less, fewer) for _, less, _, fewer in widths(network, small).values()}
    assert left == ({(1, 4), (1, 1)} if wiring == "dense" else {(1, 4)})
    same_answers(network, small)
    assert not compact(small)[1].changed


@pytest.mark.parametrize("cell", ["basic", "skip_second"])
@pytest.mark.parametrize("wiring", KINDS)
def test_an_unpruned_network_is_left_as_it_is_and_said_to_be(wiring: str, cell: str) -> None:
    network = build(wiring, cell=cell)
    small, receipt = compact(network)
    assert not receipt.changed
    assert receipt.before == receipt.after
    assert (receipt.removed, receipt.flushed, receipt.difference) == (0, 0, 0)
    assert small.plans == plan(small.config)
    assert all(torch.equal(value, small.state_dict()[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("structure", [(1,), (1, 1), (0,)])
def test_stages_without_cells(structure: tuple[int, ...]) -> None:
    network = build(structure=structure)
    lost = [group for group in channels(network) if index_of(group) == 3]
    lose(network, lost)
    small, receipt = compact(network)
    assert receipt.removed == len(lost) > 0
    same_answers(network, small)


def half_lost(network: Network) -> Network:
    """``network`` without channels 1 and 2 of each cell, compacted."""
    lost = [group for group in channels(network) if index_of(group) in (1, 2)]
    lose(network, lost)
    return compact(network)[0]


@pytest.mark.parametrize("wiring", KINDS)
def test_a_compacted_network_is_saved_and_read_back_exactly(wiring: str, tmp_path: Path) -> None:
    small = half_lost(build(wiring))
    card = card_with(Card(small.config, len(small.stages), ("a", "b", "c"), epoch=1), small)
    assert card.plans == small.plans
    for name, blob in pack_model(small, card).items():
        (tmp_path / name).write_bytes(blob)
    loaded, read = read_model(tmp_path)
    assert read == card
    assert loaded.plans == small.plans
    assert all(torch.equal(value, small.state_dict()[name]) for name, value in loaded.state_dict().items())
    pictures = torch.rand(3, 2, 8, 8)
    assert torch.equal(loaded(pictures), small(pictures))


@pytest.mark.parametrize("wiring", ["dense", "iterative"])
def test_a_compacted_young_network_trains_and_grows(wiring: str) -> None:
    small = half_lost(build(wiring, stages=1)).train()
    optimizer = torch.optim.SGD(parameter_groups(small, 1e-4), lr=0.01, momentum=0.9)
    pictures, labels = torch.rand(6, 2, 8, 8), torch.arange(6) % 3

    def step() -> None:
        optimizer.zero_grad()
        exit_losses(small(pictures), labels).sum().backward()
        optimizer.step()

    step()
    while not small.complete:
        grow(small, optimizer, seed=0)
        step()
    assert small(pictures).shape == (3, 6, 3)
    trunks = [[c.in_channels for c in stage.cells] for stage in small.plans]
    # The stem's 4, then 4 of the cell with the identity, 2 of the other, and 4 of each that grew later.
    assert trunks == ([[4, 8], [10, 14], [18]] if wiring == "dense" else [[4, 4], [4, 4], [4]])
    assert [stage.exit_channels for stage in small.plans] == ([2, 4, 22] if wiring == "dense" else [4, 4, 4])
    # A second compaction starts from these widths.
    again = half_lost(small)
    same_answers(small, again)


def test_a_compacted_network_grows_past_what_is_dead() -> None:
    """Dead channels of the stem stay in the trunk; a stage that grows is kept from reading them."""
    network = build(stages=1)
    layer = masked_layers(network)["stem.conv"]
    set_masks(network, {"stem.conv": layer.mask & (torch.arange(4) != 2)[:, None, None, None]})
    small = half_lost(network)
    assert dead_trunk(small).nonzero().flatten().tolist() == [2]
    grow(small, seed=0)
    mask_dead_inputs(small, 1)
    for name in ("conv1", "shortcut.0"):
        layer = masked_layers(small)[f"stages.1.cells.0.{name}"]
        assert layer.mask.any(dim=(0, 2, 3)).nonzero().flatten().tolist() == [0, 1, *range(3, 10)]
    assert small(torch.rand(2, 2, 8, 8)).shape == (2, 2, 3)
    same_answers(small, compact(small)[0])


def test_mode_precision_and_gradients_are_kept() -> None:
    network = build().double().train()
    frozen = "stages.0.cells.1.conv1.weight"
    network.get_parameter(frozen).requires_grad_(False)
    network.get_submodule("stages.0.cells.0.norm1").eval()
    modes = {name: module.training for name, module in network.named_modules()}
    state = torch.random.get_rng_state()
    small = half_lost(network)
    assert torch.equal(torch.random.get_rng_state(), state)
    for one in (network, small):
        assert {name: module.training for name, module in one.named_modules()} == modes
    assert {name for name, parameter in small.named_parameters() if not parameter.requires_grad} == {frozen}
    assert {value.dtype for value in small.state_dict().values()} == {torch.float64, torch.int64, torch.bool}
    assert all(parameter.is_leaf and parameter.grad is None for parameter in small.parameters())
    twin = copy.deepcopy(small)
    assert twin.plans == small.plans
    same_answers(twin, small)


def test_denormals_become_zero_and_are_counted() -> None:
    network = build()
    group = channels(network)[5]
    norm = norms(group)[0]
    with torch.no_grad():
        network.stem.conv.weight[0, 0, 0, :] = torch.tensor([1e-39, -1e-45, 1.2e-38])
        # In evaluation mode this one gives 1e-40, which is nothing once it is flushed.
        touch(network, group, "silent")
        for key, value in (("weight", 1.0), ("bias", 1e-40)):
            network.get_submodule(norm.name).get_parameter(key)[norm.place] = value
        network.get_submodule(norm.name).get_buffer("running_mean")[norm.place] = 0
    small, receipt = compact(network)
    assert receipt.flushed == 2
    assert receipt.removed == 1
    assert receipt.changed
    assert small.stem.conv.weight[0, 0, 0].tolist() == [0, 0, pytest.approx(1.2e-38)]
    assert not compact(small)[1].changed


def nothing_is_read(network: Network, pictures: Tensor) -> Constants:
    """A fault: every channel that is the same for all pictures is taken to be 0."""
    inputs, output = constants(network, pictures)
    return Constants({name: LayerInput(read.constant, read.constant) for name, read in inputs.items()}, output)


def test_a_proof_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build()
    touch(network, channels(network)[0], "constant")
    assert compact(network)[1].removed == 0
    optimizer = torch.optim.Adam(network.parameters())
    monkeypatch.setattr(compaction, "constants", nothing_is_read)
    with pytest.raises(RunError, match=r"compact: the logits of the compacted network differ by [\d.e+-]+ from"):
        compact(network, optimizer)
    assert all(p is kept for p, kept in zip(network.parameters(), optimizer.param_groups[0]["params"], strict=True))


def test_logits_that_are_not_numbers_are_no_proof() -> None:
    network = build()
    bias: Tensor = network.get_parameter("stages.0.exit.linear.bias").data
    bias[0] = torch.nan
    with pytest.raises(RunError, match="differ by nan"):
        compact(network)


@pytest.mark.parametrize("optimizer_name", ["sgd", "adamw"])
@pytest.mark.parametrize("wiring", ["dense", "iterative"])
def test_training_goes_on_as_if_nothing_had_happened(wiring: str, optimizer_name: str) -> None:
    """What the optimizer knew stays with the weights that stay, so both networks learn the same."""
    network = build(wiring, stages=1).double().train()
    groups = parameter_groups(network, 1e-2)
    optimizer: torch.optim.Optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True)
    if optimizer_name == "adamw":
        optimizer = torch.optim.AdamW(groups, lr=0.001, amsgrad=True)
    pictures, labels = pictures_for(network, 6).double(), torch.arange(6) % 3

    def steps(trained: Network, its_optimizer: torch.optim.Optimizer) -> Tensor:
        for _ in range(3):
            its_optimizer.zero_grad()
            exit_losses(trained(pictures), labels).sum().backward()
            its_optimizer.step()
        logits: Tensor = trained(pictures).detach()
        return logits

    steps(network, optimizer)
    lost = [group for group in channels(network) if index_of(group) in (1, 2)]
    set_masks(network, mask_channels(network, lost), optimizer)
    silence(network, *lost, optimizer=optimizer)
    twin, twin_optimizer = copy.deepcopy((network, optimizer))
    before = copy.deepcopy(network.state_dict())
    small, receipt = compact(network, optimizer)
    assert receipt.removed == len(lost)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    grouped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert {id(parameter) for parameter in grouped} == {id(parameter) for parameter in small.parameters()}
    assert [(group["stage"], group["decay"]) for group in optimizer.param_groups] == [(0, True), (0, False)]
    torch.testing.assert_close(steps(small, optimizer), steps(twin, twin_optimizer), rtol=0, atol=1e-9)
    grow(small, optimizer, seed=0)
    assert steps(small, optimizer).isfinite().all()
