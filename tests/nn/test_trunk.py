"""Fewer passes through memory, and the same numbers."""

import pytest
import torch
from torch import Tensor

from ramify.config.rules import NetworkConfig
from ramify.nn.cells import CellPlan
from ramify.nn.cells.two_layer import BasicCell
from ramify.nn.masked import MaskedConv2d
from ramify.nn.network import Network
from ramify.nn.trunk import join, read_at_once


def gradients(outputs: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    loss = sum((out * torch.rand(out.shape, generator=generator, dtype=out.dtype)).square().sum() for out in outputs)
    return list(torch.autograd.grad(torch.as_tensor(loss), inputs))


@pytest.mark.parametrize(("width", "added"), [(3, 2), (1, 5)])
def test_joining_is_concatenation_in_both_directions(width: int, added: int) -> None:
    trunk, output = (torch.rand(2, count, 4, 4, dtype=torch.float64, requires_grad=True) for count in (width, added))
    one, other = join(trunk, output), torch.cat((trunk, output), dim=1)
    assert torch.equal(one, other)
    for mine, theirs in zip(gradients([one], [trunk, output]), gradients([other], [trunk, output]), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.autograd.gradcheck(join, (trunk, output))
    assert torch.autograd.gradgradcheck(join, (trunk, output))


@pytest.mark.parametrize("stride", [1, 2])
def test_two_convolutions_at_once_are_the_two(stride: int) -> None:
    conv, projection = MaskedConv2d(3, 4, 3, stride).double(), MaskedConv2d(3, 2, 1, stride).double()
    conv.mask[0], projection.mask[1, :2] = False, False
    x = torch.rand(2, 3, 7, 7, dtype=torch.float64, requires_grad=True)
    inputs = [x, conv.weight, projection.weight]
    found, wanted = list(read_at_once(x, conv, projection)), [conv(x), projection(x)]
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    for mine, theirs in zip(gradients(found, inputs), gradients(wanted, inputs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


def test_a_cell_reads_at_once_in_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def count(x: Tensor, conv: MaskedConv2d, projection: MaskedConv2d) -> tuple[Tensor, Tensor]:
        read.append(x.shape[1])
        return read_at_once(x, conv, projection)

    monkeypatch.setattr("ramify.nn.cells.two_layer.read_at_once", count)
    cell, x = BasicCell(CellPlan(6, 4, 4, projects=True)), torch.rand(2, 6, 8, 8)
    cell.train()(x)
    with torch.autocast("cpu", torch.bfloat16):
        cell.eval()(x)
        assert read == []
        cell.train()(x)
        assert read == [6]
        cell.conv1.int8 = True  # whose forward rounds
        cell(x)
    assert read == [6]


def test_a_dense_network_in_bfloat16_learns_as_in_float32() -> None:
    config = NetworkConfig(kind="dense", structure=(0, 1, 0), channels=4, input_shape=(3, 16, 16), classes=5)
    network, images = Network(config, stages=2, seed=0).train(), torch.rand(8, 3, 16, 16)
    found: list[Tensor] = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = network(images)
        found.append(torch.cat([grad.flatten() for grad in gradients([logits.float()], list(network.parameters()))]))
    one, other = found
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > 0.99
