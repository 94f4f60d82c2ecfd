"""Muon moves matrices by orthogonal steps, convolutions as matrices, vectors as AdamW; masked weights stay."""

import pytest
import torch
from torch import Tensor, nn

from ramify.config.rules import NetworkConfig
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.ops.growing.grow import grow
from ramify.ops.growing.widen import widen
from ramify.ops.loss import exit_losses
from ramify.ops.muon import LINEAR_RATE, REST_MOMENTUM, Muon, NormedMuon, orthogonal
from ramify.ops.pruning.channels import channels, mask_channels, owner, silence
from ramify.ops.pruning.compact import compact
from ramify.ops.pruning.prune import prune
from ramify.ops.surgery import load_optimizer_state, optimizer_state, parameter_groups, revived, set_masks

CONFIG = NetworkConfig(structure=(1, 0, 1), channels=4, input_shape=(1, 8, 8), classes=10)


def learn(network: Network, optimizer: torch.optim.Optimizer, steps: int, seed: int = 0) -> None:
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        images, labels = torch.rand(8, 1, 8, 8, generator=draw), torch.randint(10, (8,), generator=draw)
        optimizer.zero_grad()
        exit_losses(network(images), labels).sum().backward()
        optimizer.step()


def made(stages: int | None = None) -> tuple[Network, Muon]:
    network = Network(CONFIG, stages=stages, seed=0)
    return network, Muon(parameter_groups(network, 1e-2), lr=0.01, momentum=0.9)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (16, 16), (10, 256)])
def test_a_step_keeps_the_singular_vectors_and_evens_the_values(shape: tuple[int, int]) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    between = left.T @ orthogonal(matrix[None])[0] @ right.T
    even = between.diagonal()
    torch.testing.assert_close(between, even.diag(), rtol=0, atol=1e-4)
    large = even[values > 0.05 * values[0]]
    assert float(large.min()) > 0.5
    assert float(large.max()) < 1.3


def test_many_matrices_are_made_orthogonal_as_one_by_one() -> None:
    matrices = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(1))
    alone = torch.cat([orthogonal(each[None]) for each in matrices])
    torch.testing.assert_close(orthogonal(matrices), alone, rtol=0, atol=1e-6)
    assert not orthogonal(torch.zeros(1, 3, 4)).any()


