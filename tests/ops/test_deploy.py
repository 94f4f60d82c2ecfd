"""A deployed network answers what its network answers."""

import pytest
import torch
from torch import nn

from ramify.config import NetworkConfig
from ramify.errors import InputError
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.nn.zoo import ZOO
from ramify.ops.compact import compact
from ramify.ops.deploy import FEWEST, deploy
from ramify.ops.policy import Policy
from ramify.ops.prune import prune


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
        {"kind": "full_ic", "cells": name, "input_shape": (3, 32, 32), "classes": 7, "structure": shape(name)}
        for name in ZOO
    ),
]


def learned(told: dict[str, object]) -> Network:
    """A network in float64, whose batch norms have seen pictures and whose scales are not 1."""
    config = NetworkConfig.model_validate(told)
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


@pytest.mark.parametrize("told", CASES, ids=lambda told: f"{told.get('cells', 'seed')}-{told['kind']}")
def test_it_answers_what_the_network_answers(told: dict[str, object]) -> None:
    network = learned(told)
    network.set_normalization([0.4] * network.mean.numel(), [0.2] * network.mean.numel())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = pictures(network, 5)
    ready = deploy(network)
    with torch.no_grad():
        torch.testing.assert_close(ready(images), network(images), rtol=0, atol=1e-9)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    single = deploy(network.float())
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
        torch.testing.assert_close(deploy(network)(images), wanted, rtol=0, atol=1e-9)
        if unit == "channel":
            small, _ = compact(network)
            torch.testing.assert_close(deploy(small)(images), wanted, rtol=0, atol=1e-9)


def test_a_large_batch_is_answered_in_pieces_and_alike() -> None:
    network = learned({"kind": "full_ic", **SEED}).float()
    ready = deploy(network)
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
    for value in deploy(network).parameters():
        assert bool(((value == 0) | (value.abs() >= smallest)).all())


def test_what_has_no_folded_form_is_refused() -> None:
    network = learned({"kind": "full_ic", **SEED})
    network.stages[0].get_submodule("cells")[0] = nn.Identity()  # type: ignore[operator]
    with pytest.raises(InputError, match="deploy: got a cell Identity; accepted: TwoLayerCell"):
        deploy(network)
