"""Cost, counted by us and by PyTorch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ramify.config import NetworkConfig
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.ops.cost import cost, stage_density

SHAPES = [(1, 8, 8), (3, 32, 32), (3, 17, 9)]


def build(kind: str, cell: str = "basic", shape: tuple[int, int, int] = (3, 16, 16)) -> Network:
    config = NetworkConfig.model_validate(
        {"kind": kind, "cell": cell, "structure": (0, 1, 0, 1, 1), "channels": 6, "input_shape": shape, "classes": 7}
    )
    return Network(config, stages=config.exits, seed=0)


@pytest.mark.parametrize("kind", ["dense", "iterative", "full_ic", "full"])
@pytest.mark.parametrize("cell", ["basic", "skip_second"])
@pytest.mark.parametrize("shape", SHAPES)
def test_macs_are_those_of_the_flop_counter(kind: str, cell: str, shape: tuple[int, int, int]) -> None:
    network = build(kind, cell, shape)
    for stages in range(1, len(network.stages) + 1):
        cut = Network(network.config, stages=stages, seed=0).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            cut(torch.zeros(1, *shape))
        assert cost(network)[stages - 1].macs * 2 == counter.get_total_flops()


@pytest.mark.parametrize("kind", ["dense", "iterative", "full_ic", "full"])
def test_the_last_exit_costs_the_whole_network(kind: str) -> None:
    network = build(kind)
    last = cost(network)[-1]
    assert last.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert last.weights == last.kept == sum(layer.weight.numel() for layer in masked_layers(network).values())


def test_an_exit_costs_what_the_network_cut_there_costs() -> None:
    network = build("dense")
    for stages, each in enumerate(cost(network), start=1):
        assert cost(Network(network.config, stages=stages, seed=0))[-1] == each


def test_masked_weights_are_not_kept_but_still_multiplied() -> None:
    network = build("iterative")
    before = cost(network)
    layer = masked_layers(network)["stages.1.cells.0.conv1"]
    layer.mask.flatten()[:100] = False
    after = cost(network)
    assert after[0] == before[0]
    assert [a.kept - b.kept for a, b in zip(after, before, strict=True)] == [0, -100, -100, -100]
    assert [each.macs for each in after] == [each.macs for each in before]
    densities = stage_density(network)
    assert [density < 1 for density in densities] == [False, True, False, False]


def test_counting_leaves_the_network_as_it_was() -> None:
    network = build("dense").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    cost(network)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(layer._forward_hooks for layer in masked_layers(network).values())
