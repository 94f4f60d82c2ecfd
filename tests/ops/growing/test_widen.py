"""Widening: cells have more inner channels, the answers stay, and new channels learn something of their own."""

import copy
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ramify.errors import InputError
from ramify.nn.attach import attach_exits
from ramify.nn.data_form import description
from ramify.nn.masked import MaskedConv2d, masked_layers
from ramify.nn.network import Network, existing_cells, plan
from ramify.ops.cost import cost
from ramify.ops.growing.grow import grow
from ramify.ops.growing.inherit import measured
from ramify.ops.growing.widen import widen
from ramify.ops.pruning.channels import channels, mask_dead_inputs
from ramify.ops.pruning.compact import compact
from ramify.ops.surgery import optimizer_state, parameter_groups, revived, set_masks
from ramify.run.checkpoint import Card, card_with, pack_model, pack_trainer, read_model, read_trainer
from ramify.run.checkpoint import TrainerState as Saved
from tests.ops.growing.test_inherit import KINDS, PRUNINGS, pruned, seed_network, step, stir, trainer
from tests.ops.networks import chain, kind_of, pictures_for

Init = Literal["random", "copy"]
INITS: tuple[Init, ...] = ("random", "copy")


def logits_of(network: Network) -> Tensor:
    with torch.no_grad():
        found: Tensor = network.eval()(pictures_for(network, 8).to(network.mean))
    return found


def widened_alike(network: Network, stage: int, count: int, init: Init, images: Tensor | None = None) -> None:
    """Widen, and check that the function is kept, in float32 and in float64."""
    precise = copy.deepcopy(network).double()
    for each, accepted in ((network, 1e-6), (precise, 1e-12)):
        before = logits_of(each)
        widen(each, stage, count, init=init, seed=0, images=images)
        assert float((logits_of(each) - before).abs().max() / before.abs().max().clamp(min=1)) <= accepted
        assert revived(each) == 0


def has_live_channels(network: Network, name: str) -> bool:
    layers = masked_layers(network)
    made = layers[f"{name}.conv1"].mask.any(dim=(1, 2, 3))
    return bool((made & layers[f"{name}.conv2"].mask.any(dim=(0, 2, 3))).any())


