"""Inheritance: a new stage answers as the exit before it did, or starts as a copy, and everything in it can learn."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ramify.config.rules import NetworkConfig
from ramify.errors import InputError
from ramify.nn.exit import PooledHead
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network, StagePlan
from ramify.ops.growing.grow import Growth, can_copy, can_keep, grow
from ramify.ops.growing.inherit import measured
from ramify.ops.loss import exit_losses
from ramify.ops.pruning.channels import channels, dead_trunk, mask_channels, silence
from ramify.ops.pruning.compact import compact
from ramify.ops.pruning.prune import prune
from ramify.ops.surgery import revived, set_masks
from tests.ops.networks import Spec, index_of, kind_of, narrow, pictures_for, shake

KINDS = ("dense", "iterative")
CELLS = ("basic", "skip_second")
PRUNINGS = ("not", "weight", "channel", "compact")


def seed_network(
    kind: str = "iterative",
    structure: Sequence[int] = (0, 1, 1, 0),
    cell: str = "basic",
    exit: str = "mixed",  # noqa: A002 - the name of the configuration key
    width: int = 4,
) -> Network:
    """A young network whose exits are all of one type, with everything that a trained one has."""
    config = NetworkConfig.model_validate(
        {"kind": kind, "cell": cell, "structure": tuple(structure), "channels": width, "exit": exit, "final": exit}
        | {"input_shape": (2, 8, 8), "classes": 3}
    )
    network = Network(config, seed=0)
    network.set_normalization([0.4, 0.6], [0.2, 0.3])
    stir(network, 0)
    return network.eval()


def stir(module: nn.Module, seed: int) -> None:
    """As :func:`shake`, and with a share of max pooling that is not 0.5."""
    shake(module, seed)
    for name, parameter in module.named_parameters():
        if name.endswith("share"):
            parameter.data.fill_(0.3)


def pruned(network: Network, how: str, seed: int) -> Network:
    if how == "weight":
        prune(network, 0.5, "random", floor=0, seed=seed)
    elif how != "not":
        lost = [group for group in channels(network) if (index_of(group) + seed) % 3 == 0]
        set_masks(network, mask_channels(network, lost))
        silence(network, *lost)
    return compact(network)[0] if how == "compact" else network


def gap(network: Network) -> float:
    """How far the last exit is from the one before it in evaluation mode, as a part of the largest logit or of 1."""
    with torch.no_grad():
        logits = network.eval()(pictures_for(network, 8).to(network.mean))
    return float((logits[-1] - logits[-2]).abs().max() / logits[-2].abs().max().clamp(min=1))


def grown_by_identity(network: Network, images: Tensor | None = None) -> Growth:
    """Grow by identity, and check that the function is kept, in float32 and in float64."""
    precise, drawn = copy.deepcopy(network).double(), copy.deepcopy(network)
    before = copy.deepcopy(network.state_dict())
    assert can_keep(network) == ""
    growth = grow(network, init="identity", seed=0, images=images)
    assert growth.init == "identity"
    assert gap(network) <= 1e-6
    grow(precise, init="identity", seed=0, images=images)
    assert gap(precise) <= 1e-12

    assert all(torch.equal(value, network.state_dict()[key]) for key, value in before.items())
    assert revived(network) == 0
    grow(drawn, init="random", seed=0)
    masks = {key: layer.mask for key, layer in masked_layers(drawn).items()}
    for key, layer in masked_layers(network).items():
        # What a dead channel leaves is read only where the function needs it.
        assert (layer.mask >= masks[key]).all()
        assert (layer.weight[layer.mask & ~masks[key]] != 0).all()
    return growth


@given(
    kind=st.sampled_from(KINDS),
    structure=st.lists(st.integers(0, 1), min_size=1, max_size=5),
    cell=st.sampled_from(CELLS),
    exit_=st.sampled_from(["mixed", "average", "max"]),
    width=st.integers(2, 6),
    pruning=st.sampled_from(PRUNINGS),
    fitted=st.booleans(),
    seed=st.integers(0, 99),
)
def test_identity_keeps_the_function_to_the_last_stage(
    kind: str, structure: list[int], cell: str, exit_: str, width: int, pruning: str, fitted: bool, seed: int
) -> None:
    network = seed_network(kind, structure, cell, exit_, width)
    while not network.complete:
        network = pruned(network, pruning, seed)
        grown_by_identity(network, torch.rand(8, 2, 8, 8) if fitted else None)
        stir(network.stages[-1], seed)


PASSING: dict[str, tuple[list[Spec], list[tuple[int, str]], str]] = {
    "preactivation": (
        [("preactivation", 4, 1), ("preactivation", 4, 1), ("preactivation", 5, 1)],
        [(1, "normed"), (2, "normed"), (3, "normed")],
        "convolution",
    ),
    "plain": ([("plain", 4, 1)] * 4, [(1, "mixed"), (3, "mixed"), (4, "mixed")], "block"),
    "separable": ([("separable", 4, 1)] * 4, [(1, "max"), (3, "max"), (4, "max")], "block"),
    "projecting": (
        [("basic", 3, 1), ("basic+", 3, 1), ("basic", 5, 1), ("skip_second+", 5, 1), ("skip_second", 5, 1)],
        [(1, "average"), (3, "average"), (5, "average")],
        "block",
    ),
    "motley": (
        [("plain", 4, 2), ("separable", 4, 1), ("basic", 4, 1), ("plain", 5, 1), ("separable", 6, 1)],
        [(1, "normed"), (3, "normed"), (5, "normed")],
        "block",
    ),
}
"""Chains in which every stage keeps the map's shape; some get wider."""


