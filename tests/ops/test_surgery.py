"""Surgery under an optimizer: survivors keep what it knows of them, new parameters join their group, nothing leaks."""

import copy
import gc
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from ramify.errors import InputError
from ramify.nn.attach import attach_exits
from ramify.nn.network import Network
from ramify.ops.growing.grow import grow
from ramify.ops.growing.widen import widen
from ramify.ops.muon import Muon
from ramify.ops.pruning.channels import alive, channels, owner
from ramify.ops.pruning.compact import compact
from ramify.ops.pruning.prune import prune
from ramify.ops.surgery import (
    align_state,
    check_followers,
    kept_tensors,
    optimizer_state,
    parameter_groups,
    replace_parameter,
    revived,
    set_masks,
    stage_parameters,
)
from tests.ops.growing.test_inherit import KINDS, seed_network, step
from tests.ops.networks import index_of, pictures_for

Groups = list[dict[str, object]]

OPTIMIZERS: dict[str, Callable[[Groups], torch.optim.Optimizer]] = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.9),
    "nesterov": lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.001, betas=(0.8, 0.9)),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.001, amsgrad=True),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, lr=0.0001, momentum=0.5),
}
OPERATIONS = (
    "grow random",
    "grow identity",
    "grow copy",
    "widen random",
    "widen copy",
    "prune weight",
    "prune channel",
    "compact",
)

State = dict[str, dict[str, Tensor]]


def operated(network: Network, optimizer: torch.optim.Optimizer, operation: str) -> Network:
    """The network after one of :data:`OPERATIONS`."""
    images = pictures_for(network)
    match operation.split():
        case ["grow", init]:
            grow(network, optimizer, init=init, seed=0, images=images)  # type: ignore[arg-type]
        case ["widen", init]:
            widen(network, 0, 3, optimizer, init=init, seed=0, images=images)  # type: ignore[arg-type]
        case ["prune", unit]:
            prune(network, 0.6, "random", (), optimizer, unit=unit)  # type: ignore[arg-type]
        case _:
            lost = alive(network, channels(network)).count(False)
            network, receipt = compact(network, optimizer)
            assert receipt.removed == lost > 0
    return network


def kept_of(value: Tensor, old: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """What is left of ``old`` in ``value``, and what it was."""
    if mask is not None and value.dim() > 0:
        return value[mask], old[mask]
    return value[tuple(slice(size) for size in old.shape)], old


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", list(OPTIMIZERS))
@pytest.mark.parametrize("kind", KINDS)
def test_survivors_keep_their_moments_and_new_parameters_learn_alike(kind: str, name: str, operation: str) -> None:
    network = seed_network(kind, (0, 1, 1, 0))
    optimizer = OPTIMIZERS[name](parameter_groups(network, 1e-2))
    step(network, optimizer)
    if operation == "compact":
        prune(network, 0.8, "random", (), optimizer, unit="channel")
    step(network, optimizer)
    if operation == "compact":
        # What was alike and is cut alike stays alike.
        for parameter, kept in optimizer.state.items():
            kept.update({key: parameter.detach().abs() for key in kept if key != "step"})
    before: State = copy.deepcopy(optimizer_state(optimizer, network))
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]

    network = operated(network, optimizer, operation)

    masks = {f"{key.removesuffix('mask')}weight": mask for key, mask in network.named_buffers() if key.endswith("mask")}
    after = optimizer_state(optimizer, network)
    parameters = dict(network.named_parameters())
    assert after.keys() == before.keys()
    for key, tensors in before.items():
        assert after[key].keys() == tensors.keys()
        for label, old in tensors.items():
            value = after[key][label]
            if operation == "compact":
                assert torch.equal(value, old if label == "step" else parameters[key].detach().abs())
                continue
            left, expected = kept_of(value, old, masks.get(key) if operation == "prune weight" else None)
            if operation == "prune channel":  # what is silenced is cleared in batch norms too
                expected = expected * (left != 0)
            assert torch.equal(left, expected), (key, label)
            assert value.norm() == pytest.approx(left.norm()), "new channels and masked weights start from zero"
    for group, old_group in zip(optimizer.param_groups, groups, strict=False):
        assert {key: value for key, value in group.items() if key != "params"} == old_group
    for group in optimizer.param_groups[len(groups) :]:
        assert group["stage"] == 1
        like = next(each for each in groups if each["decay"] == group["decay"])
        assert {**like, "stage": 1} == {key: value for key, value in group.items() if key != "params"}
    grouped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert [id(parameter) for parameter in grouped] == [
        id(parameters[key]) for group in parameter_groups_by_name(network) for key in group
    ]
    for _ in range(3):
        step(network, optimizer)
    assert revived(network) == 0
    assert all(value.isfinite().all() for value in network.state_dict().values())
    assert {id(parameter) for parameter in optimizer.state} == {id(parameter) for parameter in network.parameters()}


def parameter_groups_by_name(network: Network) -> list[list[str]]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found: list[list[str]] = []
    for group in parameter_groups(network, 0.0):
        parameters = group["params"]
        assert isinstance(parameters, list)
        found.append([names[id(parameter)] for parameter in parameters])
    return found


