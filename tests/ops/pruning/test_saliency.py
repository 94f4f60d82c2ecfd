"""Saliencies: a contract that every criterion meets, and what each of them means, reckoned in another way."""

import contextlib
import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ramify.config.rules import NetworkConfig
from ramify.errors import InputError, RunError
from ramify.nn.cells.base import Squeeze
from ramify.nn.exit import PooledHead
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.nn.zoo import ZOO
from ramify.ops.cost import place_exits
from ramify.ops.growing.grow import grow
from ramify.ops.loss import exit_losses
from ramify.ops.pruning.saliency import (
    NEEDS_DATA,
    SALIENCIES,
    Scores,
    ScoringBatch,
    erk,
    grasp,
    magnitude,
    random,
    snip,
    synflow,
)
from tests.ops.networks import chain, every_narrow

KINDS = ("dense", "iterative", "full_ic", "full")
CRITERIA = sorted(SALIENCIES)
every_criterion = pytest.mark.parametrize("criterion", CRITERIA)
every_kind = pytest.mark.parametrize("kind", KINDS)


def build(
    kind: str = "dense",
    cell: str = "basic",
    head: str = "mixed",
    stages: int | None = None,
    shape: tuple[int, int, int] = (1, 8, 8),
) -> Network:
    """A network with batch norm, biases, shares and normalisation away from where they start."""
    config = NetworkConfig.model_validate(
        {
            "kind": kind,
            "cell": cell,
            "exit": head,
            "structure": (1, 0, 1, 0),
            "channels": 4,
            "input_shape": shape,
            "classes": 3,
        }
    )
    network = Network(config, stages=config.exits if stages is None else stages, seed=0)
    generator = torch.Generator().manual_seed(3)

    def stir(value: Tensor, low: float, high: float) -> None:
        with torch.no_grad():
            value.copy_(torch.rand(value.shape, generator=generator) * (high - low) + low)

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            stir(module.weight, -1.5, 1.5)
            stir(module.bias, -1, 1)
            assert module.running_mean is not None
            assert module.running_var is not None
            stir(module.running_mean, -1, 1)
            stir(module.running_var, 0.3, 2)
        elif isinstance(module, nn.Linear):
            stir(module.bias, -1, 1)
        elif isinstance(module, PooledHead) and module.fixed is None:
            stir(module.share, 0, 1)
    network.set_normalization([0.3] * shape[0], [0.4] * shape[0])
    return network


def mask_some(network: Network, share: float = 0.3) -> None:
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for layer in masked_layers(network).values():
            layer.mask.copy_(torch.rand(layer.mask.shape, generator=generator) >= share)
            layer.weight.mul_(layer.mask)


def batch(number: int = 12, shape: tuple[int, int, int] = (1, 8, 8), seed: int = 1) -> ScoringBatch:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(number, *shape, generator=generator), torch.arange(number) % 3


def doubled(pictures: ScoringBatch) -> ScoringBatch:
    return pictures[0].double(), pictures[1]


def check(scores: Scores, network: Network) -> None:
    layers = masked_layers(network)
    assert list(scores) == list(layers)
    for name, score in scores.items():
        assert score.shape == layers[name].weight.shape
        assert score.dtype in (torch.float32, torch.float64)
        assert score.device == layers[name].weight.device
        assert not score.requires_grad
        assert score.isfinite().all()
        assert (score[~layers[name].mask] == 0).all()
    assert any(len(score.unique()) > 1 for score in scores.values())


def assert_same(found: Scores, expected: Scores) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(score, expected[name]) for name, score in found.items())


def assert_close(found: Scores, expected: Scores, relative: float) -> None:
    """Relative to the largest score of the layer, as a score near zero is what is left of larger terms."""
    assert found.keys() == expected.keys()
    for name, score in found.items():
        error = (score - expected[name]).abs().max() / expected[name].abs().max()
        assert error <= relative, f"{name}: {error}"


# The contract: a new entry of SALIENCIES inherits it.


def test_the_registry_knows_who_needs_pictures() -> None:
    assert set(SALIENCIES) >= NEEDS_DATA


@every_criterion
@every_kind
@pytest.mark.parametrize("cell", ["basic", "skip_second"])
def test_every_weight_gets_a_finite_score(criterion: str, kind: str, cell: str) -> None:
    for head, shape in itertools.product(["mixed", "average", "max"], [(1, 8, 8), (3, 11, 9)]):
        network = build(kind, cell, head, shape=shape)
        check(SALIENCIES[criterion](network, [batch(6, shape)], 0), network)