@pytest.mark.parametrize("pruning", PRUNINGS)
@pytest.mark.parametrize("name", list(PASSING))
def test_identity_keeps_the_function_of_any_cells(name: str, pruning: str) -> None:
    specs, heads, stem = PASSING[name]
    network = narrow(specs, heads, stem, 8, stages=1)
    while not network.complete:
        network = pruned(network, pruning, 1)
        grown_by_identity(network, pictures_for(network))
        stir(network.stages[-1], 2)


@pytest.mark.parametrize(
    ("cells", "structure", "reasons"),
    [
        ("resnet56", (1, 1) + (0,) * 8, ["", "one of its basic cells halves the map"]),
        ("vgg16", (0, 0, 1, 0), ["its exit is average and the one before it mixed"]),
        ("wideresnet32_4", (1, 1), ["", "its exit is normed and the one before it mixed"]),
        (
            "mobilenet",
            (0, 1, 0, 0, 1),
            ["one of its separable cells halves the map", "its exit is average and the one before it mixed"],
        ),
    ],
)
def test_published_cells_keep_the_function_where_nothing_changes(
    cells: str, structure: tuple[int, ...], reasons: list[str]
) -> None:
    config = NetworkConfig.model_validate(
        {"cells": cells, "structure": structure, "input_shape": (3, 8, 8), "classes": 3}
    )
    network = Network(config, seed=0).eval()
    for reason in reasons:
        assert can_keep(network) == reason
        if reason:
            with pytest.raises(InputError, match="grow: got init identity; accepted: random for stage"):
                grow(network, init="identity")
            grow(network, seed=0)
        else:
            grown_by_identity(network)
    assert network.complete


@pytest.mark.parametrize(
    ("specs", "heads", "stem", "reason"),
    [
        ([("plain", 4, 1)], [(1, "average")], "block", "its exit is average and the one before it max"),
        ([("plain", 4, 2)], [(1, "average")], "block", "one of its plain cells halves the map"),
        ([("basic+", 2, 1)], [(1, "average")], "block", "one of its basic cells has 2 channels and the exit before"),
        ([("plain", 2, 1), ("plain", 3, 1)], [(2, "average")], "block", "has 2 channels and the exit before it reads"),
        ([("linear", 3, 1)], [(1, "average")], "block", "its linear cells change whatever they read"),
        ([("plain", 16, 1)], [(1, "average")], "convolution", "plain cells end in a ReLU and the exit before it reads"),
        ([("basic", 2, 1)], [(1, "average")], "none", "basic cells end in a ReLU and the exit before it reads"),
    ],
)
def test_why_a_stage_cannot_keep_the_function(
    specs: list[Spec], heads: list[tuple[int, str]], stem: str, reason: str
) -> None:
    """The first exit stands before any cell."""
    network = narrow(specs, heads, stem, 8)
    trunk = {"block": 3, "convolution": 16, "none": 2}[stem]
    first = StagePlan((), trunk, False, (4, 4), "max" if "before it max" in reason else "average")
    young = Network(network.config, stages=1, seed=0, plans=(first, network.plans[-1]))
    assert reason in can_keep(young)
    before = copy.deepcopy(young.state_dict())
    with pytest.raises(InputError, match="grow: got init identity; accepted: random for stage 2, as") as caught:
        grow(young, init="identity")
    assert "\n" not in str(caught.value)
    assert before.keys() == young.state_dict().keys()
    grow(young)
    assert can_keep(young) == "the network has all its 2 stages"


