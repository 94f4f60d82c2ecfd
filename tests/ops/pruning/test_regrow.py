"""Moving connections: counts are exact, the right ones go and come, and nothing else changes by a bit."""

import copy

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ramify.config.rules import NetworkConfig
from ramify.errors import InputError
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.ops.freeze import freeze
from ramify.ops.loss import exit_losses
from ramify.ops.pruning.prune import prune
from ramify.ops.pruning.regrow import How, dense_forward, regrow
from ramify.ops.surgery import optimizer_state, parameter_groups, revived
from tests.conftest import NIGHTLY
from tests.ops.growing.test_inherit import seed_network
from tests.ops.networks import pictures_for
from tests.ops.test_surgery import OPTIMIZERS

LABELS = torch.arange(8) % 3


def sparse(kind: str = "iterative", keep: float = 0.3, criterion: str = "erk") -> Network:
    network = seed_network(kind, (0, 1, 0))
    prune(network, dict.fromkeys(range(len(network.stages)), keep), criterion)
    return network.train()


def backward(network: Network, dense: bool = True) -> None:
    network.zero_grad()
    images = pictures_for(network, 8).to(network.mean.dtype)
    logits = dense_forward(network, images) if dense else network(images)
    exit_losses(logits, LABELS).sum().backward()


def masks(network: torch.nn.Module) -> dict[str, Tensor]:
    return {name: layer.mask.clone() for name, layer in masked_layers(network).items()}


def counts(network: torch.nn.Module) -> dict[str, int]:
    return {name: int(layer.mask.sum()) for name, layer in masked_layers(network).items()}


@given(
    kind=st.sampled_from(["dense", "iterative", "full_ic", "full"]),
    keep=st.floats(0.1, 1.0),
    criterion=st.sampled_from(["erk", "uniform", "magnitude"]),
    fractions=st.lists(st.floats(0, 1), min_size=1, max_size=3),
    random=st.booleans(),
)
@example(kind="dense", keep=0.999, criterion="magnitude", fractions=[0.5], random=False)
def test_every_layer_keeps_its_count_whatever_moves(
    kind: str, keep: float, criterion: str, fractions: list[float], random: bool
) -> None:
    network = sparse(kind, keep, criterion)
    before = counts(network)
    for number, fraction in enumerate(fractions):
        old = masks(network)
        backward(network)
        layers = masked_layers(network).values()
        gradients = torch.cat([layer.weight.grad[~layer.mask] for layer in layers])  # type: ignore[index]
        if not random and len(gradients) and not gradients.any():
            # Of a few masked weights, all gradients may be zero.
            with pytest.raises(InputError, match="zero for all masked weights"):
                regrow(network, None, fraction, "gradient", seed=number)
            assert all(torch.equal(mask, old[name]) for name, mask in masks(network).items())
        report = regrow(network, None, fraction, "random" if random else "gradient", seed=number, dense=True)
        assert counts(network) == before
        assert revived(network) == 0
        assert report.kept == sum(before[name] for name in report.layers)
        for name, layer in report.layers.items():
            moved = int((masked_layers(network)[name].mask & ~old[name]).sum())
            assert layer.moved == moved <= round(fraction * before[name])
            assert (layer.kept, layer.weights) == (before[name], old[name].numel())
        for masked in masked_layers(network).values():
            assert masked.weight.grad is not None
            assert not masked.weight.grad[~masked.mask].any()


