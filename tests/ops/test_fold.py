"""A folded network answers what its network answers."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ramify.config.rules import NetworkConfig
from ramify.errors import InputError
from ramify.nn.attach import attach_exits
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.nn.zoo import ZOO
from ramify.ops.exits.policy import Policy
from ramify.ops.fold import FEWEST, fold
from ramify.ops.pruning.compact import compact
from ramify.ops.pruning.prune import prune
from ramify.ops.rewrite import rewritten
from tests.nn.modules import PICTURES, Mixer, Residual, trained, vgg


def shape(name: str) -> tuple[int, ...]:
    """The first cells of an architecture, so many that one of them halves the map, with an exit in between."""
    cells = min(len(ZOO[name].cells), 11)
    return tuple(int(cell == cells // 2) for cell in range(1, cells + 1))


SEED = {"structure": (0, 1, 1, 0, 1), "channels": 6, "input_shape": (3, 16, 16), "classes": 7}
CASES: list[dict[str, object]] = [
    *({"kind": kind, **SEED} for kind in ("iterative", "full_ic", "full", "dense")),
    {"kind": "full_ic", "cell": "skip_second", **SEED},
    {"kind": "full_ic", "final": "max", "exit": "max", **SEED, "input_shape": (1, 9, 13)},
    *(
        {"kind": "full_ic", "cells": name, "input_shape": (3, 16, 16), "classes": 7, "structure": shape(name)}
        for name in ZOO
    ),
]


MODULES: list[Callable[[], nn.Module]] = [vgg, Residual, Mixer]


def learned(keys: dict[str, object]) -> Network:
    """A network in float64, whose batch norms have seen pictures and whose scales are not 1."""
    config = NetworkConfig.model_validate(keys)
    network = Network(config, stages=config.exits, seed=1).double().train()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.3, 0.3, generator=generator)
        for _ in range(3):
            network(pictures(network, 6))
    return network.eval()


def pictures(network: Network, count: int) -> torch.Tensor:
    shape = network.config.input_shape
    assert shape is not None
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("keys", CASES, ids=lambda keys: f"{keys.get('cells', 'seed')}-{keys['kind']}")
def test_it_answers_what_the_network_answers(keys: dict[str, object]) -> None:
    network = learned(keys)
    network.set_normalization([0.4] * network.mean.numel(), [0.2] * network.mean.numel())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = pictures(network, 5)
    ready = fold(network)
    with torch.no_grad():
        torch.testing.assert_close(ready(images), network(images), rtol=0, atol=1e-9)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    single = fold(network.float())
    torch.testing.assert_close(single(images.float()), network(images.float()).detach(), rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in ready.modules())
    assert not any(parameter.requires_grad for parameter in ready.parameters())


@pytest.mark.parametrize("kind", ["iterative", "dense"])
@pytest.mark.parametrize("unit", ["weight", "channel"])
def test_pruned_and_compacted_networks_answer_the_same(kind: str, unit: str) -> None:
    network = learned({"kind": kind, **SEED})
    prune(network, 0.5, "magnitude", [], unit="channel" if unit == "channel" else "weight")
    images = pictures(network, 4)
    with torch.no_grad():
        wanted = network(images)
        torch.testing.assert_close(fold(network)(images), wanted, rtol=0, atol=1e-9)
        if unit == "channel":
            small, _ = compact(network)
            torch.testing.assert_close(fold(small)(images), wanted, rtol=0, atol=1e-9)


def test_a_large_batch_is_answered_in_pieces_and_alike() -> None:
    network = learned({"kind": "full_ic", **SEED}).float()
    ready = fold(network)
    assert ready.piece >= FEWEST
    ready.piece = 32
    images = pictures(network, 70).float()
    policy = Policy(thresholds=(0.3, 0.3, 0.3))
    whole, one = ready.predict(images, policy), [ready.predict(image[None], policy) for image in images]
    assert whole.exits.tolist() == [int(each.exits) for each in one]
    assert whole.classes.tolist() == [int(each.classes) for each in one]
    assert list(whole.ran) == [sum(each.ran[stage] for each in one) for stage in range(4)]
    assert len(set(whole.exits.tolist())) > 0


def test_numbers_too_small_to_be_normal_become_zero() -> None:
    network = learned({"kind": "full_ic", **SEED}).float()
    layer = masked_layers(network)["stages.0.cells.0.conv1"]
    with torch.no_grad():
        layer.weight[0] = 1e-42
    smallest = torch.finfo(torch.float32).tiny
    for value in fold(network).parameters():
        assert bool(((value == 0) | (value.abs() >= smallest)).all())


def test_pictures_of_another_shape_are_refused() -> None:
    ready = fold(learned({"kind": "full_ic", **SEED}))
    with pytest.raises(InputError, match=r"images: got \[2, 3, 8, 8\]; accepted: \[B, 3, 16, 16\]"):
        ready(torch.rand(2, 3, 8, 8, dtype=torch.float64))


@pytest.mark.parametrize("make", MODULES)
@pytest.mark.parametrize("exit_", ["mixed", "conv"])
def test_a_module_with_exits_answers_the_same(make: Callable[[], nn.Module], exit_: str) -> None:
    images = PICTURES.double()
    network = attach_exits(trained(make).double(), [0.3, 0.7], example=images, exit=exit_, seed=0).eval()
    with torch.no_grad():  # without a normalization it reads any floats
        torch.testing.assert_close(fold(network)(3 * images), network(3 * images), rtol=0, atol=1e-10)
    network.set_normalization([0.4, 0.5, 0.6], [0.2, 0.3, 0.25])
    ready = fold(network)
    with torch.no_grad():
        torch.testing.assert_close(ready(images), network(images), rtol=0, atol=1e-10)
        torch.testing.assert_close(fold(network.float())(PICTURES), network(PICTURES), rtol=0, atol=1e-5)
    norms = [module for module in ready.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms == []


class Twice(nn.Module):
    """One layer used twice, each time before another batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.one, self.other = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.one(self.conv(x)))
        again: Tensor = self.other(self.conv(x))
        return again + x