def test_the_channels_that_a_pruning_silences_are_those_that_lose_their_moments() -> None:
    """What the test above allows for channels is no more than that."""
    network = seed_network("iterative", (0, 1))
    optimizer = OPTIMIZERS["adam"](parameter_groups(network, 1e-2))
    step(network, optimizer)
    before = copy.deepcopy(optimizer_state(optimizer, network))
    prune(network, 0.5, "random", (), optimizer, unit="channel")
    groups = channels(network)
    living = {
        (owner(group), index_of(group)): lives for group, lives in zip(groups, alive(network, groups), strict=True)
    }
    after = optimizer_state(optimizer, network)
    for cell in ("stages.0.cells.0", "stages.0.cells.1"):
        for key in ("exp_avg", "exp_avg_sq"):
            here = torch.tensor([living[cell, i] for i in range(4)])
            name = f"{cell}.norm1.weight"
            assert torch.equal(after[name][key], before[name][key] * here)


def test_a_parameter_takes_the_place_of_another() -> None:
    old, other = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(1))
    groups: Groups = [{"params": [other, old], "lr": 0.5, "stage": 7}, {"params": [nn.Parameter()]}]
    optimizer = torch.optim.Adam(groups)
    (old.sum() + other.sum()).backward()
    optimizer.step()
    state = {key: value.clone() for key, value in optimizer.state[old].items()}
    new = nn.Parameter(torch.ones(2, 2))
    replace_parameter(optimizer, old, new, lambda tensor: tensor[:, 1:])
    first = optimizer.param_groups[0]
    assert (first["params"][0] is other, first["params"][1] is new, first["lr"], first["stage"]) == (True, True, 0.5, 7)
    assert old not in optimizer.state
    assert optimizer.state[new]["step"] == state["step"]
    assert torch.equal(optimizer.state[new]["exp_avg"], state["exp_avg"][:, 1:])
    # A stranger changes nothing.
    replace_parameter(optimizer, nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5)), lambda tensor: tensor)
    assert set(optimizer.state) == {other, new}


def test_what_cannot_be_resized_is_forgotten() -> None:
    network = seed_network("iterative", (1, 0))
    optimizer = torch.optim.Adafactor(network.parameters(), lr=0.001)
    step(network, optimizer)
    kept = len(optimizer.state)
    widen(network, 0, 2, optimizer, seed=0)
    assert len(optimizer.state) == kept - 2  # both convolutions; batch norm keeps its own shape
    step(network, optimizer)
    assert len(optimizer.state) == kept
    small, _ = compact(network, optimizer)
    assert len(optimizer.state) == kept
    step(small, optimizer)