def test_masks_of_ones_change_no_answer_and_give_the_gradient_of_a_dense_network() -> None:
    network = sparse().double()
    dense = copy.deepcopy(network)
    for layer in masked_layers(dense).values():
        layer.mask.fill_(True)
    images = pictures_for(network, 8).double()
    statistics = copy.deepcopy(network)
    assert torch.equal(dense_forward(network, images), statistics(images))
    for key, value in statistics.state_dict().items():
        assert torch.equal(network.state_dict()[key], value), key
    network.load_state_dict(dense.state_dict() | {key: m for key, m in network.state_dict().items() if "mask" in key})
    backward(network)
    backward(dense, dense=False)
    for (name, one), (_, other) in zip(network.named_parameters(), dense.named_parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-12, atol=1e-14, msg=name)
    assert any(bool(layer.weight.grad[~layer.mask].any()) for layer in masked_layers(network).values())  # type: ignore[index]


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.8])
def test_the_smallest_go_and_the_largest_gradients_of_a_dense_network_come(fraction: float) -> None:
    network = sparse().double()
    dense = copy.deepcopy(network)
    for layer in masked_layers(dense).values():
        layer.mask.fill_(True)
    backward(dense, dense=False)
    before = copy.deepcopy(network)
    backward(network)
    report = regrow(network, None, fraction)
    assert report.moved > 0
    for name, layer in masked_layers(network).items():
        old = masked_layers(before)[name]
        gradient = masked_layers(dense)[name].weight.grad
        assert gradient is not None
        went, came = old.mask & ~layer.mask, layer.mask & ~old.mask
        kept = int(old.mask.sum())
        number = round(fraction * kept)
        assert int(went.sum()) == int(came.sum()) <= number
        largest = torch.zeros_like(old.mask).flatten()
        size = old.weight.detach().abs().masked_fill(~old.mask, -1).flatten()
        largest[size.topk(kept - number).indices] = True
        safe = largest.view_as(old.mask)
        assert (layer.mask | ~safe).all(), "one of the largest went"
        if number and number < (~safe).sum():
            chosen, others = layer.mask & ~safe, ~layer.mask
            assert int(chosen.sum()) == number
            assert gradient[chosen].abs().min() >= gradient[others].abs().max() * (1 - 1e-9)


def test_ties_go_to_what_was_there_and_then_by_position() -> None:
    network = sparse()
    layer = masked_layers(network)["stages.0.cells.0.conv1"]
    with torch.no_grad():
        layer.weight.copy_(layer.mask.float())
    old = layer.mask.flatten().clone()
    backward(network)
    assert layer.weight.grad is not None
    layer.weight.grad.fill_(1.0)
    regrow(network, None, 0.5)
    assert torch.equal(layer.mask.flatten(), old)
    # Without gradient at any masked place, nothing comes back for it, wherever it stands.
    backward(network)
    layer.weight.grad.masked_fill_(~layer.mask, 0)
    regrow(network, None, 0.5)
    assert torch.equal(layer.mask.flatten(), old)
    backward(network)
    layer.weight.grad.copy_((~layer.mask).float())
    regrow(network, None, 0.5)
    number = round(0.5 * int(old.sum()))
    assert torch.equal((layer.mask.flatten() & ~old).nonzero()[:, 0], (~old).nonzero()[:number, 0])
    assert torch.equal((old & layer.mask.flatten()).nonzero()[:, 0], old.nonzero()[: int(old.sum()) - number, 0])


@pytest.mark.parametrize("how", ["gradient", "random"])
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_momentum_and_moments_of_what_moved_are_cleared_and_of_the_rest_untouched(name: str, how: str) -> None:
    network = sparse()
    optimizer = OPTIMIZERS[name](parameter_groups(network, 1e-2))
    follower = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    for _ in range(2):
        backward(network, dense=False)
        optimizer.step()
    follower.update_parameters(network)
    backward(network)
    before, old, state = copy.deepcopy(network), masks(network), copy.deepcopy(optimizer_state(optimizer, network))
    average = copy.deepcopy(follower.module)
    report = regrow(network, optimizer, 0.5, how, followers=[follower.module], seed=1)  # type: ignore[arg-type]
    assert report.moved > 0
    changed = {f"{key}.weight": old[key] ^ mask for key, mask in masks(network).items()}
    for key, value in network.state_dict().items():
        was = before.state_dict()[key]
        if key in changed:
            assert torch.equal(value[~changed[key]], was[~changed[key]])
            assert not value[changed[key]].any()
        elif not key.endswith("mask"):
            assert torch.equal(value, was)
    for key, tensors in optimizer_state(optimizer, network).items():
        for label, value in tensors.items():
            was = state[key][label]
            places = changed.get(key)
            if places is None or value.shape != places.shape:
                assert torch.equal(value, was)
            else:
                assert torch.equal(value[~places], was[~places])
                assert not value[places].any()
    assert masks(follower.module).keys() == old.keys()
    for key, mask in masks(follower.module).items():
        assert torch.equal(mask, masks(network)[key])
        averaged, was = masked_layers(follower.module)[key].weight, masked_layers(average)[key].weight
        assert not averaged[changed[f"{key}.weight"]].any()
        assert torch.equal(averaged[~changed[f"{key}.weight"]], was[~changed[f"{key}.weight"]])
    assert revived(follower.module) == 0
    optimizer.step()
    assert revived(network) == 0


