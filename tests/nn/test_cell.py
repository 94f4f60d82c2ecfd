"""A contract for every cell in the registry."""

import pytest
import torch

from ramify.nn.cell import CELLS
from ramify.nn.masked import masked_layers


@pytest.mark.parametrize("name", sorted(CELLS))
@pytest.mark.parametrize("channels", [(4, 4, 4), (8, 4, 4), (4, 6, 4), (3, 5, 7)])
@pytest.mark.parametrize("projects", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (9, 13)])
def test_a_cell_keeps_the_picture_size(
    name: str, channels: tuple[int, int, int], projects: bool, size: tuple[int, int]
) -> None:
    read = channels[0] if name == "basic" else channels[1]
    cell = CELLS[name](*channels, projects or read != channels[2])
    output = cell(torch.randn(2, channels[0], *size))
    assert output.shape == (2, channels[2], *size)
    assert (output >= 0).all()
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in cell.parameters())


@pytest.mark.parametrize("name", sorted(CELLS))
def test_a_cell_has_two_layers_and_a_shortcut(name: str) -> None:
    """With both convolutions silent, what the cell gives is what its shortcut carries."""
    cell = CELLS[name](4, 4, 4, False).eval()
    layers = masked_layers(cell)
    assert len(layers) == 2
    x = torch.rand(2, 4, 8, 8)
    torch.nn.init.zeros_(layers["conv2"].weight)
    carried = cell(x)
    if name == "basic":
        assert torch.equal(carried, x)
    else:
        assert not torch.equal(carried, x)
        assert (carried > 0).any()
