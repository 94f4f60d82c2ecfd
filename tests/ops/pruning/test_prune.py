"""Pruning: masks nest, counts are exact, no layer dies, and nothing brings a masked weight back."""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ramify.config.rules import NetworkConfig
from ramify.errors import InputError
from ramify.nn.exit import PooledHead
from ramify.nn.graph import ChannelGroup
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.nn.zoo import ZOO
from ramify.ops.cost import place_exits, stage_density
from ramify.ops.growing.grow import grow
from ramify.ops.loss import exit_losses
from ramify.ops.pruning.channels import alive, channels, owner
from ramify.ops.pruning.compact import compact
from ramify.ops.pruning.prune import prune
from ramify.ops.pruning.saliency import SALIENCIES
from ramify.ops.surgery import optimizer_state, parameter_groups, reinitialize, revived
from ramify.schedule import prune_targets
from tests.conftest import NIGHTLY
from tests.ops.networks import NARROW, chain, every_narrow, kind_of, norms, pictures_for

KINDS = ("dense", "iterative", "full_ic", "full")


def build(kind: str = "iterative", structure: tuple[int, ...] = (0, 1, 1, 0), channels: int = 4) -> Network:
    config = NetworkConfig.model_validate(
        {"kind": kind, "structure": structure, "channels": channels, "input_shape": (1, 8, 8), "classes": 3}
    )
    return Network(config, stages=config.exits, seed=0)


def pictures(number: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(number, 1, 8, 8, generator=torch.Generator().manual_seed(3)), torch.arange(number) % 3


def masks(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: layer.mask.clone() for name, layer in masked_layers(network).items()}


def kept(network: Network, stages: list[int] | None = None) -> tuple[int, int]:
    """Weights kept, and all weights, of ``stages``."""
    chosen = range(len(network.stages)) if stages is None else stages
    layers = [layer for s in chosen for m in network.stage_modules(s).values() for layer in masked_layers(m).values()]
    return sum(int(layer.mask.sum()) for layer in layers), sum(layer.mask.numel() for layer in layers)


def lost_of(network: Network) -> list[ChannelGroup]:
    """The channel groups with no unmasked weight."""
    groups = channels(network)
    return [group for group, lives in zip(groups, alive(network, groups), strict=True) if not lives]


def steps(network: Network, optimizer: torch.optim.Optimizer, number: int) -> None:
    images, labels = pictures()
    for _ in range(number):
        optimizer.zero_grad()
        exit_losses(network.train()(images), labels).sum().backward()
        optimizer.step()


@settings(max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    structure=st.lists(st.integers(0, 1), min_size=1, max_size=4).map(tuple),
    criterion=st.sampled_from(["magnitude", "random", "erk", "synflow"]),
    ratios=st.lists(st.floats(0.15, 1.0), min_size=1, max_size=3),
    local=st.booleans(),
    rounds=st.integers(1, 3),
    control=st.sampled_from(["none", "shuffle", "invert", "reinit"]),
)
def test_masks_nest_and_counts_are_exact(
    kind: str, structure: tuple[int, ...], criterion: str, ratios: list[float], local: bool, rounds: int, control: str
) -> None:
    network = build(kind, structure)
    lowest = [1.0] * len(network.stages)
    for ratio in ratios:
        before = masks(network)
        targets: float | dict[int, float] = dict.fromkeys(range(len(network.stages)), ratio) if local else ratio
        report = prune(network, targets, criterion, rounds=rounds, control=control)  # type: ignore[arg-type]
        after = masks(network)
        assert all(not (after[name] & ~before[name]).any() for name in before), "a mask grew"
        lowest = [min(low, ratio) for low in lowest]
        if local:
            for stage, low in enumerate(lowest):
                count, total = kept(network, [stage])
                assert count == round(low * total)
        else:
            count, total = kept(network)
            assert count == round(lowest[0] * total) == report.after
        assert all(mask.any() for mask in after.values()), "a layer died"
        assert revived(network) == 0
        assert report.changed == (report.after < report.before or control == "reinit")


@pytest.mark.parametrize("criterion", sorted(SALIENCIES))
@pytest.mark.parametrize("kind", KINDS)
def test_every_criterion_prunes_every_kind(criterion: str, kind: str) -> None:
    network = build(kind)
    report = prune(network, 0.3, criterion, [pictures()])
    count, total = kept(network)
    assert count == round(0.3 * total) == report.after
    assert network(pictures()[0]).isfinite().all()


def test_the_highest_scores_are_kept_and_ties_go_by_position() -> None:
    network = build("full", (0,))
    layer = masked_layers(network)["stages.0.cells.0.conv1"]
    with torch.no_grad():
        for other in masked_layers(network).values():
            other.weight.fill_(1.0)
        layer.weight.fill_(2.0)
    total = kept(network)[1]
    layers = len(masked_layers(network))
    count = layer.weight.numel() + layers + 20
    report = prune(network, count / total, "magnitude")
    assert report.after == count
    assert layer.mask.all()
    stem = masked_layers(network)["stem.conv"].mask.flatten()
    assert stem[:22].all()  # the first is the floor's, then come 21 more by position
    assert not stem[22:].any()


def test_tied_scores_keep_exactly_what_was_asked() -> None:
    """The 2020 code kept everything where scores tied."""
    network = build("full", (0,))
    with torch.no_grad():
        for layer in masked_layers(network).values():
            layer.weight.fill_(1.0)
    prune(network, 0.5, "magnitude")
    count, total = kept(network)
    assert count == round(0.5 * total)


def test_the_seeds_schedules_end_at_its_counts() -> None:
    config = NetworkConfig(
        kind="dense", structure=(0, 0, 1, 0, 0, 1, 0, 1, 0), input_shape=(3, 32, 32), classes=10, channels=16
    )
    births = (1, 25, 50, 75)
    cases = (
        ("iterative", (10, 35, 60, 85, 110, 135, 160), 0.46, 0.1, 16_939),
        ("skip_layer", (10, 35, 60, 85), 0.8, None, 135_512),
    )
    for policy, epochs, keep, floor, expected in cases:
        network = Network(config, seed=0)
        for epoch in sorted({*epochs, *births[1:]}):
            if epoch in births:
                grow(network, seed=0)
            if epoch in epochs:
                prune(network, prune_targets(policy, epoch, epochs, births, keep, floor), "random")
        assert network.complete
        assert abs(kept(network)[0] - expected) <= 4


def test_pruning_one_stage_leaves_the_others_alone() -> None:
    network = build("dense")
    before = masks(network)
    prune(network, {1: 0.4}, "magnitude")
    for name, mask in masks(network).items():
        assert torch.equal(mask, before[name]) is not name.startswith("stages.1."), name
    assert stage_density(network)[0] == 1.0


def test_nothing_changes_where_less_is_kept_already() -> None:
    network = build()
    assert prune(network, 0.3, "magnitude").changed
    before = copy.deepcopy(network.state_dict())
    again = prune(network, 0.6, "random")
    assert not again.changed
    assert again.before == again.after
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())