@every_criterion
@every_narrow
def test_every_weight_of_any_cell_gets_a_finite_score(criterion: str, name: str) -> None:
    network = chain(name)
    mask_some(network)
    assert network.config.input_shape is not None
    check(SALIENCIES[criterion](network, [batch(6, network.config.input_shape)], 0), network)


@every_criterion
@pytest.mark.parametrize("kind", ["dense", "iterative"])
def test_it_follows_growth_and_masks(criterion: str, kind: str) -> None:
    network = build(kind, stages=1)
    check(SALIENCIES[criterion](network, [batch()], 0), network)
    while not network.complete:
        mask_some(network)
        grow(network, seed=0)
        check(SALIENCIES[criterion](network, [batch()], 0), network)
    mask_some(network)
    check(SALIENCIES[criterion](network, [batch(), batch(7, seed=2)], 0), network)


@every_criterion
def test_a_masked_weight_scores_nothing_and_has_no_part_whatever_is_stored(criterion: str) -> None:
    network = build()
    mask_some(network)
    expected = SALIENCIES[criterion](network, [batch()], 0)
    with torch.no_grad():
        for layer in masked_layers(network).values():
            layer.weight.add_(~layer.mask)
    found = SALIENCIES[criterion](network, [batch()], 0)
    check(found, network)
    assert_same(found, expected)


@every_criterion
def test_the_same_seed_gives_the_same_scores_and_no_other_draw_is_disturbed(criterion: str) -> None:
    network = build()
    torch.manual_seed(5)
    first = SALIENCIES[criterion](network, [batch()], 7)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), drawn)
    assert_same(SALIENCIES[criterion](copy.deepcopy(network), [batch()], 7), first)


@pytest.mark.parametrize("criterion", sorted(SALIENCIES.keys() - NEEDS_DATA))
def test_scores_that_need_no_pictures_do_not_look_at_them(criterion: str) -> None:
    network = build()
    assert_same(SALIENCIES[criterion](network, [], 7), SALIENCIES[criterion](network, [batch()], 7))


@every_criterion
@pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
def test_the_network_is_left_as_it_was(criterion: str, mode: str) -> None:
    network = build().train(mode != "eval")
    mask_some(network)
    if mode == "mixed":
        network.stages[0].eval()
    for parameter in list(network.parameters())[::2]:
        parameter.grad = torch.rand_like(parameter)
    network.stem.requires_grad_(False)
    pictures = [batch(), batch(7, seed=2)]

    tensors = {name: value.clone() for name, value in network.state_dict().items()}
    gradients = [None if p.grad is None else p.grad.clone() for p in network.parameters()]
    identities = [id(p) for p in network.parameters()]
    required = [p.requires_grad for p in network.parameters()]
    modes = [module.training for module in network.modules()]
    given = copy.deepcopy(pictures)
    SALIENCIES[criterion](network, pictures, 0)

    assert all(torch.equal(tensors[name], value) for name, value in network.state_dict().items())
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        if gradient is None:
            assert parameter.grad is None
        else:
            assert parameter.grad is not None
            assert torch.equal(parameter.grad, gradient)
    assert [id(p) for p in network.parameters()] == identities
    assert [p.requires_grad for p in network.parameters()] == required
    assert [module.training for module in network.modules()] == modes
    assert all(
        torch.equal(a, b) for old, new in zip(given, pictures, strict=True) for a, b in zip(old, new, strict=True)
    )


@every_criterion
def test_the_mode_and_the_surroundings_do_not_matter(criterion: str) -> None:
    surroundings: list[Callable[[], contextlib.AbstractContextManager[object]]] = [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", torch.bfloat16),
    ]
    network = build().train()
    expected = SALIENCIES[criterion](network, [batch()], 0)
    network.eval().requires_grad_(False)
    for surrounding in surroundings:
        with surrounding():
            assert_same(SALIENCIES[criterion](network, [batch()], 0), expected)
    with torch.inference_mode():
        born = build()
    assert_same(SALIENCIES[criterion](born, [batch()], 0), expected)


@every_criterion
def test_the_order_of_the_pictures_does_not_matter(criterion: str) -> None:
    network = build()
    images, labels = batch(16)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    found = SALIENCIES[criterion](network, [(images[order], labels[order])], 0)
    assert_close(found, SALIENCIES[criterion](network, [(images, labels)], 0), 1e-3)


