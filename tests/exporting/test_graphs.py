"""Exported modules compute what the network computes, whatever its kind."""

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from ramify.config.rules import NetworkConfig
from ramify.exporting.check import TOLERANCE, runner
from ramify.exporting.graphs import OneStage, plain
from ramify.exporting.onnx import to_onnx
from ramify.nn.attach import attach_exits
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.ops.cost import place_exits
from ramify.ops.pruning.compact import compact
from ramify.ops.pruning.prune import prune

Kind = Literal["dense", "iterative", "full_ic", "full"]


def lively(network: Network) -> Network:
    """``network`` in evaluation mode with batch norms that do something."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return network.eval()


SMALL = {"structure": (1, 0), "channels": 4}


def made(kind: Kind, shape: tuple[int, int, int] = (1, 9, 9), **more: object) -> Network:
    keys = {"kind": kind, "input_shape": shape, "classes": 5, **(more or SMALL)}
    config = place_exits(NetworkConfig.model_validate(keys))
    network = Network(config, stages=config.exits, seed=0)
    network.set_normalization((0.4,) * shape[0], (0.3,) * shape[0])
    return lively(network)


def architecture(name: str) -> Network:
    return made("full_ic", (3, 16, 16), cells=name)


def masked(network: Network, compacted: bool = False) -> Network:
    prune(network, 0.5, "magnitude", unit="channel" if compacted else "weight")
    return lively(compact(network)[0] if compacted else network)


NETWORKS = {
    "dense": lambda: made("dense"),
    "iterative, masked": lambda: masked(made("iterative")),
    "dense, masked, color": lambda: masked(made("dense", (3, 10, 9))),
    "full_ic, max pooling, skip_second": lambda: made("full_ic", (1, 9, 9), cell="skip_second", exit="max", **SMALL),
    "full": lambda: made("full", (1, 8, 8)),
    "compacted": lambda: masked(made("dense", (3, 8, 8)), compacted=True),
    "lenet5": lambda: architecture("lenet5"),
    "mobilenet": lambda: architecture("mobilenet"),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch", [1, 5])
def test_without_masks_and_stage_by_stage_it_is_the_same_network(name: str, batch: int) -> None:
    network = NETWORKS[name]()
    twin = plain(network)
    assert not masked_layers(twin)
    assert network.config.input_shape is not None
    images = torch.rand(batch, *network.config.input_shape)
    with torch.inference_mode():
        expected = network(images)
        assert (twin(images) - expected).abs().max() <= 1e-5
        trunk = images
        for at in range(len(network.stages)):
            outputs = OneStage(twin, at)(trunk)
            trunk, logits = outputs if isinstance(outputs, tuple) else (trunk, outputs)
            assert (logits - expected[at]).abs().max() <= 1e-5


def test_the_network_itself_is_left_as_it_was() -> None:
    network = masked(made("dense")).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    plain(network)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


class Several(nn.Module):
    """Networks side by side, so that one export tells of all of them."""

    def __init__(self, networks: list[Network]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(plain(network) for network in networks)

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        return tuple(network(batch) for network, batch in zip(self.networks, images, strict=True))


def test_every_kind_of_network_is_the_same_in_onnx_runtime() -> None:
    names = ["dense, masked, color", "full_ic, max pooling, skip_second", "lenet5"]  # test_write.py has a compacted one
    networks = [NETWORKS[name]() for name in names]
    shapes = [network.config.input_shape or () for network in networks]
    inputs, outputs = [f"in{i}" for i in range(len(names))], [f"out{i}" for i in range(len(names))]
    examples = tuple(torch.zeros(2, *shape) for shape in shapes)
    run = runner(to_onnx(Several(networks), examples, inputs, outputs).SerializeToString())
    for batch in (1, 5):
        images = [torch.rand(batch, *shape) for shape in shapes]
        for network, pictures, logits in zip(networks, images, run(*images), strict=True):
            with torch.inference_mode():
                assert (logits - network(pictures)).abs().max() <= TOLERANCE


def test_layers_of_any_padding_lose_their_masks_and_nothing_else() -> None:
    conv = nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular", bias=False)
    own = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), conv, nn.Flatten(), nn.Linear(216, 5, bias=False))
    network = attach_exits(own, ["1"], example=torch.rand(2, 1, 8, 8), seed=0).eval()
    for layer in masked_layers(network).values():
        layer.mask.view(-1)[::2] = False
    images = torch.rand(3, 1, 8, 8)
    bare = plain(network)
    assert not masked_layers(bare)
    assert not any(name.endswith("mask") for name in bare.state_dict())
    torch.testing.assert_close(bare(images), network(images).detach(), rtol=0, atol=1e-6)
