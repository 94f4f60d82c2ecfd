"""Cost, counted by us and by PyTorch's own counter."""

import itertools
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ramify.config.network import EXITS_AT
from ramify.config.rules import NetworkConfig
from ramify.errors import ConfigError
from ramify.nn.attach import attach_exits, exit_points
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.nn.zoo import ZOO
from ramify.ops.cost import cost, place_exits, stage_density

SHAPES = [(1, 8, 8), (3, 32, 32), (3, 17, 9)]


def build(kind: str, cell: str = "basic", shape: tuple[int, int, int] = (3, 16, 16)) -> Network:
    config = NetworkConfig.model_validate(
        {"kind": kind, "cell": cell, "structure": (0, 1, 0, 1, 1), "channels": 6, "input_shape": shape, "classes": 7}
    )
    return Network(config, stages=config.exits, seed=0)


@pytest.mark.parametrize("kind", ["dense", "iterative", "full_ic", "full"])
@pytest.mark.parametrize("cell", ["basic", "skip_second"])
@pytest.mark.parametrize("shape", SHAPES)
def test_macs_are_those_of_the_flop_counter(kind: str, cell: str, shape: tuple[int, int, int]) -> None:
    network = build(kind, cell, shape)
    for stages in range(1, len(network.stages) + 1):
        cut = Network(network.config, stages=stages, seed=0).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            cut(torch.zeros(1, *shape))
        assert cost(network)[stages - 1].macs * 2 == counter.get_total_flops()


@pytest.mark.parametrize("name", list(ZOO))
def test_macs_of_every_architecture_are_those_of_the_flop_counter(name: str) -> None:
    config = place_exits(
        NetworkConfig.model_validate({"cells": name, "kind": "full_ic", "input_shape": (3, 17, 16), "classes": 7})
    )
    network = Network(config, seed=0).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 17, 16))
    assert cost(network)[-1].macs * 2 == counter.get_total_flops()


@pytest.mark.parametrize("kind", ["dense", "iterative", "full_ic", "full"])
def test_the_last_exit_costs_the_whole_network(kind: str) -> None:
    network = build(kind)
    last = cost(network)[-1]
    assert last.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert last.weights == last.kept == sum(layer.weight.numel() for layer in masked_layers(network).values())


def test_an_exit_costs_what_the_network_cut_there_costs() -> None:
    network = build("dense")
    for stages, each in enumerate(cost(network), start=1):
        assert cost(Network(network.config, stages=stages, seed=0))[-1] == each


def test_masked_weights_are_not_kept_but_still_multiplied() -> None:
    network = build("iterative")
    before = cost(network)
    layer = masked_layers(network)["stages.1.cells.0.conv1"]
    layer.mask.flatten()[:100] = False
    after = cost(network)
    assert after[0] == before[0]
    assert [a.kept - b.kept for a, b in zip(after, before, strict=True)] == [0, -100, -100, -100]
    assert [each.macs for each in after] == [each.macs for each in before]
    densities = stage_density(network)
    assert [density < 1 for density in densities] == [False, True, False, False]


def test_counting_leaves_the_network_as_it_was() -> None:
    network = build("dense").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    cost(network)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(layer._forward_hooks for layer in masked_layers(network).values())


def shares(config: NetworkConfig) -> list[float]:
    """Which part of the MACs of the chain, or the dense network, without internal classifiers each cell ends at.

    Counted on networks cut behind each cell: what their heads cost is taken off.
    """
    cells = len(config.structure)
    kind = "dense" if config.kind == "dense" else "full_ic"
    bare = config.model_copy(update={"kind": kind, "exits_at": None, "structure": (0,) * cells})
    total = cost(Network(bare, stages=1))[-1].macs
    found = []
    for i in range(cells - 1):
        cut = bare.model_copy(update={"structure": tuple(int(i == j) for j in range(cells))})
        network = Network(cut, stages=1)
        found.append((cost(network)[0].macs - masked_layers(network)["stages.0.exit.linear"].weight.numel()) / total)
    return found