def test_a_unpadded_cell_passes_nothing_on() -> None:
    """Where only the cell is in the way."""
    network = narrow([("unpadded", 3, 1), ("unpadded", 3, 1)], [(1, "average"), (2, "average")], "block", 32, stages=1)
    assert can_keep(network) == "its unpadded cells change whatever they read"


@pytest.mark.parametrize("kind", KINDS)
def test_the_constant_of_a_dead_channel_is_passed_on_if_it_is_read(kind: str) -> None:
    network = seed_network(kind, (0, 1, 0), "skip_second")
    last = "stages.0.cells.1"
    for layer in ("conv1", "conv2"):
        mask = masked_layers(network)[f"{last}.{layer}"].mask.clone()
        mask[2] = False
        set_masks(network, {f"{last}.{layer}": mask})
    for norm in ("norm1", "norm2"):
        network.get_parameter(f"{last}.{norm}.bias").data[2] = 5
    assert dead_trunk(network).sum() == 1
    grown_by_identity(network)


@pytest.mark.parametrize("fitted", [False, True])
def test_the_place_of_a_dead_channel_that_nothing_reads_is_for_a_new_one(fitted: bool) -> None:
    network = seed_network("dense", (0, 1, 0, 1))
    lost = [group for group in channels(network) if (kind_of(group), index_of(group)) == ("output", 2)]
    set_masks(network, mask_channels(network, lost))
    silence(network, *lost)
    assert dead_trunk(network).tolist() == [False] * 10 + [True, False]
    grown_by_identity(network, pictures_for(network) if fitted else None)
    cell = network.stages[1].get_submodule("cells.1")
    assert cell.get_parameter("norm2.weight").tolist() == [0, 0, 1, 0]
    assert cell.get_parameter("shortcut.0.weight").count_nonzero(dim=(1, 2, 3)).tolist() == [1, 1, 15, 1]
    head = network.stages[1].get_submodule("exit")
    assert isinstance(head, PooledHead)
    assert not head.linear.weight[:, 32:48].any()
    assert head.linear.mask.all()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_training_mode_changes_little_once_statistics_are_measured(kind: str, cell: str) -> None:
    images = pictures_for(seed_network(), 16)
    gaps = []
    for given_images in (None, images):
        network = seed_network(kind, cell=cell)
        grow(network, init="identity", seed=0, images=given_images)
        with torch.no_grad():
            trunk, before = network.stages[0](network.enter(images))
            stage = network.stages[1].train()
            gaps.append(float((stage(trunk)[1] - before).abs().max()))
    assert gaps[1] < 1e-4
    # An identity shortcut needs no statistics.
    assert gaps[0] > 0.1 or (kind, cell) == ("iterative", "basic")


def test_measuring_leaves_no_trace() -> None:
    network = seed_network().train()
    network.stages[0].get_submodule("cells.0").eval()
    modes = [module.training for module in network.modules()]
    before = copy.deepcopy(network.state_dict())
    norm = network.get_submodule("stages.0.cells.1.norm1")
    assert isinstance(norm, nn.BatchNorm2d)
    images = torch.rand(5, 2, 8, 8)
    [(mean, variance)] = measured(network, images, [norm]).values()
    assert modes == [module.training for module in network.modules()]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not norm._forward_pre_hooks
    fresh = nn.BatchNorm2d(4, momentum=1.0)
    cells = network.eval().stages[0].get_submodule("cells")
    with torch.no_grad():
        fresh(cells.get_submodule("1.conv1")(cells.get_submodule("0")(network.enter(images))))
    assert fresh.running_mean is not None
    assert fresh.running_var is not None
    torch.testing.assert_close(mean, fresh.running_mean)
    torch.testing.assert_close(variance, fresh.running_var * (5 * 64 - 1) / (5 * 64))


