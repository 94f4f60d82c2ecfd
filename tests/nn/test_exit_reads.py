"""Internal classifiers that read the sum before the last ReLU of their cell, while the trunk goes on behind it."""

import pytest
import torch
from torch.nn import functional as F

from ramify.config.rules import Config, GrowthConfig, NetworkConfig
from ramify.errors import ConfigError, InputError
from ramify.nn.cells import cell_choices
from ramify.nn.network import Network
from ramify.ops.growing.grow import grow
from tests.ops.networks import shake


def pair(kind: str, cell: str) -> tuple[Network, Network]:
    """Two networks of the same weights: exits of one read activations, those of the other sums."""
    given = {"kind": kind, "cell": cell, "structure": (0, 1, 1, 0), "channels": 8, "classes": 3}
    configs = [
        NetworkConfig.model_validate({**given, "input_shape": (2, 8, 8), "exit_reads": reads})
        for reads in ("activation", "sum")
    ]
    usual, summed = (Network(config, stages=3, seed=0) for config in configs)
    shake(usual, 0)
    summed.load_state_dict(usual.state_dict())
    return usual.eval(), summed.eval()


@pytest.mark.parametrize("cell", [name for name, cell in cell_choices().items() if cell.sums])
@pytest.mark.parametrize("kind", ["full_ic", "dense"])
def test_an_exit_reads_the_sum_and_the_trunk_what_the_relu_leaves_of_it(kind: str, cell: str) -> None:
    usual, summed = pair(kind, cell)
    images = torch.rand(4, 2, 8, 8)
    sums: list[torch.Tensor] = []
    for stage in summed.stages[:-1]:
        stage.get_submodule("exit").register_forward_hook(lambda _, given, __: sums.append(given[0]))
    expected, found = usual(images), summed(images)
    assert torch.equal(found[-1], expected[-1])  # the final classifier reads the trunk
    assert not torch.equal(found[0], expected[0])
    trunk = usual.enter(images)
    for at, sum_ in enumerate(sums):
        trunk, _ = usual.run_stage(at, trunk, None)
        assert sum_.min() < 0
        assert torch.equal(F.relu(sum_), trunk[:, -8:])


@pytest.mark.parametrize("given", [{"cell": "compact"}, {"cells": "vgg16"}, {"cells": "wideresnet32_4"}])
def test_cells_without_a_relu_of_a_sum_refuse(given: dict[str, object]) -> None:
    network = NetworkConfig.model_validate({**given, "exit_reads": "sum"})
    with pytest.raises(ConfigError, match=r"network\.exit_reads: got 'sum'; accepted: activation"):
        Config(network=network)


def test_a_stage_cannot_pass_a_sum_on() -> None:
    network = NetworkConfig(structure=(1, 0), exit_reads="sum", final="mixed", input_shape=(1, 8, 8), classes=3)
    with pytest.raises(ConfigError, match=r"growth\.init: got 'identity'; accepted: random, copy"):
        Config(network=network, growth=GrowthConfig(init="identity"))
    with pytest.raises(InputError, match=r"network\.exit_reads"):
        grow(Network(network), init="identity")
    Config(network=network.model_copy(update={"cascade": True}), growth=GrowthConfig(init="identity"))
