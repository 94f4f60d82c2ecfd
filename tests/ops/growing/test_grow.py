"""Growth and surgery: what was there is untouched, what is new follows the same schedule."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ramify.config.rules import NetworkConfig
from ramify.errors import InputError
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.nn.zoo import ZOO
from ramify.ops.cost import cost, place_exits
from ramify.ops.growing.grow import can_keep, grow
from ramify.ops.loss import exit_losses
from ramify.ops.pruning.channels import alive, channels, dead_trunk
from ramify.ops.pruning.compact import compact
from ramify.ops.pruning.prune import prune
from ramify.ops.surgery import load_optimizer_state, optimizer_state, parameter_groups, set_learning_rate
from tests.ops.networks import chain, every_narrow, pictures_for

KINDS = ("dense", "iterative")


def fresh_optimizer(network: Network, name: str) -> torch.optim.Optimizer:
    groups = parameter_groups(network, 1e-2)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.05, momentum=0.9)
    return torch.optim.AdamW(groups, lr=0.01)


def trained(kind: str, optimizer_name: str = "sgd") -> tuple[Network, torch.optim.Optimizer]:
    """A young network after some steps, so that momentum and batch norm hold something."""
    config = NetworkConfig.model_validate(
        {"kind": kind, "structure": (0, 1, 1, 0), "channels": 4, "input_shape": (1, 8, 8), "classes": 3}
    )
    network = Network(config, seed=0)
    optimizer = fresh_optimizer(network, optimizer_name)
    steps(network, optimizer, 3)
    return network, optimizer


def options(optimizer: torch.optim.Optimizer) -> list[dict[str, object]]:
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def steps(network: Network, optimizer: torch.optim.Optimizer, number: int) -> None:
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.rand(8, 1, 8, 8, generator=generator), torch.arange(8) % 3
    for _ in range(number):
        optimizer.zero_grad()
        exit_losses(network.train()(images), labels).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optimizer_name", ["sgd", "adamw"])
def test_growth_leaves_what_was_there_bit_for_bit(kind: str, optimizer_name: str) -> None:
    network, optimizer = trained(kind, optimizer_name)
    tensors = {name: value.clone() for name, value in network.state_dict().items()}
    state = copy.deepcopy(optimizer_state(optimizer, network))
    groups = options(optimizer)
    images = torch.rand(5, 1, 8, 8)
    logits = network.eval()(images)

    growth = grow(network, optimizer, seed=0)

    assert growth.stage == 1
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in tensors.items())
    after = optimizer_state(optimizer, network)
    assert after.keys() == state.keys()
    assert all(torch.equal(value, after[name][key]) for name, kept in state.items() for key, value in kept.items())
    assert options(optimizer)[: len(groups)] == groups
    assert torch.equal(network.eval()(images)[:1], logits)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optimizer_name", ["sgd", "adamw"])
def test_the_new_stage_follows_the_same_schedule_and_learns(kind: str, optimizer_name: str) -> None:
    network, optimizer = trained(kind, optimizer_name)
    set_learning_rate(optimizer, 0.02)
    while not network.complete:
        grow(network, optimizer, seed=0)
    assert {group["lr"] for group in optimizer.param_groups} == {0.02}
    assert [(group["stage"], group["decay"]) for group in optimizer.param_groups] == [
        (stage, decay) for stage in range(3) for decay in (True, False)
    ]
    assert all(group["weight_decay"] == (1e-2 if group["decay"] else 0) for group in optimizer.param_groups)
    if optimizer_name == "sgd":
        assert {group["momentum"] for group in optimizer.param_groups} == {0.9}
    set_learning_rate(optimizer, 0.01)
    assert {group["lr"] for group in optimizer.param_groups} == {0.01}
    grouped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert {id(parameter) for parameter in grouped} == {id(parameter) for parameter in network.parameters()}
    assert len(grouped) == len(list(network.parameters()))
    before = copy.deepcopy(network.state_dict())
    steps(network, optimizer, 1)
    for name, _ in network.named_parameters():
        assert not torch.equal(before[name], network.state_dict()[name]), name


def test_weight_decay_touches_convolution_and_linear_weights_alone() -> None:
    network, optimizer = trained("dense")
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    for name, module in network.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            expected = isinstance(module, nn.Conv2d | nn.Linear) and key == "weight"
            assert (id(parameter) in decayed) is expected, f"{name}.{key}"


@pytest.mark.parametrize("kind", KINDS)
def test_growth_reaches_an_optimizer_that_we_did_not_make(kind: str) -> None:
    network, _ = trained(kind)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.003, betas=(0.8, 0.9))
    steps(network, optimizer, 1)
    grow(network, optimizer)
    assert optimizer.param_groups[-1]["betas"] == (0.8, 0.9)
    assert optimizer.param_groups[-1]["lr"] == 0.003
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))


def test_the_report_says_what_was_added() -> None:
    network, _ = trained("dense")
    before = cost(network)[-1]
    growth = grow(network)
    after = cost(network)[-1]
    assert growth.parameters == after.parameters - before.parameters
    assert growth.weights == after.weights - before.weights
    assert (growth.cells, growth.final, growth.init) == (1, False, "random")
    assert grow(network).final


def test_growth_keeps_the_mode() -> None:
    network, _ = trained("iterative")
    network.eval()
    grow(network)
    assert not any(module.training for module in network.modules())


def test_a_complete_network_does_not_grow() -> None:
    network = Network(NetworkConfig(structure=(1,), input_shape=(1, 8, 8), classes=2), stages=2)
    with pytest.raises(InputError, match="got a network with all its 2 stages"):
        grow(network)


def test_an_unknown_start_is_refused() -> None:
    network, _ = trained("dense")
    with pytest.raises(InputError, match="grow: got init zero; accepted: random, identity, copy"):
        grow(network, init="zero")  # type: ignore[arg-type]
    assert len(network.stages) == 1


def test_growth_keeps_the_precision() -> None:
    network = trained("dense")[0].double()
    while not network.complete:
        grow(network, seed=0)
    assert network(torch.rand(2, 1, 8, 8, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("final", [None, "average", "mixed", "max"])
@pytest.mark.parametrize("structure", [(1, 0), (1,)])
def test_the_final_classifier_pools_as_asked(structure: tuple[int, ...], final: str | None) -> None:
    config = NetworkConfig.model_validate(
        {"structure": structure, "exit": "max", "final": final, "input_shape": (1, 8, 8), "classes": 2}
    )
    network = Network(config)
    assert can_keep(network) == (
        "" if final == "max" else f"its exit is {final or 'average'} and the one before it max (see network.final)"
    )
    grow(network)
    pools = {None: 0.0, "average": 0.0, "mixed": None, "max": 1.0}
    assert [stage.get_submodule("exit").fixed for stage in network.stages] == [1.0, pools[final]]


@pytest.mark.parametrize("exit_name", ["both", "scaled"])
def test_an_exit_without_a_pooled_map_starts_at_random(exit_name: str) -> None:
    shared = {"structure": (1, 0), "exit": exit_name, "final": exit_name, "input_shape": (1, 8, 8), "classes": 2}
    network = Network(NetworkConfig.model_validate(shared), seed=0)
    assert can_keep(network) == f"its exit is {exit_name}, which cannot take the weights of another"
    with pytest.raises(InputError, match="got init identity; accepted: random for stage 2, as its exit is"):
        grow(network, init="identity")
    assert grow(network, init="copy").init == "copy"
    network = Network(NetworkConfig.model_validate({**shared, "cascade": True}), seed=0)
    grow(network, init="identity")
    logits = network.eval()(torch.rand(3, 1, 8, 8))
    assert torch.equal(logits[0], logits[1])


@pytest.mark.parametrize("optimizer_name", ["sgd", "adamw"])
def test_optimizer_state_goes_and_comes_by_name(optimizer_name: str) -> None:
    network, optimizer = trained("dense", optimizer_name)
    grow(network, optimizer, seed=0)
    steps(network, optimizer, 2)
    twin = copy.deepcopy(network)
    twin_optimizer = fresh_optimizer(twin, optimizer_name)
    load_optimizer_state(twin_optimizer, twin, optimizer_state(optimizer, network))
    set_learning_rate(twin_optimizer, optimizer.param_groups[0]["lr"])
    steps(network, optimizer, 2)
    steps(twin, twin_optimizer, 2)
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "full_ic"])
def test_a_tiny_batch_is_fitted_to_the_last_picture(kind: str) -> None:
    """64 pictures to 100 % at every exit: the loss reaches everything it should."""
    config = NetworkConfig.model_validate(
        {"kind": kind, "structure": (1, 1, 0), "channels": 8, "input_shape": (1, 8, 8), "classes": 4}
    )
    network = Network(config, stages=config.exits, seed=0)
    optimizer = torch.optim.SGD(parameter_groups(network, 0.0), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(64, 1, 8, 8, generator=generator), torch.arange(64) % 4
    for _ in range(150):
        optimizer.zero_grad()
        exit_losses(network(images), labels).sum().backward()
        optimizer.step()
    answers = network.eval()(images).argmax(dim=2)
    assert (answers == labels).all(), f"{(answers == labels).float().mean(dim=1)}"
    assert F.cross_entropy(network(images)[-1], labels) < 0.1


@every_narrow
def test_a_network_of_any_cells_grows_while_it_trains(name: str) -> None:
    """What was there stays bit for bit, and everything new learns."""
    network = chain(name, stages=1).train()
    optimizer = fresh_optimizer(network, "sgd")
    images, labels = pictures_for(network, 8), torch.arange(8) % 3

    def step() -> None:
        optimizer.zero_grad()
        exit_losses(network(images), labels).sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    step()
    while not network.complete:
        before = copy.deepcopy(network.state_dict())
        grow(network, optimizer, seed=0)
        assert all(torch.equal(value, network.state_dict()[key]) for key, value in before.items())
        step()
    moved = {id(parameter) for group in optimizer.param_groups for parameter in group["params"] if parameter.grad.any()}
    # The two hidden units of a squeeze may both be silent for so few pictures.
    learning = [key for key in masked_layers(network) if ".squeeze." not in key]
    assert moved >= {id(network.get_parameter(f"{key}.weight")) for key in learning}


@every_narrow
def test_a_stage_reads_nothing_of_what_was_pruned_before_it_grew(name: str) -> None:
    network = chain(name, stages=1)
    while not network.complete:
        for unit in ("channel", "weight"):
            if unit == "weight" or channels(network):
                prune(network, 0.5, "random", unit=unit, floor=0)
        dead = dead_trunk(network)
        growth = grow(network, seed=0)
        new = {key: layer for key, layer in masked_layers(network).items() if key.startswith(f"stages.{growth.stage}.")}
        assert growth.weights == sum(int(layer.weight.count_nonzero()) for layer in new.values())
        assert (growth.weights < sum(layer.weight.numel() for layer in new.values())) is bool(dead.any())
    compact(network.eval())


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ZOO))
def test_every_architecture_is_pruned_and_grown_and_pruned(name: str) -> None:
    """As a run with ``network.kind=iterative`` and ``prune.policy=skip_layer`` does it."""
    side = max(8, ZOO[name].smallest)
    config = NetworkConfig.model_validate({"cells": name, "input_shape": (1, side, side), "classes": 3})
    network = Network(place_exits(config), seed=0)
    optimizer = fresh_optimizer(network, "sgd")
    images, labels = pictures_for(network, 6), torch.arange(6) % 3
    while True:
        prune(network, {len(network.stages) - 1: 0.3}, "random", (), optimizer, unit="channel")
        optimizer.zero_grad()
        exit_losses(network.train()(images), labels).sum().backward()
        optimizer.step()
        if network.complete:
            break
        grow(network, optimizer, seed=0)
    lost = alive(network, channels(network)).count(False)
    receipt = compact(network.eval())[1]
    assert receipt.removed == lost > 0
    assert receipt.after[-1].kept == receipt.after[-1].weights
    assert receipt.after[-1].macs < receipt.before[-1].macs