def test_it_is_the_muon_of_torch_on_matrices() -> None:
    """Which computes the iteration in bfloat16; so the steps agree to that."""
    start = torch.randn(6, 10, generator=torch.Generator().manual_seed(2))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizers = (
        Muon([ours], lr=0.1, momentum=0.9, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=0.1, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    draw = torch.Generator().manual_seed(3)
    for _ in range(5):
        gradient = torch.randn(6, 10, generator=draw)
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    apart, moved = (ours - theirs).detach().abs().max(), (ours - start).detach().abs().max()
    assert float(apart) < 0.02 * float(moved)


def test_a_convolution_is_a_matrix_and_a_vector_moves_as_by_adamw() -> None:
    draw = torch.Generator().manual_seed(4)
    kernel, bias = torch.randn(4, 3, 3, 3, generator=draw), torch.randn(4, generator=draw)
    convolution, matrix = nn.Parameter(kernel.clone()), nn.Parameter(kernel.flatten(1).clone())
    vector, other = nn.Parameter(bias.clone()), nn.Parameter(bias.clone())
    muon = Muon([convolution, matrix, vector], lr=0.05, weight_decay=0.1)
    adamw = torch.optim.AdamW([other], lr=0.05, weight_decay=0.1)
    for _ in range(3):
        gradient, small = torch.randn(4, 3, 3, 3, generator=draw), torch.randn(4, generator=draw)
        convolution.grad, matrix.grad = gradient.contiguous(memory_format=torch.channels_last), gradient.flatten(1)
        vector.grad, other.grad = small.clone(), small.clone()
        muon.step()
        adamw.step()
    torch.testing.assert_close(convolution.flatten(1), matrix, rtol=0, atol=1e-6)
    assert torch.equal(vector, other)


def test_masked_weights_stay_zero_and_unmasked_ones_learn() -> None:
    network, optimizer = made(3)
    learn(network, optimizer, 2)
    prune(network, 0.3, "magnitude", optimizer=optimizer)
    before = {name: layer.weight.detach().clone() for name, layer in masked_layers(network).items()}
    learn(network, optimizer, 5)
    assert revived(network) == 0
    for name, layer in masked_layers(network).items():
        assert not optimizer.state[layer.weight]["momentum_buffer"][~layer.mask].any()
        # A weight behind a dead path has no gradient and may rest; the rest must not.
        assert name.startswith("stages.2") or bool((layer.weight != before[name])[layer.mask].any())


def test_normed_muon_keeps_the_norm_of_convolutions_and_moves_the_rest_by_sgd() -> None:
    network = Network(CONFIG, stages=3, seed=0)
    optimizer = NormedMuon(parameter_groups(network, 0.0), lr=0.01, momentum=0.6)
    linear, norm = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(3))
    other = [nn.Parameter(each.detach().clone()) for each in (linear, norm)]
    own = NormedMuon([linear, norm], lr=0.01)
    groups: list[dict[str, object]] = [{"params": other[:1], "lr": 0.01 * LINEAR_RATE}, {"params": other[1:]}]
    sgd = torch.optim.SGD(groups, lr=0.01, momentum=REST_MOMENTUM, nesterov=True)
    for step in range(3):
        for each, twin in zip((linear, norm), other, strict=True):
            each.grad = torch.full_like(each, step + 1.0)
            twin.grad = each.grad.clone()
        own.step()
        sgd.step()
    torch.testing.assert_close((linear, norm), tuple(other))
    prune(network, 0.5, "magnitude", optimizer=optimizer)
    learn(network, optimizer, 3)
    assert revived(network) == 0
    for layer in masked_layers(network).values():
        if layer.weight.dim() > 2:
            length = float(torch.linalg.vector_norm(layer.weight.detach()))
            assert length == pytest.approx(len(layer.weight) ** 0.5, rel=0.02)


def test_a_new_stage_gets_groups_and_state_and_the_others_keep_theirs() -> None:
    network, optimizer = made()
    learn(network, optimizer, 2)
    before = optimizer_state(optimizer, network)
    kept = {name: {key: value.clone() for key, value in tensors.items()} for name, tensors in before.items()}
    grow(network, optimizer, seed=0)
    assert [(group["stage"], group["decay"]) for group in optimizer.param_groups] == [
        (0, True),
        (0, False),
        (1, True),
        (1, False),
    ]
    after = optimizer_state(optimizer, network)
    assert after.keys() == kept.keys()
    assert all(torch.equal(after[name][key], value) for name, all_ in kept.items() for key, value in all_.items())
    learn(network, optimizer, 1)
    assert "stages.1.cells.0.conv1.weight" in optimizer_state(optimizer, network)


def test_state_is_widened_and_cut_with_the_weights() -> None:
    network, optimizer = made(3)
    learn(network, optimizer, 2)
    name = "stages.1.cells.0.conv1.weight"
    before = optimizer_state(optimizer, network)[name]["momentum_buffer"].clone()
    widen(network, 1, 2, optimizer, seed=0)
    wide = optimizer_state(optimizer, network)[name]["momentum_buffer"]
    assert torch.equal(wide[:4], before)
    assert not wide[4:].any()
    lost = [group for group in channels(network) if owner(group) == "stages.1.cells.0"][:2]
    set_masks(network, mask_channels(network, lost), optimizer)
    silence(network, *lost, optimizer=optimizer)
    small, _ = compact(network, optimizer)
    cut = optimizer_state(optimizer, small)[name]["momentum_buffer"]
    assert cut.shape == small.get_parameter(name).shape
    assert torch.equal(cut[: len(before) - 2], before[2:][:, : cut.shape[1]])
    learn(small, optimizer, 1)


def test_what_was_saved_goes_on_bitwise() -> None:
    one, optimizer = made(3)
    learn(one, optimizer, 3)
    two, other = made(3)
    two.load_state_dict(one.state_dict())
    saved = {name: {k: v.clone() for k, v in each.items()} for name, each in optimizer_state(optimizer, one).items()}
    load_optimizer_state(other, two, saved)
    for network, its_optimizer in ((one, optimizer), (two, other)):
        learn(network, its_optimizer, 2, seed=9)
    states: list[dict[str, Tensor]] = [one.state_dict(), two.state_dict()]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_closure_is_called() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([weight], lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 4.0
    assert not torch.equal(weight, torch.ones(2, 2))
