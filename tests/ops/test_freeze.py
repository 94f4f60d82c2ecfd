"""What is frozen stays as it is, bit for bit."""

import copy

import torch
from torch import nn

from ramify.config.rules import NetworkConfig
from ramify.nn.attach import attach_exits
from ramify.nn.data_form import description, from_description
from ramify.nn.network import Network
from ramify.ops.freeze import freeze, freeze_trunk, train_what_learns, unfreeze
from ramify.ops.loss import exit_losses
from ramify.ops.surgery import parameter_groups


def test_a_frozen_trunk_stays_bitwise_and_its_exits_learn() -> None:
    config = NetworkConfig(kind="full_ic", structure=(1, 0, 1, 0), channels=4, input_shape=(1, 8, 8), classes=3)
    network = Network(config, seed=0)
    draw = torch.Generator().manual_seed(0)
    images, labels = torch.rand(32, 1, 8, 8, generator=draw), torch.randint(3, (32,), generator=draw)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    freeze_trunk(network)
    optimizer = torch.optim.AdamW(parameter_groups(network, 0.1), lr=0.05)
    losses: list[float] = []
    for _ in range(20):
        train_what_learns(network)
        loss = exit_losses(network(images), labels)[:-1].sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"stages.{i}.exit.{part}" for i in (0, 1) for part in ("share", "linear.weight", "linear.bias")}
    assert losses[-1] < 0.8 * losses[0]


def test_a_batch_norm_that_learns_is_in_training_mode() -> None:
    network = Network(NetworkConfig(structure=(1,), channels=4, input_shape=(1, 8, 8), classes=3)).eval()
    train_what_learns(network)
    assert all(module.training for module in network.modules())
    network.stem.requires_grad_(False)
    train_what_learns(network)
    assert not network.stem.norm.training
    assert network.get_submodule("stages.0.cells.0.norm1").training


def test_what_the_user_froze_never_learns() -> None:
    own = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    own[0].requires_grad_(False)
    network = attach_exits(own, ["2"], example=torch.rand(1, 1, 8, 8))
    for each in (network, from_description(description(network)), copy.deepcopy(network)):
        freeze_trunk(each)
        unfreeze(each)
        frozen = {name for name, parameter in each.named_parameters() if not parameter.requires_grad}
        assert frozen == {"stages.0.body.net.0.weight", "stages.0.body.net.0.bias"}


def test_a_batch_norm_without_parameters_is_frozen_with_those_around_it() -> None:
    config = NetworkConfig(kind="full_ic", structure=(1, 0), exit="both", input_shape=(1, 8, 8), classes=3)
    for frozen in (False, True):
        network = Network(config)
        if frozen:
            freeze(network.stage_modules(0).values())
        train_what_learns(network)
        network(torch.rand(4, 1, 8, 8))
        assert bool(network.get_buffer("stages.0.exit.norm.running_mean").any()) != frozen
