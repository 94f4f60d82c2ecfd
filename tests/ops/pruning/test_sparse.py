"""Sparse starts: the density of a stage is exact, layers share it as asked, and what was learned is kept."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ramify.errors import InputError
from ramify.nn.masked import masked_layers
from ramify.ops.cost import stage_density
from ramify.ops.growing.grow import grow
from ramify.ops.growing.widen import widen
from ramify.ops.pruning.prune import apply_pruning, layer_names, prune
from ramify.ops.pruning.sparse import plan_start, weight_shapes
from ramify.ops.surgery import parameter_groups, revived
from tests.ops.growing.test_inherit import seed_network, step
from tests.ops.networks import pictures_for


@given(
    kind=st.sampled_from(["dense", "full_ic"]),
    keep=st.floats(0.05, 1.0),
    distribution=st.sampled_from(["erk", "uniform"]),
    known=st.booleans(),
    pruned=st.floats(0.05, 1.0),
)
def test_every_stage_has_exactly_its_share(
    kind: str, keep: float, distribution: str, known: bool, pruned: float
) -> None:
    """Whether its weights are new or not, and had more connections or fewer."""
    network = seed_network(kind, (0, 1, 0))
    prune(network, pruned, "random")
    shapes = weight_shapes(network) if known else None
    plan = plan_start(network, dict.fromkeys(range(len(network.stages)), keep), distribution, known=shapes)
    before = {name: layer.mask.clone() for name, layer in masked_layers(network).items()}
    report = apply_pruning(network, plan)
    for stage in range(len(network.stages)):
        names = layer_names(network, stage)
        total = sum(masked_layers(network)[name].mask.numel() for name in names)
        assert sum(report.layers[name].after for name in names) == round(keep * total)
    assert all(layer.mask.any() for layer in masked_layers(network).values()), "a layer died"
    assert revived(network) == 0
    for name, layer in masked_layers(network).items():
        mask = layer.mask
        assert not (mask & ~before[name]).any() or mask[before[name]].all(), "others come only when all there stay"


@pytest.mark.parametrize("distribution", ["erk", "uniform"])
def test_layers_share_the_density_as_rigl_does(distribution: str) -> None:
    """One eps for which every layer keeps ``min(1, eps * p) * N`` to within one."""
    network = seed_network("full", (0, 0), width=8)
    apply_pruning(network, plan_start(network, {0: 0.1}, distribution))
    lowest, highest = 0.0, torch.inf
    for layer in masked_layers(network).values():
        kept, total = int(layer.mask.sum()), layer.weight.numel()
        share = sum(layer.weight.shape) if distribution == "erk" else total
        lowest = max(lowest, (kept - 1) / share)
        highest = min(highest, torch.inf if kept == total else (kept + 1) / share)
    assert lowest <= highest


def test_a_fresh_stage_is_drawn_at_random_and_another_seed_draws_another() -> None:
    network = seed_network("full", (0, 0))
    first, again, other = (plan_start(network, {0: 0.3}, seed=seed).masks for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_what_has_learned_keeps_its_largest_weights() -> None:
    network = seed_network("full", (0, 0))
    apply_pruning(network, plan_start(network, {0: 0.3}, known=weight_shapes(network)))
    fresh = seed_network("full", (0, 0))
    for name, layer in masked_layers(network).items():
        size = masked_layers(fresh)[name].weight.detach().abs()
        assert layer.mask.all() or size[layer.mask].min() >= size[~layer.mask].max()


def test_a_stage_born_with_its_function_keeps_what_it_can() -> None:
    """Growth as an identity copies the head of the exit before: a sparse one fits in whole."""
    network = seed_network("iterative", (1, 0))
    for _ in range(2):
        apply_pruning(network, plan_start(network, {0: 0.2}, known=weight_shapes(network)))
    known = weight_shapes(network)
    grow(network, init="identity")
    head = masked_layers(network)["stages.1.exit.linear"]
    copied = head.weight != 0
    assert 0 < int(copied.sum()) < copied.numel()
    apply_pruning(network, plan_start(network, {1: 0.5}, known=known, widened=True))
    assert int((head.mask & copied).sum()) == min(int(copied.sum()), int(head.mask.sum()))
    assert stage_density(network)[1] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("init", ["random", "copy"])
def test_widening_touches_nothing_that_was_there(init: str) -> None:
    network = seed_network("full_ic", (0, 1, 0))
    optimizer = torch.optim.Adam(parameter_groups(network, 0.0))
    keep = {0: 0.3, 1: 0.4}
    apply_pruning(network, plan_start(network, keep), optimizer)
    step(network, optimizer)
    known = weight_shapes(network)
    old = copy.deepcopy(network)
    widen(network, 0, 3, optimizer, init=init, seed=0, images=pictures_for(network))  # type: ignore[arg-type]
    wide = copy.deepcopy(network)
    apply_pruning(network, plan_start(network, {0: keep[0]}, known=known, widened=True), optimizer)
    names = layer_names(network, 0)
    total = sum(masked_layers(network)[name].mask.numel() for name in names)
    assert sum(int(masked_layers(network)[name].mask.sum()) for name in names) == round(0.3 * total)
    for name, layer in masked_layers(old).items():
        here = tuple(slice(size) for size in layer.weight.shape)
        new, between = masked_layers(network)[name], masked_layers(wide)[name]
        assert torch.equal(new.mask[here], layer.mask)
        assert torch.equal(new.weight[here], between.weight[here])
    assert revived(network) == 0


def test_too_few_connections_are_refused() -> None:
    network = seed_network("full", (0, 0))
    with pytest.raises(InputError, match=r"got 0\.001, 1 of 840 weights in stage 1, too few for its 6 layers"):
        plan_start(network, {0: 0.001})
    assert sum(int(mask.sum()) for mask in plan_start(network, {0: 0.001}, floor=0).masks.values()) == 1