@every_criterion
def test_a_network_in_float64_gets_the_same_scores_more_precisely(criterion: str) -> None:
    network = build()
    found = SALIENCIES[criterion](network, [batch()], 0)
    assert_close(found, SALIENCIES[criterion](network.double(), [batch()], 0), 1e-3)


@pytest.mark.parametrize("criterion", sorted(NEEDS_DATA))
def test_no_pictures_is_an_error(criterion: str) -> None:
    for pictures in ([], [(torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64))]):
        with pytest.raises(InputError) as caught:
            SALIENCIES[criterion](build(), pictures, 0)
        assert str(caught.value) == (
            f"prune.criterion: got '{criterion}' without pictures; accepted: a batch of labeled pictures, "
            "or one of synflow, magnitude, random, erk, uniform"
        )


@every_criterion
def test_a_weight_that_is_not_a_number_is_reported_and_never_scored(criterion: str) -> None:
    network = build()
    with torch.no_grad():
        masked_layers(network)["stages.0.cells.0.conv2"].weight[0] = torch.nan
    modes = [module.training for module in network.modules()]
    try:
        check(SALIENCIES[criterion](network, [batch()], 0), network)
    except RunError as error:
        assert "not finite" in str(error)  # noqa: PT017 - random ones need not fail
    assert [module.training for module in network.modules()] == modes


def test_the_layer_that_is_not_finite_is_named() -> None:
    network = build()
    with torch.no_grad():
        masked_layers(network)["stages.0.cells.0.conv2"].weight[0] = torch.inf
        with pytest.raises(RunError, match=r"'magnitude' gave .* in layer 'stages\.0\.cells\.0\.conv2'; accepted"):
            magnitude(network, [], 0)
        with pytest.raises(RunError, match=r"'snip' gave .* in layer 'stem\.conv' and \d+ more; accepted"):
            snip(network, [batch()], 0)


# SNIP


def masks_gradient(network: Network, pictures: ScoringBatch) -> Scores:
    """|dL/dm| for a mask m of ones, with the loss of ops.loss taken for each exit in float64."""
    names = list(masked_layers(network))
    state = {name: value.detach().clone() for name, value in network.state_dict().items()}
    ones = [torch.ones_like(state[f"{name}.weight"], requires_grad=True) for name in names]
    masked = {f"{name}.weight": state[f"{name}.weight"] * m for name, m in zip(names, ones, strict=True)}
    logits = functional_call(copy.deepcopy(network).train(), {**state, **masked}, (pictures[0],))
    loss = torch.stack([F.cross_entropy(each, pictures[1]) for each in logits]).mean()
    torch.testing.assert_close(exit_losses(logits, pictures[1]).mean().double(), loss, rtol=1e-6, atol=0)
    return {name: g.abs() for name, g in zip(names, torch.autograd.grad(loss, ones), strict=True)}


@every_kind
@pytest.mark.parametrize("cell", ["basic", "skip_second"])
def test_snip_is_the_gradient_of_a_mask_of_ones(kind: str, cell: str) -> None:
    network = build(kind, cell).double()
    mask_some(network)
    pictures = doubled(batch())
    assert_close(snip(network, [pictures], 0), masks_gradient(network, pictures), 1e-10)


@pytest.mark.parametrize("criterion", sorted(NEEDS_DATA))
def test_several_batches_give_the_mean_of_their_scores(criterion: str) -> None:
    network = build()
    one, other = batch(seed=1), batch(5, seed=2)
    first, second = (SALIENCIES[criterion](network, [pictures], 0) for pictures in (one, other))
    mean = {name: (first[name] + second[name]) / 2 for name in first}
    assert_close(SALIENCIES[criterion](network, [one, other], 0), mean, 1e-6)


# GraSP


@every_kind
@pytest.mark.parametrize("head", ["mixed", "average", "max"])
def test_grasp_is_the_weight_times_the_hessian_times_the_gradient(kind: str, head: str) -> None:
    """H g as the central difference of plain gradients along g, taken by ``backward`` on a copy."""
    network = build(kind, head=head).double()
    mask_some(network)
    pictures = doubled(batch())

    def gradient(step: float, along: Scores | None) -> Scores:
        twin = copy.deepcopy(network).train()
        layers = masked_layers(twin)
        with torch.no_grad():
            for name, layer in layers.items():
                if along is not None:
                    layer.weight.add_(along[name], alpha=step)
        logits = twin(pictures[0]) / 200
        torch.stack([F.cross_entropy(each, pictures[1]) for each in logits]).mean().backward()
        return {name: layer.weight.grad for name, layer in layers.items() if layer.weight.grad is not None}

    g = gradient(0, None)
    step = 1e-6 / torch.cat([each.flatten() for each in g.values()]).norm().item()
    above, below = gradient(step, g), gradient(-step, g)
    weights = {name: layer.weight.detach() for name, layer in masked_layers(network).items()}
    expected = {name: weights[name] * (above[name] - below[name]) / (2 * step) for name in g}
    found = grasp(network, [pictures], 0)
    assert_close(found, expected, 1e-5)
    assert any((score > 0).any() and (score < 0).any() for score in found.values())


