"""Masks: part of the state from birth, and stronger than any optimizer."""

import copy

import pytest
import torch
from torch import nn

from ramify.nn.masked import Masked, MaskedConv2d, MaskedLinear

LAYERS = ("conv", "linear")


def layer_and_input(name: str) -> tuple[Masked, torch.Tensor]:
    torch.manual_seed(0)
    if name == "conv":
        return MaskedConv2d(3, 4, 3), torch.rand(2, 3, 8, 8)
    return MaskedLinear(6, 4), torch.rand(2, 6)


@pytest.mark.parametrize("name", LAYERS)
def test_the_mask_is_a_buffer_of_ones_from_birth(name: str) -> None:
    layer, _ = layer_and_input(name)
    assert "mask" in layer.state_dict()
    assert layer.mask.dtype == torch.bool
    assert layer.mask.shape == layer.weight.shape
    assert layer.mask.all()


@pytest.mark.parametrize("name", LAYERS)
def test_a_full_mask_changes_nothing(name: str) -> None:
    layer, x = layer_and_input(name)
    plain = nn.Conv2d(3, 4, 3, padding=1, bias=False) if name == "conv" else nn.Linear(6, 4)
    plain.load_state_dict({key: value for key, value in layer.state_dict().items() if key != "mask"})
    assert torch.equal(layer(x), plain(x))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_masked_weight_stays_zero_under_an_optimizer(name: str, optimizer: str) -> None:
    layer, x = layer_and_input(name)
    layer.mask.copy_(torch.rand(layer.mask.shape) > 0.5)
    layer.weight.data *= layer.mask
    step: torch.optim.Optimizer = (
        torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
        if optimizer == "sgd"
        else torch.optim.AdamW(layer.parameters(), lr=0.1)
    )
    before = layer.weight.detach().clone()
    for _ in range(20):
        step.zero_grad()
        layer(x).square().sum().backward()
        step.step()
    assert (layer.weight[~layer.mask] == 0).all()
    assert (layer.weight != before)[layer.mask].all()


@pytest.mark.parametrize("name", LAYERS)
def test_the_mask_travels_with_copies_and_state(name: str) -> None:
    layer, x = layer_and_input(name)
    layer.mask.flatten()[::2] = False
    other, _ = layer_and_input(name)
    other.load_state_dict(layer.state_dict())
    for twin in (other, copy.deepcopy(layer)):
        assert torch.equal(twin.mask, layer.mask)
        assert torch.equal(twin(x), layer(x))