class Shared(nn.Module):
    """What a batch norm reads is read by others as well, some of it changed in place by then."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = self.norm(y)
        rows = z.view(len(z) if isinstance(z, Tensor) else z.size(0), 4, -1)
        positive = F.relu(z)
        self.relu(y)
        gated: Tensor = torch.sigmoid(y) * y
        summed: Tensor = positive + y + rows.view_as(y) + gated
        return summed


class Functional(nn.Module):
    """Functions of parameters, a factor before a grouped layer, and a batch norm that stands alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 2, 3, 3))
        self.scale = nn.Parameter(torch.rand(4, 1, 1) + 0.5)
        self.norm, self.alone = nn.BatchNorm2d(6), nn.BatchNorm2d(6, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x * self.scale / 3, F.softmax(self.weight, dim=1), groups=2)
        return torch.relu(self.alone(F.max_pool2d(torch.sigmoid(self.norm(x)), 2)))


class Odd(nn.Module):
    """What is not known, or cannot be traced, between layers that are."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.PReLU())
        self.branching = Branches()
        self.up = nn.Sequential(nn.ConvTranspose2d(6, 4, 2, 2), nn.BatchNorm2d(4), nn.Softplus())
        self.tokens = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(144))
        self.flat = nn.Sequential(nn.Flatten(), nn.Linear(576, 8), nn.BatchNorm1d(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.branching(self.before(x)))
        tokens: Tensor = self.tokens(x.flatten(2).transpose(1, 2))
        flat: Tensor = self.flat(tokens.transpose(1, 2).unflatten(2, (12, 12)))
        return flat


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.conv(x)
        return mixed if x.sum() > 0 else -mixed


def padded(mode: str, padding: int | str) -> nn.Module:
    conv = nn.Conv2d(4, 4, (3, 5), padding=padding, padding_mode=mode)  # type: ignore[arg-type]
    return nn.Sequential(conv, nn.BatchNorm2d(4), nn.Hardswish())


@pytest.mark.parametrize(
    "make",
    [
        *(Twice, Shared, Functional, Odd),
        *(lambda mode=mode: padded(mode, 2) for mode in ("zeros", "reflect", "circular", "replicate")),
        *(lambda mode=mode: padded(mode, "same") for mode in ("zeros", "reflect")),
    ],
)
def test_any_module_is_rewritten(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    module = make().double()
    with torch.no_grad():
        for name, value in module.named_buffers():
            if value.is_floating_point():
                value.uniform_(0.5, 2) if name.endswith("var") else value.normal_()
    module.eval()
    x = torch.rand(3, 4, 8, 8, dtype=torch.float64)
    kept = x.clone()
    found = rewritten(copy.deepcopy(module), x[:2])
    with torch.no_grad():
        torch.testing.assert_close(found(x), module(x.clone()), rtol=0, atol=1e-10)
    assert torch.equal(x, kept)
    left = sum(isinstance(each, nn.Conv2d | nn.BatchNorm2d | nn.BatchNorm1d) for each in found.modules())
    assert left == isinstance(module, Odd)


def test_memory_is_reused_where_nothing_else_reads_it() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    found = rewritten(module, torch.rand(2, 1, 8, 8))
    assert isinstance(found, fx.GraphModule)
    calls = [str(getattr(node.target, "__name__", node.target)) for node in found.graph.nodes if "call" in node.op]
    assert calls == ["conv2d", "relu_", "permute", "flatten", "linear"]