OPTIMIZERS = ("sgd", "adam", "adamw", "sgd over plain parameters")


def optimizer_for(name: str, network: Network) -> torch.optim.Optimizer:
    if name == "sgd over plain parameters":
        return torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)
    groups = parameter_groups(network, 0.05)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.05, momentum=0.9)
    return (torch.optim.Adam if name == "adam" else torch.optim.AdamW)(groups, lr=0.01)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_masked_weight_lives_after_many_steps(name: str) -> None:
    many = 500 if NIGHTLY else 30
    network = build("dense", (1, 0))
    optimizer = optimizer_for(name, network)
    steps(network, optimizer, 5)
    prune(network, 0.3, "snip", [pictures()], optimizer)
    masked = masks(network)
    steps(network, optimizer, many)
    prune(network, 0.2, "magnitude", optimizer=optimizer)
    steps(network, optimizer, many)
    assert revived(network) == 0
    assert all(not (now & ~masked[layer]).any() for layer, now in masks(network).items())
    assert all(value.isfinite().all() for value in network.state_dict().values())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizer_forgets_masked_weights_and_no_others(name: str) -> None:
    network = build("dense")
    optimizer = optimizer_for(name, network)
    steps(network, optimizer, 3)
    before = copy.deepcopy(optimizer_state(optimizer, network))
    weights = {layer: part.weight.detach().clone() for layer, part in masked_layers(network).items()}
    prune(network, 0.4, "magnitude", optimizer=optimizer)
    after = optimizer_state(optimizer, network)
    for layer, part in masked_layers(network).items():
        assert torch.equal(part.weight[part.mask], weights[layer][part.mask])
        for key, tensor in before[f"{layer}.weight"].items():
            now = after[f"{layer}.weight"][key]
            if tensor.shape == part.mask.shape:
                assert torch.equal(now[part.mask], tensor[part.mask])
                assert not now[~part.mask].any()
            else:
                assert torch.equal(now, tensor)
    others = [key for key in before if key not in {f"{layer}.weight" for layer in weights}]
    assert all(torch.equal(after[key][inner], before[key][inner]) for key in others for inner in before[key])


