"""torch.fx traces every network in evaluation mode, and the graph computes what the network computes."""

import pytest
import torch
from torch import fx

from ramify.config.rules import NetworkConfig
from ramify.nn.cells import CELLS, CellPlan
from ramify.nn.exit import EXITS
from ramify.nn.network import Network
from ramify.nn.zoo import ZOO
from tests.ops.shapes import SHAPES, pictures, shaped


def check(module: torch.nn.Module, x: torch.Tensor) -> None:
    traced = fx.GraphModule(module, fx.Tracer().trace(module))
    assert torch.equal(traced(x), module(x))


@pytest.mark.parametrize("name", SHAPES)
def test_networks_are_traced(name: str) -> None:
    network = shaped(name)
    check(network, pictures(network, 2))


@pytest.mark.parametrize("name", ZOO)
def test_architectures_are_traced(name: str) -> None:
    given = {"cells": name, "input_shape": (1, 16, 16), "classes": 3, "kind": "full_ic", "structure": (1, 0)}
    network = Network(NetworkConfig.model_validate(given), seed=0).eval()
    check(network, torch.rand(2, 1, 16, 16))


@pytest.mark.parametrize("name", CELLS)
def test_cells_are_traced(name: str) -> None:
    plan = CellPlan(8, 8, 8, type=name, area=64, squeeze=2 * CELLS[name].squeezing)
    check(CELLS[name](plan).eval(), torch.rand(2, 8, 8, 8))


@pytest.mark.parametrize("name", EXITS)
def test_exits_are_traced(name: str) -> None:
    check(EXITS[name](80, 3, (4, 4)).eval(), torch.rand(2, 80, 8, 8))