@given(
    kind=st.sampled_from(["dense", "iterative", "full_ic"]),
    cells=st.integers(2, 7),
    asked=st.lists(st.floats(0.01, 0.99), max_size=3, unique=True).map(sorted),
    side=st.integers(8, 17),
)
def test_exits_stand_behind_the_nearest_cells(kind: str, cells: int, asked: list[float], side: int) -> None:
    config = NetworkConfig.model_validate(
        {"kind": kind, "structure": (0,) * cells, "channels": 3, "exits_at": tuple(asked)}
        | {"input_shape": (1, side, 8), "classes": 2}
    )
    reachable = shares(config)
    if len(asked) >= cells:
        with pytest.raises(ConfigError, match=r"network\.exits_at: got \[.*\]; accepted: up to"):
            place_exits(config)
        return

    def far(behind: Sequence[float]) -> float:
        return sum(abs(share - fraction) for share, fraction in zip(behind, asked, strict=True))

    placed = place_exits(config)
    behind = [share for share, bit in zip(reachable, placed.structure, strict=False) if bit]
    assert far(behind) == pytest.approx(min(map(far, itertools.combinations(reachable, len(asked)))))
    assert placed.structure[-1] == 0
    assert placed == config.model_copy(update={"structure": placed.structure})
    assert place_exits(placed) == placed
    assert len(Network(placed, stages=placed.exits).stages) == len(asked) + 1


@pytest.mark.parametrize("name", [name for name in ZOO if not name.startswith("lenet")])
def test_published_architectures_carry_exits_at_about_the_fractions_of_the_paper(name: str) -> None:
    config = NetworkConfig.model_validate({"cells": name, "input_shape": (3, 32, 32), "classes": 10})
    reachable = shares(config)
    behind = [share for share, bit in zip(reachable, place_exits(config).structure, strict=False) if bit]
    steps = [b - a for a, b in zip([0.0, *reachable], [*reachable, 1.0], strict=True)]
    assert all(abs(share - asked) <= max(steps) / 2 for share, asked in zip(behind, EXITS_AT, strict=True))


def test_without_fractions_a_structure_stays_as_it_is() -> None:
    config = NetworkConfig(structure=(0, 1, 1))
    assert place_exits(config) is config


def test_placing_draws_nothing_and_keeps_the_kind() -> None:
    config = NetworkConfig(kind="full", structure=(1, 0, 0), exits_at=(0.6,), input_shape=(1, 8, 8), classes=2)
    state = torch.random.get_rng_state()
    placed = place_exits(config)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert placed == config.model_copy(update={"structure": (0, 1, 0)})
    assert len(Network(placed).stages) == 1


@pytest.mark.parametrize("name", ["vgg16", "mobilenet", "resnet56", "wideresnet32_4"])
@pytest.mark.parametrize("side", [8, 9, 64])
def test_the_fractions_of_the_paper_have_places_at_any_size(name: str, side: int) -> None:
    config = NetworkConfig.model_validate({"cells": name, "input_shape": (1, side, side), "classes": 200})
    assert sum(place_exits(config).structure) == 6


def test_more_exits_than_cells_are_refused() -> None:
    config = NetworkConfig(structure=(0,), exits_at=(0.5,), input_shape=(3, 32, 32), classes=10)
    with pytest.raises(ConfigError, match=r"network\.exits_at: got \[0\.5\]; accepted: up to 0, the cells"):
        place_exits(config)


class Tokens(nn.Module):
    """Sixteen tokens of width 8, and attention as PyTorch's layers or an einsum compute it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.patches, self.fc = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 5)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        if self.kind == "attention":
            x, _ = self.attention(x, x, x)
        elif self.kind == "layer":
            x = self.layer(x)
        else:
            x = torch.einsum("bik,bjk->bij", x, x) @ x
        logits: Tensor = self.fc(x.mean(1))
        return logits


@pytest.mark.parametrize(
    ("kind", "macs"),
    [
        ("einsum", 2 * 16 * 16 * 8),
        ("attention", 2 * 16 * 16 * 8 + 16 * 4 * 8 * 8),
        ("layer", 2 * 16 * 16 * 8 + 16 * 4 * 8 * 8 + 2 * 16 * 8 * 16),
    ],
)
def test_attention_counts_however_it_is_computed(kind: str, macs: int) -> None:
    before, behind, example = 16 * 12 * 8, 8 * 5, torch.rand(1, 3, 8, 8)
    module = Tokens(kind).eval()
    costs = cost(attach_exits(module, ["patches"], example=example, exit="global"))
    assert [each.macs for each in costs] == [before + behind, before + behind + macs + behind]
    share = exit_points(module, example)[0].share  # torch.utils.flop_counter knows no fused attention on a CPU
    assert share == pytest.approx(before / (before + macs + behind)) or kind == "layer"
    assert share < 0.5