def test_grasp_keeps_first_what_the_gradient_needs_most() -> None:
    """Shrinking the weights that score highest costs |g|^2, shrinking the lowest raises it."""
    network = build("iterative").double()
    pictures = doubled(batch())
    scores = grasp(network, [pictures], 0)
    flat = torch.cat([score.flatten() for score in scores.values()])
    high, low = flat.topk(20).values[-1], flat.topk(20, largest=False).values[-1]

    def gradient_norm(chosen: Callable[[Tensor], Tensor]) -> float:
        twin = copy.deepcopy(network).train()
        layers = masked_layers(twin)
        with torch.no_grad():
            for name, layer in layers.items():
                layer.weight.mul_(1 - 1e-4 * chosen(scores[name]).double())
        weights = [layer.weight for layer in layers.values()]
        loss = torch.stack([F.cross_entropy(each / 200, pictures[1]) for each in twin(pictures[0])]).mean()
        return sum(float(g.square().sum()) for g in torch.autograd.grad(loss, weights))

    untouched = gradient_norm(torch.zeros_like)
    assert gradient_norm(lambda score: score >= high) < untouched < gradient_norm(lambda score: score <= low)


# SynFlow


def flow(network: Network) -> Tensor:
    """R by itself: a copy whose weights are all positive and whose constants are gone, run in evaluation mode."""
    twin = copy.deepcopy(network).double().eval()
    with torch.no_grad():
        for module in twin.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.abs_()
                module.bias.zero_()
                assert module.running_mean is not None
                module.running_mean.zero_()
            elif isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.abs_()
                if module.bias is not None:
                    module.bias.zero_()
        twin.set_normalization([0] * twin.mean.numel(), [1] * twin.mean.numel())
        assert twin.config.input_shape is not None
        return twin(torch.ones(1, *twin.config.input_shape).double()).sum()  # type: ignore[no-any-return]


@every_kind
@pytest.mark.parametrize("cell", ["basic", "skip_second"])
@pytest.mark.parametrize("head", ["mixed", "average", "max"])
def test_synflow_is_conserved(kind: str, cell: str, head: str) -> None:
    for masked, shape in itertools.product([False, True], [(1, 8, 8), (3, 11, 9)]):
        network = build(kind, cell, head, shape=shape)
        if masked:
            mask_some(network)
        sums = {name: score.sum() for name, score in synflow(network, [], 0).items()}
        total = flow(network)
        torch.testing.assert_close(sums["stem.conv"], total, rtol=1e-9, atol=0)
        heads = [value for name, value in sums.items() if name.endswith("exit.linear")]
        assert len(heads) == len(network.stages)
        torch.testing.assert_close(torch.stack(heads).sum(), total, rtol=1e-9, atol=0)
        firsts = [name for name in sums if name.endswith("conv1")]
        assert len(firsts) == 4
        for name in firsts:
            inner, outer = sums[name], sums[name.removesuffix("conv1") + "conv2"]
            if cell == "skip_second":  # what leaves the first layer goes through the second or around it
                assert inner > outer > 0
            else:
                torch.testing.assert_close(inner, outer, rtol=1e-9, atol=0)


def check_flow(network: Network, gated: bool = False) -> None:
    """All flow goes through the first layer, and all of it comes out of the heads; gates add to the former."""
    sums = {name: score.sum() for name, score in synflow(network, [], 0).items()}
    total = flow(network)
    assert total > 0
    if not gated:
        torch.testing.assert_close(next(iter(sums.values())), total, rtol=1e-9, atol=0)
    heads = [value for name, value in sums.items() if name.endswith("exit.linear")]
    assert len(heads) == len(network.stages)
    torch.testing.assert_close(torch.stack(heads).sum(), total, rtol=1e-9, atol=0)