def test_an_average_of_the_weights_takes_the_masks() -> None:
    network = build()
    optimizer = optimizer_for("sgd", network)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for _ in range(3):
        steps(network, optimizer, 1)
        average.update_parameters(network)
    prune(network, 0.3, "magnitude", optimizer=optimizer, followers=[average.module])
    for _ in range(3):
        steps(network, optimizer, 1)
        average.update_parameters(network)
    assert revived(average.module) == 0
    assert all(torch.equal(mask, masks(network)[name]) for name, mask in masks(average.module).items())


def test_masks_hold_through_growth_copies_and_state() -> None:
    config = NetworkConfig(kind="dense", structure=(1, 1, 0), channels=4, input_shape=(1, 8, 8), classes=3)
    network = Network(config, seed=0)
    optimizer = optimizer_for("sgd", network)
    prune(network, 0.5, "snip", [pictures()], optimizer)
    before = masks(network)
    grow(network, optimizer, seed=0)
    steps(network, optimizer, 3)
    assert all(torch.equal(masks(network)[name], mask) for name, mask in before.items())
    twin = Network(config, stages=2, seed=5)
    twin.load_state_dict(network.state_dict(), strict=True)
    images = pictures()[0]
    for other in (twin, copy.deepcopy(network)):
        assert torch.equal(other.eval()(images), network.eval()(images))
        assert revived(other) == 0


@pytest.mark.slow
def test_masks_hold_under_torch_compile() -> None:
    network = build("iterative", (1,))
    compiled = torch.compile(network, backend="aot_eager")
    optimizer = optimizer_for("sgd", network)
    images, labels = pictures()
    prune(network, 0.3, "magnitude", optimizer=optimizer)
    for _ in range(5):
        optimizer.zero_grad()
        exit_losses(compiled(images), labels).sum().backward()
        optimizer.step()
    assert revived(network) == 0
    torch.testing.assert_close(compiled(images), network(images), rtol=1e-4, atol=1e-5)


def test_a_revived_weight_is_counted() -> None:
    network = build()
    prune(network, 0.5, "magnitude")
    layer = masked_layers(network)["stem.conv"]
    with torch.no_grad():
        layer.weight.fill_(1.0)
    assert revived(network) == int((~layer.mask).sum()) > 0


def test_reinit_redraws_survivors_and_resets_their_norms_and_momentum() -> None:
    network = build("dense")
    optimizer = optimizer_for("sgd", network)
    steps(network, optimizer, 3)
    before = copy.deepcopy(network.state_dict())
    state = copy.deepcopy(optimizer_state(optimizer, network))
    report = prune(network, {1: 0.5}, "magnitude", optimizer=optimizer, reinit=True, seed=4)
    assert report.reinit
    after = network.state_dict()
    layer = masked_layers(network)["stages.1.cells.0.conv1"]
    changed = after["stages.1.cells.0.conv1.weight"] != before["stages.1.cells.0.conv1.weight"]
    assert changed[layer.mask].all()
    assert torch.equal(after["stages.1.cells.0.norm1.running_mean"], torch.zeros(4))
    assert torch.equal(after["stages.1.cells.0.norm1.weight"], torch.ones(4))
    assert torch.equal(after["stem.conv.weight"], before["stem.conv.weight"])
    now = optimizer_state(optimizer, network)
    assert not any(name.startswith("stages.1.") for name in now)
    assert all(torch.equal(now[name]["momentum_buffer"], state[name]["momentum_buffer"]) for name in now)
    assert revived(network) == 0