@pytest.mark.parametrize("how", ["gradient", "random"])
@pytest.mark.parametrize("name", ["sgd", "nesterov", "adam", "adamw"])
def test_no_masked_weight_lives_while_connections_move(name: str, how: str) -> None:
    network = sparse("full", 0.2)
    optimizer = OPTIMIZERS[name](parameter_groups(network, 1e-2))
    before, start, moved = counts(network), masks(network), 0
    for step in range(500 if NIGHTLY else 50):
        now = step % 5 == 4
        backward(network, dense=now)
        if now:
            moved += regrow(network, optimizer, 0.3, how, seed=step).moved  # type: ignore[arg-type]
        optimizer.step()
        assert revived(network) == 0
        assert counts(network) == before
    assert moved > 0
    assert any(not torch.equal(start[key], mask) for key, mask in masks(network).items())
    assert all(value.isfinite().all() for value in network.state_dict().values())


def test_what_is_frozen_and_what_does_not_learn_now_stay_as_they_are() -> None:
    ways: tuple[How, ...] = ("gradient", "random")
    for how in ways:
        network = sparse("full_ic")
        freeze(network.stage_modules(0).values())
        before = copy.deepcopy(network.state_dict())
        backward(network)
        statistics = {key for key in before if "running" in key or "tracked" in key}
        report = regrow(network, None, 0.5, how)
        assert report.layers
        assert all(name.startswith("stages.1") for name in report.layers)
        for key, value in before.items():
            if not key.startswith("stages.1") and key not in statistics:
                assert torch.equal(network.state_dict()[key], value)
        # The head of an exit whose loss does not count now gets gradients of zero.
        network = sparse("full_ic")
        before = copy.deepcopy(network.state_dict())
        losses = exit_losses(dense_forward(network, pictures_for(network, 8)), LABELS)
        (losses * torch.tensor([0.0, 1.0])).sum().backward()
        assert "stages.0.exit.linear" not in regrow(network, None, 0.5, how).layers
        for key in ("stages.0.exit.linear.weight", "stages.0.exit.linear.mask"):
            assert torch.equal(network.state_dict()[key], before[key])


def test_another_seed_moves_other_connections_at_random() -> None:
    found: list[dict[str, Tensor]] = []
    for seed in (1, 1, 2):
        network = sparse()
        backward(network, dense=False)
        regrow(network, None, 0.5, "random", seed=seed)
        found.append(masks(network))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert any(not torch.equal(found[0][name], found[2][name]) for name in found[0])


def test_bad_arguments_are_refused() -> None:
    network = sparse()
    with pytest.raises(InputError, match=r"masked layers have no gradients; accepted: one after loss\.backward"):
        regrow(network)
    backward(network, dense=False)
    with pytest.raises(InputError, match=r"zero for all masked weights; accepted: those of a loss of\s+ramify.dense"):
        regrow(network)
    with pytest.raises(InputError, match=r"fraction 1.5; accepted: a number in \[0, 1\]"):
        regrow(network, None, 1.5)
    with pytest.raises(InputError, match="how='best'; accepted: gradient, random"):
        regrow(network, None, 0.3, "best")  # type: ignore[arg-type]
    assert regrow(network, None, 0.3, "random").moved > 0


@pytest.mark.parametrize("cell", ["depthwise", "grouped", "compact"])
def test_connections_of_every_shape_move(cell: str) -> None:
    given = {"kind": "full_ic", "cell": cell, "structure": (1, 0), "channels": [8, 16], "exit": "conv", "final": "conv"}
    more = {"squeeze": 0.25, "cascade": True, "input_shape": (1, 8, 8), "classes": 3}
    network = Network(NetworkConfig.model_validate(given | more), stages=2, seed=0)
    prune(network, {0: 0.3, 1: 0.3}, "erk")
    before = counts(network)
    images = pictures_for(network, 8)
    assert torch.equal(dense_forward(copy.deepcopy(network), images), copy.deepcopy(network)(images))
    for step in range(3):
        backward(network.train())
        assert regrow(network, None, 0.3, seed=step).moved > 0
        assert counts(network) == before
        assert revived(network) == 0