@pytest.mark.slow
@given(
    kind=st.sampled_from(KINDS),
    structure=st.lists(st.integers(0, 1), min_size=1, max_size=4),
    width=st.integers(2, 6),
    pruning=st.sampled_from(PRUNINGS),
    init=st.sampled_from(INITS),
    count=st.integers(1, 9),
    fitted=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_function_stays(
    kind: str, structure: list[int], width: int, pruning: str, init: Init, count: int, fitted: bool, seed: int
) -> None:
    network = seed_network(kind, structure, width=width)
    while True:
        network = pruned(network, pruning, seed)
        index = seed % len(network.stages)
        if network.plans[index].cells:
            # Where pruning left nothing to copy, new channels are drawn.
            how = init if all(has_live_channels(network, name) for _, name, _ in existing_cells(network)) else "random"
            widened_alike(network, index, count, how, torch.rand(8, 2, 8, 8) if fitted else None)
        if network.complete:
            break
        grow(network, seed=seed)
        stir(network.stages[-1], seed)
    small = compact(network)[0]
    assert float((logits_of(small) - logits_of(network)).abs().max()) < 1e-4


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize(("name", "stage"), [("basic", 0), ("basic", 1), ("preactivation", 0), ("preactivation", 1)])
def test_every_type_with_inner_channels_of_its_own_is_widened(name: str, stage: int, init: Init) -> None:
    """Also where it projects or halves the map."""
    network = chain(name)
    before, size = network.plans[stage], cost(network)[-1]
    images = pictures_for(network)
    twin = copy.deepcopy(network)
    widened_alike(network, stage, 3, init, images)
    report = widen(twin, stage, 3, init=init, seed=0, images=images)
    assert all(torch.equal(value, twin.state_dict()[key]) for key, value in network.state_dict().items())
    after = cost(network)[-1]
    assert report.parameters == after.parameters - size.parameters
    assert report.weights == after.kept - size.kept == after.weights - size.weights
    assert (report.stage, report.init) == (stage, init)
    assert [each.plan for each in network.stages] == list(network.plans)
    assert list(report.cells.values()) == [(cell.inner_channels, cell.inner_channels + 3) for cell in before.cells]
    for key, module in network.named_modules():
        if isinstance(module, MaskedConv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels), key
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.shape == (module.num_features,), key


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_there_stays(kind: str) -> None:
    network = seed_network(kind, (0, 1, 0))
    before = copy.deepcopy(network.state_dict())
    widen(network, 0, 3, seed=0)
    for key, value in before.items():
        now = network.state_dict()[key]
        assert torch.equal(now[tuple(slice(size) for size in value.shape)], value), key
    fresh = network.state_dict()["stages.0.cells.0.conv1.weight"][4:]
    assert fresh.std() == pytest.approx((2 / (7 * 9)) ** 0.5, rel=0.3)
    assert not network.state_dict()["stages.0.cells.0.conv2.weight"][:, 4:].any()
    for key, expected in {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}.items():
        assert (network.state_dict()[f"stages.0.cells.0.norm1.{key}"][4:] == expected).all()


def test_statistics_of_random_new_channels_are_measured() -> None:
    network = seed_network("dense", (0, 1, 0))
    images = pictures_for(network)
    before = copy.deepcopy(network.state_dict())
    widen(network, 0, 3, seed=0, images=images)
    norms = [module for name, module in network.named_modules() if name.endswith("norm1") and "cells" in name]
    assert len(norms) == 2
    found = measured(network, images, [norm for norm in norms if isinstance(norm, nn.BatchNorm2d)])
    for norm, (mean, variance) in found.items():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        torch.testing.assert_close(norm.running_mean[4:], mean[4:])
        torch.testing.assert_close(norm.running_var[4:], variance[4:])
    for key in ("running_mean", "running_var"):
        name = f"stages.0.cells.1.norm1.{key}"
        assert torch.equal(network.state_dict()[name][:4], before[name])


def test_copies_are_copies_and_do_not_stay_twins() -> None:
    network = seed_network("iterative", (1, 0))
    cell = "stages.0.cells.0"
    before = copy.deepcopy(network.state_dict())
    widen(network, 0, 6, init="copy", seed=0)
    after = network.state_dict()
    sources = []
    for new in range(4, 10):
        row = after[f"{cell}.conv1.weight"][new]
        [source] = [old for old in range(4) if torch.equal(row, before[f"{cell}.conv1.weight"][old])]
        for key in ("weight", "bias", "running_mean", "running_var"):
            assert after[f"{cell}.norm1.{key}"][new] == before[f"{cell}.norm1.{key}"][source]
        share = after[f"{cell}.conv2.weight"][:, new] / before[f"{cell}.conv2.weight"][:, source]
        assert share.std() < 1e-5
        # Of one that was shared before, what was left.
        assert (0.25 if source not in sources else 0.06) <= share.mean() <= 0.75
        sources.append(source)
    # None twice before each was taken once.
    assert sorted(sources[:4]) == [0, 1, 2, 3]
    assert len(set(sources[4:])) == 2
    torch.testing.assert_close(
        after[f"{cell}.conv2.weight"].sum(dim=1), before[f"{cell}.conv2.weight"].sum(dim=1), rtol=0, atol=1e-6
    )
    optimizer = trainer(network)
    for _ in range(3):
        step(network, optimizer)
    rows = network.state_dict()[f"{cell}.conv1.weight"]
    learning = [source for source in range(4) if not torch.equal(rows[source], before[f"{cell}.conv1.weight"][source])]
    assert len(learning) > 2
    for new, source in enumerate(sources, start=4):
        assert torch.equal(rows[new], rows[source]) is (source not in learning)


def test_a_channel_that_is_copied_often_is_shared_by_all() -> None:
    network = seed_network("iterative", (1, 0))
    name = "stages.0.cells.0.conv2.weight"
    before = network.get_parameter(name).detach().clone()
    widen(network, 0, 16, init="copy", seed=0)
    shares = network.get_parameter(name).detach()[:, :, None] / before[:, None]  # of each channel in each old one
    left = shares.diagonal(dim1=1, dim2=2)[..., :4]
    assert left.min() > 0.25**4 * 0.99
    assert left.max() < 0.75**4 * 1.01


def test_copies_take_masks_and_only_channels_that_matter() -> None:
    network = seed_network("iterative", (1, 0))
    masks = {name: layer.mask.clone() for name, layer in masked_layers(network).items()}
    conv1, conv2 = "stages.0.cells.0.conv1", "stages.0.cells.0.conv2"
    masks[conv1][0] = False  # not made
    masks[conv2][:, 1] = False  # not read
    masks[conv1][2, 0] = masks[conv1][3, 0] = False
    masks[conv2][1, 2:] = False
    set_masks(network, masks)
    widened_alike(network, 0, 4, "copy")
    layers = masked_layers(network)
    assert not layers[conv1].mask[4:, 0].any()
    assert layers[conv1].mask[4:, 1:].all()
    assert not layers[conv2].mask[1, 4:].any()
    assert layers[conv2].mask[2:, 4:].all()
    masks = {name: torch.zeros_like(layer.mask) for name, layer in layers.items() if name == conv1}
    set_masks(network, masks)
    with pytest.raises(InputError, match=r"all inner channels of .* are pruned; accepted: random"):
        widen(network, 0, 1, init="copy")
    widened_alike(network, 0, 1, "random")


def test_random_new_channels_neither_read_nor_make_what_is_dead() -> None:
    network = seed_network("dense", (0, 1, 0))
    stem = masked_layers(network)["stem.conv"].mask.clone()
    stem[1] = False
    rows = masked_layers(network)["stages.0.cells.1.conv2"].mask.clone()
    rows[2] = False
    # The weights that were there read the constant of the dead channel, and stay.
    network.get_parameter("stem.norm.bias").data[1] = 3
    set_masks(network, {"stem.conv": stem, "stages.0.cells.1.conv2": rows})
    widened_alike(network, 0, 2, "random")
    for cell, dead in (("0", [1]), ("1", [1])):
        mask = masked_layers(network)[f"stages.0.cells.{cell}.conv1"].mask
        assert mask[:4].all()
        assert (~mask[4:].any(dim=(0, 2, 3))).nonzero().flatten().tolist() == dead
    mask = masked_layers(network)["stages.0.cells.1.conv2"].mask
    assert not mask[2].any()
    assert mask[[0, 1, 3]].all()
    assert mask_dead_inputs(copy.deepcopy(network), 0) > 0


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_widened_network_is_saved_and_read_back_and_goes_on(kind: str, init: Init, tmp_path: Path) -> None:
    network = seed_network(kind, (0, 1, 0), exit="average")
    optimizer = torch.optim.AdamW(parameter_groups(network, 1e-2), lr=0.01)
    step(network, optimizer)
    widen(network, 0, 3, optimizer, init=init, seed=0)
    step(network, optimizer)
    assert [cell.inner_channels for stage in network.plans for cell in stage.cells] == [7, 7, 4]
    card = card_with(Card(network.config, 1, ("a", "b", "c"), epoch=1), network)
    assert card.plans == network.plans
    saved = Saved(epoch=1)
    for name, blob in (pack_model(network, card) | pack_trainer(network, optimizer, saved)).items():
        (tmp_path / name).write_bytes(blob)
    loaded, read = read_model(tmp_path)
    assert isinstance(loaded, Network)
    assert read == card
    assert loaded.plans == network.plans
    restored = torch.optim.AdamW(parameter_groups(loaded, 1e-2), lr=0.01)
    read_trainer(tmp_path, loaded, restored)
    for each, its_optimizer in ((network, optimizer), (loaded, restored)):
        step(each, its_optimizer)
        grow(each, its_optimizer, seed=1)
        step(each, its_optimizer)
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("init", INITS)
def test_followers_are_widened_alike(init: Init) -> None:
    """An average of the weights keeps its own function, and goes on averaging."""
    network = seed_network("dense", (0, 1, 0))
    average = torch.optim.swa_utils.AveragedModel(network)
    follower = average.module
    assert isinstance(follower, Network)
    stir(follower, 5)
    before, own = logits_of(follower), copy.deepcopy(follower.state_dict())
    prune_rows = masked_layers(network)["stem.conv"].mask.clone()
    prune_rows[1] = False
    for each in (network, follower):
        set_masks(each, {"stem.conv": prune_rows})
    before = logits_of(follower)
    widen(network, 0, 3, init=init, seed=0, images=pictures_for(network), followers=[follower])
    torch.testing.assert_close(logits_of(follower), before, rtol=0, atol=1e-5)
    assert follower.plans == network.plans
    conv1 = follower.state_dict()["stages.0.cells.1.conv1.weight"]
    assert torch.equal(conv1[:4], own["stages.0.cells.1.conv1.weight"])
    for key, value in network.state_dict().items():
        if key.endswith("mask"):
            assert torch.equal(follower.state_dict()[key], value), key
    if init == "random":
        for key in ("conv1.weight", "norm1.running_mean", "norm1.running_var"):
            name = f"stages.0.cells.1.{key}"
            assert torch.equal(follower.state_dict()[name][4:], network.state_dict()[name][4:])
    assert revived(follower) == 0
    average.update_parameters(network)


def test_seeds_decide_and_leave_pytorchs_generator_alone() -> None:
    state = torch.random.get_rng_state()
    networks = [seed_network() for _ in range(4)]
    for network, seed in zip(networks, (1, 1, 2, 1), strict=True):
        widen(network, 0, 2, seed=seed)
    assert torch.equal(torch.random.get_rng_state(), state)
    rows = [network.state_dict()["stages.0.cells.0.conv1.weight"][4:] for network in networks]
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
    # The next new channels are others.
    widen(networks[3], 0, 2, seed=1)
    wider = networks[3].state_dict()["stages.0.cells.0.conv1.weight"]
    assert not torch.equal(wider[6:], wider[4:6])


def test_mode_precision_and_frozen_weights_are_kept() -> None:
    network = seed_network().double().train()
    network.get_parameter("stages.0.cells.0.conv1.weight").requires_grad_(False)
    network.get_submodule("stages.0.cells.0.norm1").eval()
    modes = [module.training for module in network.modules()]
    widen(network, 0, 2, seed=0, images=pictures_for(network))
    assert [module.training for module in network.modules()] == modes
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    assert frozen == ["stages.0.cells.0.conv1.weight"]
    assert {value.dtype for value in network.state_dict().values()} == {torch.float64, torch.int64, torch.bool}


def test_a_frozen_optimizer_knows_nothing_of_it() -> None:
    """Parameters that an optimizer does not have stay away from it."""
    network = seed_network()
    heads = torch.optim.SGD(network.stages[0].get_submodule("exit").parameters(), lr=0.1, momentum=0.9)
    step(network, heads)
    before = optimizer_state(heads, network)
    widen(network, 0, 2, heads, seed=0)
    assert optimizer_state(heads, network).keys() == before.keys()


def test_new_channels_can_be_lost_again() -> None:
    network = seed_network("iterative", (1, 0))
    widen(network, 0, 2, init="copy", seed=0)
    assert len([group for group in channels(network) if kind_of(group) == "inner"]) == 6
    network = pruned(network, "compact", 1)
    assert network.plans[0].cells[0].inner_channels < 6


@pytest.mark.parametrize(
    ("name", "stage", "count", "message"),
    [
        ("basic", 3, 1, "widen: got stage 4; accepted: stages 1 to 3, which exist"),
        ("basic", -1, 1, "widen: got stage 0; accepted: stages 1 to 3, which exist"),
        ("basic", 0, 0, "widen: got 0 channels; accepted: a whole number >= 1"),
        (
            "skip_second",
            1,
            1,
            "got stage 2, with skip_second cells; accepted: one with channels that only its own layers make and read",
        ),
        ("plain", 0, 1, "got stage 1, with plain cells; accepted: one with channels"),
        ("separable", 0, 1, "got stage 1, with separable cells; accepted: one with channels"),
        ("linear", 1, 1, "got stage 2, with linear cells; accepted: one with channels"),
        ("unpadded", 0, 1, "got stage 1, with unpadded cells; accepted: one with channels"),
    ],
)
def test_what_cannot_be_widened_is_left_as_it_is(name: str, stage: int, count: int, message: str) -> None:
    network = chain(name)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(InputError) as caught:
        widen(network, stage, count)
    assert message in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_other_mistakes_are_refused() -> None:
    network = seed_network("iterative", (1,))
    grow(network, init="identity")
    with pytest.raises(InputError, match="got stage 2, which has no cells"):
        widen(network, 1, 1)
    with pytest.raises(InputError, match="widen: got init identity; accepted: random, copy"):
        widen(network, 0, 1, init="identity")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="images: got"):
        widen(network, 0, 1, images=torch.rand(1, 2, 9, 9))
    with pytest.raises(InputError, match="followers: got a network of other stages"):
        widen(network, 0, 1, followers=[seed_network("iterative", (1,))])
    assert network.plans == plan(network.config)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("affine", [True, False])
def test_layers_of_ones_own_are_widened_whatever_their_kernel_and_norm(init: Init, affine: bool) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, (1, 7), padding=(0, 3)), nn.BatchNorm2d(8, affine=affine), nn.ReLU())
    module += nn.Sequential(nn.Conv2d(8, 8, (3, 1)), nn.BatchNorm2d(8, affine=affine), nn.ReLU(), nn.Conv2d(8, 4, 1))
    module += nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    images = torch.rand(4, 3, 8, 8)
    network = attach_exits(module.eval(), ["6"], example=images, seed=0)
    before, pictures = network(images).detach(), images if init == "random" else None
    widen(network, 0, 3, init=init, seed=0, images=pictures)
    assert [layer.weight.shape for layer in masked_layers(network).values()][:3] == [
        (11, 3, 1, 7), (11, 11, 3, 1), (4, 11, 1, 1),
    ]  # fmt: skip
    torch.testing.assert_close(network(images), before, rtol=0, atol=1e-5)
    description(network)  # of layers whose attributes are the new sizes