def test_momentum_that_does_not_exist_is_no_obstacle() -> None:
    network = seed_network("iterative", (1, 0))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    step(network, optimizer)
    widen(network, 0, 2, optimizer, seed=0)
    small, _ = compact(network, optimizer)
    before = copy.deepcopy(small.state_dict())
    step(small, optimizer)
    assert any(not torch.equal(value, before[key]) for key, value in small.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize(("init", "growths"), [("random", 6), ("identity", 20), ("copy", 6)])
def test_growth_holds_on_to_nothing(init: Literal["random", "identity", "copy"], growths: int) -> None:
    """After growths there are the tensors of the network, of its optimizer, and no others.

    There are 20 of the kind that looks at pictures.
    """
    network = seed_network("iterative", (1,) * growths + (0,), width=2)
    optimizer = torch.optim.Adam(parameter_groups(network, 1e-4), lr=0.001)
    average = torch.optim.swa_utils.AveragedModel(network)
    follower = average.module
    images = pictures_for(network)
    strangers = {id(tensor) for tensor in live_tensors()} - {id(tensor) for tensor in held(network, follower)}
    step(network, optimizer)
    old = [(name, id(parameter), parameter.shape) for name, parameter in network.named_parameters()]
    for _ in range(growths):
        grow(network, optimizer, init=init, seed=0, images=images, followers=[follower])
        step(network, optimizer)
        average.update_parameters(network)
        optimizer.zero_grad(set_to_none=True)
        if len(network.stages) in (2, 1 + growths // 2, 1 + growths):  # looking for all of them takes a while
            found = [tensor for tensor in live_tensors() if id(tensor) not in strangers]
            expected = held(network, follower, optimizer=optimizer)
            assert {id(tensor) for tensor in found} == {id(tensor) for tensor in expected}
            assert storage(found) == storage(expected)
        there = [(name, id(parameter), parameter.shape) for name, parameter in network.named_parameters()]
        assert there[: len(old)] == old
        old = there
    assert network.complete


@pytest.mark.slow
def test_widening_and_compaction_hold_on_to_nothing() -> None:
    network = seed_network("dense", (0, 1, 0), width=3)
    optimizer = torch.optim.Adam(parameter_groups(network, 1e-4), lr=0.001)
    strangers = {id(tensor) for tensor in live_tensors()} - {id(tensor) for tensor in held(network)}
    for seed in range(4):
        widen(network, 0, 3, optimizer, seed=seed)
        step(network, optimizer)
        prune(network, 0.6, "random", (), optimizer, unit="channel", seed=seed)
        network, receipt = compact(network, optimizer)
        assert receipt.removed > 0
        del receipt
        step(network, optimizer)
        optimizer.zero_grad(set_to_none=True)
        found = [tensor for tensor in live_tensors() if id(tensor) not in strangers]
        expected = held(network, optimizer=optimizer)
        assert {id(tensor) for tensor in found} == {id(tensor) for tensor in expected}
        assert storage(found) == storage(expected)
        assert len(optimizer.param_groups) == 2
        del found, expected  # which hold on to them


def live_tensors() -> list[Tensor]:
    gc.collect()
    # Not isinstance: it would wake sleeping modules up.
    return [each for each in gc.get_objects() if type(each) in (Tensor, nn.Parameter)]


def held(*networks: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> list[Tensor]:
    """The tensors of networks, and what an optimizer keeps."""
    found = [tensor for network in networks for tensor in (*network.parameters(), *network.buffers())]
    if optimizer is not None:
        found += [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return found


def storage(tensors: list[Tensor]) -> int:
    """Bytes that the tensors hold on to, be they all of them in use or not."""
    blocks = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(blocks.values())


@pytest.mark.parametrize("kind", KINDS)
def test_followers_grow_alike(kind: str) -> None:
    network = seed_network(kind, (1, 0, 1, 0))
    average = torch.optim.swa_utils.AveragedModel(network)
    follower = average.module
    assert isinstance(follower, Network)
    optimizer = OPTIMIZERS["sgd"](parameter_groups(network, 0.0))
    step(network, optimizer)
    average.update_parameters(network)
    own = copy.deepcopy(follower.state_dict())
    while not network.complete:
        stage = grow(network, optimizer, init="identity", images=pictures_for(network), followers=[follower]).stage
        for key, value in network.stages[stage].state_dict().items():
            assert torch.equal(value, follower.stages[stage].state_dict()[key])
        assert all(torch.equal(value, follower.state_dict()[key]) for key, value in own.items())
        shared = {id(value) for value in network.parameters()} & {id(value) for value in follower.parameters()}
        assert not shared
        step(network, optimizer)
        average.update_parameters(network)
        own = copy.deepcopy(follower.state_dict())
    assert follower.complete


def test_followers_have_the_same_stages() -> None:
    network = seed_network()
    twin = copy.deepcopy(network)
    assert check_followers(network, [twin]) == [twin]
    with pytest.raises(InputError, match="followers: got one of type AveragedModel; accepted: networks, such as the"):
        grow(network, followers=[torch.optim.swa_utils.AveragedModel(network)])
    grow(twin)
    with pytest.raises(InputError, match="followers: got a network of other stages; accepted: those of the network"):
        grow(network, followers=[twin])
    assert len(network.stages) == 1


def test_masks_only_shrink() -> None:
    network = seed_network()
    mask = torch.ones(4, 2, 3, 3, dtype=torch.bool)
    mask[1] = False
    set_masks(network, {"stem.conv": mask})
    set_masks(network, {"stem.conv": ~mask})
    assert not network.get_buffer("stem.conv.mask").any()
    assert revived(network) == 0


def test_every_weight_of_a_layer_decays_and_nothing_else() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight

    norms = nn.Sequential(nn.LayerNorm([4, 10, 10]), Scale())
    own = nn.Sequential(nn.ConvTranspose2d(1, 4, 3), norms, nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(256, 3))
    network = attach_exits(own, ["2"], example=torch.rand(1, 1, 8, 8))
    decays = {name for stage in (0, 1) for name in stage_parameters(network, stage).decay}
    assert {name for name in decays if "body" in name} == {
        *(f"stages.0.body.net.{layer}.weight" for layer in (0, 2)),
        "stages.1.body.net.4.weight",
    }


def test_no_momentum_is_added_where_the_optimizer_keeps_none() -> None:
    matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    optimizer = Muon([matrix, vector], lr=0.1)
    (matrix.sum() + vector.sum()).backward()
    optimizer.step()
    align_state(optimizer)
    for parameter in (matrix, vector):
        assert optimizer.state[parameter].keys() == (kept_tensors(optimizer, parameter) or {}).keys()


def test_a_fused_step_is_the_step_whatever_the_layout_of_its_momentum() -> None:
    """Momentum in another layout, or of a part of a group, is what loading and unfreezing leave."""

    def stepped(fused: bool) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        drawn = [torch.randn(4, 3, 3, 3, generator=generator) for _ in range(6)]
        weights = [nn.Parameter(each.contiguous(memory_format=torch.channels_last)) for each in drawn[:2]]
        optimizer = torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=0.01, fused=fused)
        optimizer.state[weights[0]]["momentum_buffer"] = drawn[2].clone()
        align_state(optimizer)
        for _ in range(2):
            for weight, gradient in zip(weights, drawn[4:], strict=True):
                weight.grad = gradient.contiguous(memory_format=torch.channels_last)
            optimizer.step()
        return [weight.detach() for weight in weights]

    for one, other in zip(stepped(True), stepped(False), strict=True):
        torch.testing.assert_close(one, other)
