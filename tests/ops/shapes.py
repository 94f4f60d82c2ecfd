"""Networks of every shape, small: strided, of small cells, with cheap heads, and in a cascade."""

import torch
from torch import Tensor

from ramify.config.rules import NetworkConfig
from ramify.nn.network import Network
from tests.ops.networks import shake

BASE: dict[str, object] = {"structure": (0, 1, 0, 1, 0), "input_shape": (3, 13, 16), "classes": 5}

SHAPES: dict[str, dict[str, object]] = {
    "strided": {"channels": (4, 6, 8)},
    "strided by hand": {"channels": 5, "strides": (0, 1, 0, 0, 1), "cell": "skip_second", "exit": "global"},
    "dense strided": {"kind": "dense", "channels": (4, 6, 8), "exit": "conv", "final": "global"},
    "depthwise": {"cell": "depthwise", "channels": (6, 8), "squeeze": 0.25, "final": "conv"},
    "grouped": {"cell": "grouped", "channels": (8, 16), "squeeze": 0.5, "exit": "global", "final": "global"},
    "compact": {"cell": "compact", "channels": (6, 8), "exit": "conv", "final": "conv"},
    "compact cascade": {"cell": "compact", "channels": (6, 8), "squeeze": 0.2, "exit": "global", "cascade": True},
    "dense compact": {"kind": "dense", "cell": "compact", "channels": (4, 8), "cascade": True, "final": "global"},
    "dense depthwise": {"kind": "dense", "cell": "depthwise", "channels": 4, "squeeze": 1.0},
    "cascade": {"channels": 6, "cascade": True},
    "sums": {"channels": (4, 6), "exit_reads": "sum"},
    "dense sums": {"kind": "dense", "channels": 4, "exit_reads": "sum"},
    "speed": {"stem": "whitened", "cell": "pooling", "channels": (24, 6, 8), "exit": "both", "final": "scaled"},
    "depthwise sums": {"cell": "depthwise", "channels": (6, 8), "squeeze": 0.25, "exit_reads": "sum"},
}


def shaped(name: str, stages: int | None = None, **changes: object) -> Network:
    """One of :data:`SHAPES` with statistics and scales like those of a trained network, in evaluation mode."""
    config = NetworkConfig.model_validate({**BASE, **SHAPES[name], **changes})
    network = Network(config, stages=config.exits if stages is None else stages, seed=0)
    shake(network, 0)
    network.set_normalization([0.4, 0.5, 0.6], [0.2, 0.3, 0.25])
    return network.eval()


def pictures(network: Network, count: int = 5) -> Tensor:
    assert network.config.input_shape is not None
    draw = torch.Generator().manual_seed(3)
    return torch.rand(count, *network.config.input_shape, generator=draw).to(network.mean.dtype)