def trainer(network: Network) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)


def step(network: Network, optimizer: torch.optim.Optimizer) -> None:
    images = pictures_for(network, 8)
    optimizer.zero_grad()
    exit_losses(network.train()(images), torch.arange(8) % 3).sum().backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()


def still(network: Network, before: dict[str, Tensor]) -> set[str]:
    """The parameters of the newest stage that have not moved."""
    prefix = f"stages.{len(network.stages) - 1}."
    names = [name for name, _ in network.named_parameters() if name.startswith(prefix)]
    return {name for name in names if torch.equal(network.state_dict()[name], before[name])}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", KINDS)
def test_all_new_parameters_learn(kind: str, cell: str) -> None:
    """At once what a gradient reaches, and all else in the next step."""
    network = seed_network(kind, (1, 0, 1, 0, 0), cell)
    optimizer = trainer(network)
    step(network, optimizer)
    while not network.complete:
        growth = grow(network, optimizer, init="identity", seed=0, images=pictures_for(network))
        before = copy.deepcopy(network.state_dict())
        step(network, optimizer)
        unmoved = {name.rpartition(".cells.")[2].partition(".")[0] for name in still(network, before)}
        moved = {name for name, _ in network.named_parameters()} - still(network, before)
        for index in range(growth.cells):
            here = any(name.startswith(f"stages.{growth.stage}.cells.{index}.") for name in moved)
            # In dense wiring the last cell, or the final classifier, must first learn to read the others.
            assert here is (kind == "iterative" or (not growth.final and index == growth.cells - 1)), unmoved
        assert f"stages.{growth.stage}.exit.linear.weight" in moved
        step(network, optimizer)
        if growth.final and kind == "dense":
            step(network, optimizer)
        assert still(network, before) == set()


@pytest.mark.parametrize("name", list(PASSING))
def test_all_new_parameters_of_any_cells_learn(name: str) -> None:
    specs, heads, stem = PASSING[name]
    network = narrow(specs, heads, stem, 8, stages=1)
    optimizer = trainer(network)
    while not network.complete:
        grow(network, optimizer, init="identity", seed=0, images=pictures_for(network))
        before = copy.deepcopy(network.state_dict())
        step(network, optimizer)
        moved = {key.partition(".cells.")[2].partition(".")[0] for key in before} - {""}
        for index in moved:
            prefix = f"stages.{len(network.stages) - 1}.cells.{index}."
            names = {key for key, _ in network.named_parameters() if key.startswith(prefix)}
            assert not names or names - still(network, before)
        step(network, optimizer)
        assert still(network, before) == set()


@pytest.mark.parametrize("wrong", [torch.rand(4, 1, 8, 8), torch.rand(0, 2, 8, 8), torch.rand(2, 8, 8)])
def test_pictures_that_do_not_fit_are_refused(wrong: Tensor) -> None:
    network = seed_network()
    with pytest.raises(InputError, match=r"images: got \[.*\]; accepted: pictures \[B, 2, 8, 8\] in \[0, 1\], B > 0"):
        grow(network, init="identity", images=wrong)
    assert len(network.stages) == 1


@pytest.mark.parametrize("cell", CELLS)
def test_copies_are_copies(cell: str) -> None:
    network = seed_network("iterative", (0, 1, 0, 1), cell)
    prune(network, 0.5, "random")
    source = copy.deepcopy(network.stages[0].get_submodule("cells.1").state_dict())
    head = copy.deepcopy(network.stages[0].get_submodule("exit").state_dict())
    assert can_copy(network) == ""
    assert grow(network, init="copy", seed=0).init == "copy"
    for fresh in network.stages[1].get_submodule("cells").children():
        for key, value in fresh.state_dict().items():
            assert torch.equal(value, torch.ones_like(value) if key.endswith("mask") else source[key])
    for key, value in network.stages[1].get_submodule("exit").state_dict().items():
        assert torch.equal(value, torch.ones_like(value) if key.endswith("mask") else head[key])
    # A stage without cells copies its exit alone.
    assert grow(network, init="copy").cells == 0
    assert gap(network) == 0