def test_invert_keeps_what_the_criterion_would_drop() -> None:
    plain, inverted = build("full", (0,)), build("full", (0,))
    prune(plain, 0.5, "magnitude", floor=0)
    prune(inverted, 0.5, "magnitude", control="invert", floor=0)
    both = [int((masks(plain)[name] & masks(inverted)[name]).sum()) for name in masks(plain)]
    assert sum(both) <= 1


def test_shuffle_keeps_the_number_of_each_layer_at_other_places() -> None:
    plain, shuffled = build("dense"), build("dense")
    for network, control in ((plain, "none"), (shuffled, "shuffle")):
        prune(network, 0.6, "magnitude", control="none")
        prune(network, 0.3, "snip", [pictures()], control=control)  # type: ignore[arg-type]
    one, other = masks(plain), masks(shuffled)
    assert [int(mask.sum()) for mask in one.values()] == [int(mask.sum()) for mask in other.values()]
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_rounds_end_at_the_same_count_by_another_road() -> None:
    once, often = build("full", (0, 0, 0)), build("full", (0, 0, 0))
    prune(once, 0.1, "synflow")
    prune(often, 0.1, "synflow", rounds=20)
    assert kept(once)[0] == kept(often)[0]
    assert any(not torch.equal(masks(once)[name], masks(often)[name]) for name in masks(once))


def test_a_layer_that_would_die_is_named_with_the_smallest_ratio_that_works() -> None:
    network = build()
    count, total = len(masked_layers(network)), kept(network)[1]
    with pytest.raises(InputError, match=r"would die; accepted: at least 0\.0\d+, or prune\.floor=0") as caught:
        prune(network, 2 / total, "magnitude")
    smallest = float(str(caught.value).rpartition("at least ")[2].partition(",")[0])
    assert smallest >= count / total
    assert any(name in str(caught.value) for name in masks(network))
    assert all(mask.all() for mask in masks(network).values()), "a refused pruning changes nothing"
    prune(network, smallest, "magnitude")
    assert all(mask.any() for mask in masks(network).values())


def test_a_layer_dies_when_that_is_asked_for() -> None:
    network = build()
    prune(network, 2 / kept(network)[1], "magnitude", floor=0)
    assert kept(network)[0] == 2


@pytest.mark.parametrize("ratio", [0.0, -0.5, 1.5])
def test_ratios_out_of_range_are_refused(ratio: float) -> None:
    with pytest.raises(InputError, match=r"prune\.keep_ratio: got .*; accepted: a number in \(0, 1\]"):
        prune(build(), ratio, "magnitude")


def test_a_stage_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="got stage 6; accepted: stages 1 to 3, which exist"):
        prune(build(), {5: 0.5}, "magnitude")


def test_a_criterion_that_needs_labels_wants_pictures() -> None:
    with pytest.raises(InputError, match=r"prune\.criterion: got 'snip' without pictures"):
        prune(build(), 0.5, "snip")
    with pytest.raises(InputError, match=r"prune\.criterion: got 'magic'; accepted: snip, "):
        prune(build(), 0.5, "magic")


@pytest.mark.parametrize("wiring", KINDS)
def test_channels_are_kept_in_the_asked_number_and_give_nothing_when_lost(wiring: str) -> None:
    network = build(wiring, channels=6)
    optimizer = optimizer_for("adamw", network)
    steps(network, optimizer, 3)
    report = prune(network, 0.5, "magnitude", optimizer=optimizer, unit="channel")
    assert report.changed
    lost_channels = lost_of(network)
    assert len(lost_channels) == len(channels(network)) - round(0.5 * len(channels(network)))
    for name, layer in masked_layers(network).items():
        if name.endswith("conv1"):
            lost = ~layer.mask.flatten(1).any(dim=1)
            assert not lost.all()
            partner = masked_layers(network)[name.replace("conv1", "conv2")]
            assert not partner.mask[:, lost].any()
    steps(network, optimizer, 20)
    assert revived(network) == 0
    assert all(map(norms, lost_channels))
    for name, place in (norm for group in lost_channels for norm in norms(group)):
        norm = network.get_submodule(name)
        assert isinstance(norm, torch.nn.BatchNorm2d)
        assert norm.weight[place] == norm.bias[place] == 0