@every_narrow
def test_synflow_is_conserved_in_any_cell(name: str) -> None:
    network = chain(name)
    gates = [module for module in network.modules() if isinstance(module, Squeeze)]
    check_flow(network, gated=bool(gates))
    for module in network.modules():
        for child, gate in list(module.named_children()):
            if gate in gates:
                setattr(module, child, nn.Identity())
    check_flow(network)
    mask_some(network, 0.2)
    check_flow(network)


@pytest.mark.parametrize("name", list(ZOO))
def test_synflow_is_conserved_in_every_architecture(name: str) -> None:
    config = NetworkConfig.model_validate({"cells": name, "kind": "full_ic", "input_shape": (3, 16, 16), "classes": 3})
    network = Network(place_exits(config), seed=0).double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training, and away from where the flow explodes
            nn.init.uniform_(module.weight, 0.1, 0.5)
            nn.init.uniform_(module.bias, -1, 1)
        elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.uniform_(module.bias, -1, 1)
    check_flow(network)


def test_synflow_clamps_the_share_of_max_pooling() -> None:
    network, twin = build(), build()
    with torch.no_grad():
        for end, beyond in ((0.0, -0.7), (1.0, 1.7)):
            for name, parameter in network.named_parameters():
                if name.endswith("share"):
                    parameter.fill_(beyond)
                    twin.get_parameter(name).fill_(end)
            assert_same(synflow(network, [], 0), synflow(twin, [], 0))


def test_synflow_of_a_deep_network_is_finite() -> None:
    config = NetworkConfig(kind="full", structure=(0,) * 40, channels=64, input_shape=(1, 8, 8), classes=3)
    network = Network(config, seed=0)
    scores = synflow(network, [], 0)
    check(scores, network)
    assert scores["stem.conv"].sum() > torch.finfo(torch.float32).max  # float32 would have been too small
    torch.testing.assert_close(scores["stem.conv"].sum(), scores["stages.0.exit.linear"].sum(), rtol=1e-9, atol=0)


def test_synflow_says_when_even_float64_is_too_small() -> None:
    network = build("full")
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(1e35)
    with pytest.raises(RunError, match="got a flow through 10 layers that is not finite in float64"):
        synflow(network, [], 0)


# Magnitude, random, ERK


def test_magnitude_is_the_absolute_weight() -> None:
    network = build()
    for name, score in magnitude(network, [], 0).items():
        assert torch.equal(score, masked_layers(network)[name].weight.abs())


@pytest.mark.parametrize("criterion", ["random", "erk"])
def test_another_seed_gives_other_scores_in_every_layer(criterion: str) -> None:
    network = build()
    first, second = (SALIENCIES[criterion](network, [], seed) for seed in (0, 1))
    assert not any(torch.equal(first[name], second[name]) for name in first)
    grown = build(stages=1)
    for name, score in SALIENCIES[criterion](grown, [], 0).items():
        assert torch.equal(score, first[name]), "a layer's draw does not depend on the layers around it"


def test_random_is_uniform() -> None:
    config = NetworkConfig(kind="full", structure=(0, 0), channels=32, input_shape=(1, 8, 8), classes=3)
    flat = torch.cat([score.flatten() for score in random(Network(config, seed=0), [], 0).values()])
    assert 0 <= flat.min() < 0.001
    assert 0.999 < flat.max() < 1
    assert abs(flat.mean() - 0.5) < 0.005
    assert len(flat.unique()) == len(flat)


@every_kind
@pytest.mark.parametrize("masked", [False, True])
def test_erk_keeps_the_densities_of_rigl_at_any_keep_ratio(kind: str, masked: bool) -> None:
    network = build(kind, shape=(3, 8, 8))
    if masked:
        mask_some(network)
    scores = erk(network, [], 0)
    flat = torch.cat([score.flatten() for score in scores.values()]).sort(descending=True).values
    for keep in (0.9, 0.5, 0.2, 0.05, 0.01):
        number = min(round(keep * len(flat)), int((flat > 0).sum()))
        threshold = flat[number - 1]
        for name, layer in masked_layers(network).items():
            total = layer.weight.numel()
            if isinstance(layer, nn.Linear):
                factor = (layer.in_features + layer.out_features) / (layer.in_features * layer.out_features)
            else:
                inputs = layer.in_channels // layer.groups
                factor = (inputs + layer.out_channels + sum(layer.kernel_size)) / total
            expected = min(factor / float(threshold) * total, int(layer.mask.sum()))
            assert abs(int((scores[name] >= threshold).sum()) - expected) <= 1, f"{name} at {keep}"
