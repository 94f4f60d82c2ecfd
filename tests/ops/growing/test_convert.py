"""Exits come and go, and what stays answers the same, to the last bit."""

import pytest
import torch
from torch import nn

from ramify.config.rules import NetworkConfig
from ramify.errors import InputError, RamifyError
from ramify.nn.attach import branches
from ramify.nn.attached import Attached
from ramify.nn.data_form import description, from_description
from ramify.nn.network import Network
from ramify.ops.cost import place_exits
from ramify.ops.growing.convert import cut, to_cnn, to_sdn
from ramify.ops.pruning.compact import compact
from ramify.ops.pruning.prune import prune

NETWORKS: dict[str, dict[str, object]] = {
    "iterative": {"kind": "iterative", "structure": (0, 1, 0, 1, 0), "channels": 4},
    "last cell with an exit": {"kind": "full_ic", "structure": (1, 0, 1), "channels": 4, "exit": "max"},
    "dense": {"kind": "dense", "structure": (0, 1, 0, 1, 0), "channels": 4},
    "dense, skip_second": {"kind": "dense", "structure": (1, 1, 0), "channels": 4, "cell": "skip_second"},
    "sums": {"kind": "iterative", "structure": (0, 1, 1, 0), "channels": 4, "exit_reads": "sum"},
    "dense sums": {"kind": "dense", "structure": (1, 0, 1), "channels": 4, "exit_reads": "sum"},
    "lenet300": {"cells": "lenet300", "kind": "full_ic"},
    "mobilenet": {"cells": "mobilenet", "kind": "full_ic", "exits_at": (0.2, 0.5)},
    "wideresnet32_4": {"cells": "wideresnet32_4", "kind": "iterative", "exits_at": (0.3, 0.6)},
}


def made(name: str) -> Network:
    config = place_exits(NetworkConfig.model_validate({**NETWORKS[name], "input_shape": (1, 8, 8), "classes": 3}))
    network = Network(config, stages=config.exits, seed=1)
    with torch.no_grad():  # statistics of batch norm that are not those of birth
        network.train()(torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    network.set_normalization([0.3], [0.5])
    return network.eval()


def images() -> torch.Tensor:
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", NETWORKS)
def test_each_cut_answers_as_its_exits_did(name: str) -> None:
    network = made(name)
    expected = network(images())
    for exit_ in range(1, len(network.stages) + 1):
        part = cut(network, exit_)
        assert torch.equal(part(images()), expected[:exit_])
        assert part.complete
        assert part.plans[-1].final


@pytest.mark.parametrize("name", NETWORKS)
def test_without_exits_the_last_answer_stays(name: str) -> None:
    network = made(name)
    bare = to_cnn(network)
    assert torch.equal(bare(images()), network(images())[-1:])
    assert len(bare.stages) == 1


@pytest.mark.parametrize("name", NETWORKS)
def test_exits_put_in_leave_the_last_answer(name: str) -> None:
    network = made(name)
    bare = to_cnn(network)
    wanted = network.config if network.config.kind == "dense" else network.config.model_copy(update={"kind": "full_ic"})
    branching = to_sdn(bare, wanted, seed=5)
    assert torch.equal(branching(images())[-1], bare(images())[-1])
    assert len(branching.stages) == wanted.exits
    again = to_sdn(bare, wanted, seed=5)
    assert torch.equal(again(images()), branching(images()))


@pytest.mark.parametrize("name", NETWORKS)
def test_exits_that_stand_already_are_kept(name: str) -> None:
    network = made(name)
    same = to_sdn(network, network.config)
    assert torch.equal(same(images()), network(images()))
    assert same.plans == network.plans


def test_masks_and_widths_come_along() -> None:
    config = NetworkConfig(kind="dense", structure=(1, 0, 1, 0), channels=8, input_shape=(1, 8, 8), classes=3)
    network = Network(config, stages=3, seed=1).eval()
    prune(network, 0.5, "magnitude", unit="channel")
    prune(network, 0.3, "magnitude")
    small, _ = compact(network)
    assert small.plans != network.plans
    part = cut(small, 2)
    assert torch.equal(part(images()), small(images())[:2])
    cells = [cell for stage in part.plans for cell in stage.cells]
    assert cells == [cell for stage in small.plans[:2] for cell in stage.cells]
    more = to_sdn(small, config.model_copy(update={"structure": (1, 1, 1, 0)}), seed=0)
    assert torch.equal(more(images())[[0, 2, 3]], small(images()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"structure": (1, 0)}, "network.structure: got 2 cells; accepted: 5"),
        ({"channels": 8}, "network.channels: got 8; accepted: 4"),
        ({"kind": "dense"}, "network.kind: got dense; accepted: one with the wiring of iterative"),
        ({"exits_at": (0.1, 0.2, 0.3, 0.4, 0.5)}, "network.exits_at: got"),
    ],
)
def test_other_cells_are_refused(change: dict[str, object], message: str) -> None:
    network = made("iterative")
    with pytest.raises(RamifyError, match=message.replace("(", r"\(")):
        to_sdn(network, network.config.model_copy(update=change))


def test_a_network_that_grows_still_is_not_converted() -> None:
    network = Network(made("iterative").config, stages=2)
    with pytest.raises(InputError, match="got a network with 2 of its 3 stages; accepted: all"):
        to_cnn(network)
    assert len(cut(network, 1).stages) == 1


@pytest.mark.parametrize("exit_", [0, 4, -1])
def test_an_exit_that_does_not_exist_is_refused(exit_: int) -> None:
    with pytest.raises(InputError, match=f"cut: got exit {exit_}; accepted: 1 to 3"):
        cut(made("iterative"), exit_)


def test_stages_of_ones_own_are_joined_though_their_layers_have_the_same_names() -> None:
    def block(reads: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(reads, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout())

    stages = [block(4), nn.Conv2d(4, 4, 3), block(4)]
    network = branches(block(1), stages, example=images(), classes=3, existing=3, seed=0).eval()
    bare = to_cnn(network)
    assert isinstance(bare, Attached)
    assert torch.equal(bare(images()), network(images())[-1:])
    assert len(bare.stages) == 1
    twin = from_description(description(bare))
    twin.load_state_dict(bare.state_dict())
    assert torch.equal(twin(images()), bare(images()))
