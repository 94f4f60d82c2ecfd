"""Masks: part of the state from birth, and stronger than any optimizer."""

import copy

import pytest
import torch
from torch import nn

from ramify.nn.masked import Masked, MaskedConv2d, MaskedLinear, with_mask
from tests.killing import forked

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


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3, 4, 7, 8, 12, 15, 16, 20])
def test_gradients_in_channels_last_layout_are_those_in_any_other(channels: int, stride: int) -> None:
    torch.manual_seed(0)
    layer = MaskedConv2d(channels, 8, 1, stride).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.rand(32, channels, 9, 9).to(memory_format=torch.channels_last).requires_grad_()
    exact = copy.deepcopy(layer).double()
    wide = x.detach().double().contiguous().requires_grad_()
    layer(x).square().sum().backward()
    exact(wide).square().sum().backward()
    for one, other in ((layer.weight.grad, exact.weight.grad), (x.grad, wide.grad)):
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


def learn_among_others(channels: int, padding: int | str) -> None:
    layer = with_mask(nn.Conv2d(channels, 8, 1, 2, padding)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.rand(32, channels, 8, 8).to(memory_format=torch.channels_last)
    kept = []
    for step in range(150):
        layer(x).sum().backward()
        kept = [torch.rand(1 + 37 * step % 400) for _ in range(30)]
    del kept


@pytest.mark.parametrize(("channels", "padding"), [(3, 0), (4, "valid")])
def test_gradients_stay_within_their_memory(channels: int, padding: int | str) -> None:
    process = forked(learn_among_others, channels, padding)  # which dies where they do not
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize("name", LAYERS)
def test_the_mask_travels_with_copies_and_state(name: str) -> None:
    layer, x = layer_and_input(name)
    layer.mask.flatten()[::2] = False
    other, _ = layer_and_input(name)
    other.load_state_dict(layer.state_dict())
    for twin in (other, copy.deepcopy(layer)):
        assert torch.equal(twin.mask, layer.mask)
        assert torch.equal(twin(x), layer(x))


@pytest.mark.parametrize("name", LAYERS)
def test_an_int8_layer_rounds_in_training_alone_and_its_gradients_pass_straight_through(name: str) -> None:
    layer, x = layer_and_input(name)
    layer.mask.view(-1)[::3] = False
    x = (x - 0.3).requires_grad_()
    exact = layer(x)
    straight = torch.autograd.grad(exact.sum(), x)[0]
    layer.int8 = True
    output = layer.train()(x)
    through, of_weight = torch.autograd.grad(output.sum(), (x, layer.weight))
    assert torch.equal(layer.eval()(x), exact)
    assert not torch.equal(output, exact)
    # Each of a sum's numbers is off by half a step of 1/127 of the input's range or 1/64 of the weight's at most.
    weight, reads = (layer.weight * layer.mask).detach().flatten(1).abs(), x.detach()
    steps = float(reads.max() - reads.min()) / 127, float(weight.max()) / 64
    reach = weight.sum(dim=1).max() * steps[0] + reads.abs().max() * steps[1] * weight.shape[1]
    assert float((output - exact).detach().abs().max()) < float(reach)
    assert not of_weight[~layer.mask].any()
    assert float((through - straight).norm() / straight.norm()) < 0.02


def test_a_weight_of_zeros_stays_one_in_int8() -> None:
    layer, x = layer_and_input("conv")
    layer.mask.zero_()
    layer.int8 = True
    assert not layer(x).any()
    assert not layer(torch.zeros_like(x)).any()