def test_shuffled_channels_are_as_many_in_each_cell() -> None:
    plain, shuffled = build("dense", channels=8), build("dense", channels=8)
    prune(plain, 0.5, "magnitude", unit="channel")
    prune(shuffled, 0.5, "magnitude", unit="channel", control="shuffle", seed=1)
    living = [
        [(owner(g), kind_of(g), lives) for g, lives in zip(channels(each), alive(each, channels(each)), strict=True)]
        for each in (plain, shuffled)
    ]
    assert sorted(living[0]) == sorted(living[1])
    assert living[0] != living[1]


def test_too_few_channels_are_refused_with_the_smallest_ratio_that_works() -> None:
    with pytest.raises(InputError, match=r"a layer would die; accepted: at least 0\.\d+"):
        prune(build("dense", channels=8), 0.01, "magnitude", unit="channel")
    config = NetworkConfig(cell="skip_second", structure=(1,), input_shape=(1, 8, 8), classes=3)
    with pytest.raises(InputError, match=r"prune\.unit: got channel, but .* has no channel to lose; accepted: weight"):
        prune(Network(config), 0.5, "magnitude", unit="channel")


# Cells of every type


def architecture(name: str) -> Network:
    config = NetworkConfig.model_validate({"cells": name, "kind": "full_ic", "input_shape": (1, 16, 16), "classes": 3})
    return Network(place_exits(config), seed=0)


@every_narrow
@pytest.mark.parametrize("criterion", ["magnitude", "synflow", "erk"])
def test_weights_of_any_cells_are_kept_in_the_asked_number(name: str, criterion: str) -> None:
    network = chain(name)
    prune(network, 0.4, criterion)
    count, total = kept(network)
    assert count == round(0.4 * total)
    assert revived(network) == 0
    assert compact(network)[1].after[-1].kept <= count


@pytest.mark.parametrize("name", list(ZOO))
def test_every_architecture_keeps_the_asked_number_of_channels(name: str) -> None:
    network = architecture(name)
    prune(network, 0.3, "random", unit="channel")
    found = channels(network)
    living = alive(network, found)
    assert sum(living) == round(0.3 * len(found))
    assert {group.space for group, lives in zip(found, living, strict=True) if lives} == {
        group.space for group in found
    }
    assert revived(network) == 0
    assert network(pictures_for(network)).isfinite().all()


@pytest.mark.parametrize(
    ("name", "control"),
    [*itertools.product(NARROW, ("none", "reinit")), ("basic", "shuffle"), ("basic", "invert")],
)
def test_lost_channels_of_any_cell_stay_lost_while_it_trains(name: str, control: str) -> None:
    network = chain(name).train()
    optimizer = optimizer_for("sgd", network)
    images, labels = pictures_for(network, 12), torch.arange(12) % 3

    def step() -> None:
        optimizer.zero_grad()
        exit_losses(network(images), labels).sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    for _ in range(2):
        step()
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    average.update_parameters(network)
    prune(network, 0.5, "magnitude", (), optimizer, unit="channel", control=control, followers=[average.module])  # type: ignore[arg-type]
    found = channels(network)
    lost = lost_of(network)
    assert len(lost) == len(found) - round(0.5 * len(found))
    for _ in range(5):
        step()
        average.update_parameters(network)
    assert revived(network) == 0
    for each in (network, average.module):
        assert isinstance(each, Network)
        receipt = compact(each.eval())[1]
        assert receipt.removed == len(lost)
        assert receipt.after[-1].kept == receipt.after[-1].weights, "nothing is masked any more"


@every_narrow
def test_redrawn_weights_forget_everything(name: str) -> None:
    network = chain(name)
    fresh = Network(network.config, stages=len(network.stages), plans=network.plans)
    before = copy.deepcopy(network.state_dict())
    reinitialize(network, range(len(network.stages)), seed=1)
    for key, value in network.state_dict().items():
        if key.endswith(".weight") and value.dim() > 1:
            assert (value != before[key]).all(), key
        elif key not in ("mean", "std"):
            assert torch.equal(value, fresh.state_dict()[key]), key
    assert any(isinstance(module, PooledHead) for module in network.modules())


def test_a_whitened_stem_is_never_redrawn() -> None:
    config = NetworkConfig(kind="full", structure=(0,), channels=8, stem="whitened", input_shape=(1, 8, 8), classes=3)
    network = Network(config)
    before = network.get_parameter("stem.conv.weight").clone()
    reinitialize(network, [0])
    assert torch.equal(network.get_parameter("stem.conv.weight"), before)
