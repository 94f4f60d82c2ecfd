"""What is frozen stays as it is, bit for bit."""

import copy

import torch
from torch import Tensor, nn

from ramify.config.rules import NetworkConfig
from ramify.nn.attach import attach_exits, branches
from ramify.nn.attached import Attached
from ramify.nn.data_form import description, from_description
from ramify.nn.network import Network
from ramify.ops.freeze import freeze, freeze_trunk, never_learning, train_what_learns, unfreeze
from ramify.ops.growing.convert import cut, to_cnn
from ramify.ops.growing.grow import grow
from ramify.ops.loss import exit_losses
from ramify.ops.surgery import parameter_groups, reinitialize


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


class Scaled(nn.Module):
    """A frozen layer and a frozen number beside layers that learn."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 4, 3).requires_grad_(False), nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.tensor(4.0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc((self.norm(self.conv(x)) * self.scale).mean((2, 3)))
        return logits


def test_what_the_user_froze_never_learns() -> None:
    network = attach_exits(Scaled(), ["norm"], example=torch.rand(1, 1, 8, 8))
    kept = ["stages.0.body.net.conv.bias", "stages.0.body.net.conv.weight", "stages.1.body.net.scale"]
    for each in (network, from_description(description(network)), copy.deepcopy(network)):
        freeze_trunk(each)
        unfreeze(each)
        assert sorted(name for name, parameter in each.named_parameters() if not parameter.requires_grad) == kept
    whole = attach_exits(Scaled(), ["norm"], example=torch.rand(1, 1, 8, 8), freeze=True)
    unfreeze(whole)
    assert all(".exit." in name for name, parameter in whole.named_parameters() if parameter.requires_grad)


def test_what_is_made_of_it_knows_what_is_frozen() -> None:
    network = attach_exits(Scaled(), ["conv", "norm"], example=torch.rand(1, 1, 8, 8))
    kept = {1: ["stages.0.body.net.conv.bias", "stages.0.body.net.conv.weight"]}
    kept[3] = [*kept[1], "stages.2.body.net.scale"]
    for exit_, names in kept.items():
        small = cut(network, exit_)
        assert isinstance(small, Attached)
        assert sorted(never_learning(from_description(description(small)))) == names
    assert sorted(never_learning(to_cnn(network))) == [*kept[1], "stages.0.body.net.scale"]
    before = copy.deepcopy(network.state_dict())
    reinitialize(network, range(3), seed=1)
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert any("fc" in name for name in moved)
    assert not any("conv" in name or "scale" in name for name in moved)


def test_frozen_layers_of_stages_to_come_stay_frozen() -> None:
    later = nn.Conv2d(4, 4, 1).requires_grad_(False)
    network = branches(nn.Conv2d(1, 4, 3), [nn.ReLU(), later], example=torch.rand(1, 1, 8, 8), classes=3)
    twin = from_description(description(network))
    for each in (network, twin):
        grow(each)
        unfreeze(each)
        assert sum(not parameter.requires_grad for parameter in each.parameters()) == 2


def test_a_batch_norm_without_parameters_is_frozen_with_those_around_it() -> None:
    config = NetworkConfig(kind="full_ic", structure=(1, 0), exit="both", input_shape=(1, 8, 8), classes=3)
    for frozen in (False, True):
        network = Network(config)
        if frozen:
            freeze(network.stage_modules(0).values())
        train_what_learns(network)
        network(torch.rand(4, 1, 8, 8))
        assert bool(network.get_buffer("stages.0.exit.norm.running_mean").any()) != frozen