def test_copies_that_read_more_read_the_newest_channels() -> None:
    network = seed_network("dense", (0, 1, 0, 1, 0))
    network.stages[0].get_submodule("cells.1").get_submodule("norm1").get_buffer("num_batches_tracked").fill_(7)
    source = copy.deepcopy(network.stages[0].get_submodule("cells.1").state_dict())
    head = network.stages[0].get_submodule("exit")
    assert isinstance(head, PooledHead)
    grow(network, init="copy", seed=0)
    for index, cell in enumerate(network.stages[1].get_submodule("cells").children()):
        for key, value in cell.state_dict().items():
            if key in ("conv1.weight", "shortcut.0.weight"):  # 8 channels before, 12 and 16 now
                assert torch.equal(value[:, -8:], source[key])
                assert value.shape[1] == 12 + 4 * index
                assert not value[:, :-8].any()
            elif not key.endswith("mask"):
                assert torch.equal(value, source[key])
    grow(network, init="copy", seed=0)
    final, before = network.stages[2].get_submodule("exit"), network.stages[1].get_submodule("exit")
    assert isinstance(final, PooledHead)
    assert isinstance(before, PooledHead)
    assert torch.equal(final.linear.weight[:, -4 * 16 :], before.linear.weight)
    assert not final.linear.weight[:, : -4 * 16].any()
    optimizer = trainer(network)
    before_steps = copy.deepcopy(network.state_dict())
    step(network, optimizer)
    assert still(network, before_steps) == set()


def test_what_cannot_be_copied_stays_random() -> None:
    network = pruned(seed_network("iterative", (0, 1, 0), exit="average"), "compact", 1)
    inner = network.plans[0].cells[1].inner_channels
    assert inner < 4
    drawn = copy.deepcopy(network)
    grow(drawn, seed=0)
    # Its first layer has but some of the rows of a fresh one; nothing of either layer fits.
    assert can_copy(network) == "no layer of its basic cells has the shape of one in the last cell before it"
    with pytest.raises(InputError, match="grow: got init copy; accepted: random for stage 2, as no layer of"):
        grow(network, init="copy")
    dense = pruned(seed_network("dense", (1, 0), exit="mixed"), "not", 1)
    twin = copy.deepcopy(dense)
    grow(dense, init="copy", seed=0)
    grow(twin, seed=0)
    # The first cell has an identity shortcut, the second projects.
    for part in ("shortcut.0", "shortcut.1"):
        for one, other in zip(
            *(grown.get_submodule(f"stages.1.cells.0.{part}").parameters() for grown in (dense, twin)), strict=True
        ):
            assert torch.equal(one, other)
    assert not torch.equal(
        *(grown.get_submodule("stages.1.cells.0.conv2").get_parameter("weight") for grown in (dense, twin))
    )


def test_why_nothing_can_be_copied() -> None:
    network = narrow([("plain", 4, 1), ("separable", 4, 1)], [(1, "max"), (2, "max")], "block", 8, stages=1)
    assert can_copy(network) == "its cells are separable and the last one before it is plain"
    plans = (network.plans[0], replace(network.plans[1], cells=(), head="average"))
    bare = Network(network.config, stages=1, seed=0, plans=plans)
    assert can_copy(bare) == "its exit is average and the one before it max (see network.final)"
    plans = (replace(network.plans[0], cells=(), exit_channels=3), network.plans[1])
    assert can_copy(Network(network.config, stages=1, seed=0, plans=plans)) == "there is no cell before it"
    heads = Network(network.config, stages=1, seed=0, plans=(plans[0], replace(plans[0], final=True))).eval()
    grow(heads, init="copy")
    assert gap(heads) == 0
    grow(network)
    assert can_copy(network) == "the network has all its 2 stages"


def test_copies_read_nothing_dead() -> None:
    network = seed_network("dense", (0, 1, 0, 1))
    prune(network, 0.5, "random", unit="channel")
    dead = dead_trunk(network)
    assert dead.any()
    grow(network, init="copy", seed=0)
    assert revived(network) == 0
    layer = masked_layers(network)["stages.1.cells.0.conv1"]
    assert torch.equal(layer.mask.any(dim=(0, 2, 3)), ~dead)
