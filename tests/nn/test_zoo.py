"""Published architectures: their counts, and what every one of them can do."""

import typing
from pathlib import Path

import pytest
import torch

from ramify.config.network import EXITS_AT, PUBLISHED
from ramify.config.rules import NetworkConfig
from ramify.errors import ConfigError
from ramify.nn.cells import CELLS
from ramify.nn.exit import EXITS
from ramify.nn.masked import MaskedConv2d, masked_layers
from ramify.nn.network import Network, plan
from ramify.nn.zoo import ZOO
from ramify.ops.cost import cost, place_exits
from ramify.ops.growing.grow import grow
from ramify.ops.pruning.channels import alive, channels
from ramify.ops.pruning.compact import compact
from ramify.ops.pruning.prune import prune
from ramify.run.checkpoint import Card, card_with, pack_model, read_model

PAGE = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text()

every_architecture = pytest.mark.parametrize("name", list(ZOO))


def configured(name: str, kind: str = "full_ic", shape: tuple[int, int, int] = (1, 16, 16)) -> NetworkConfig:
    given = {"cells": name, "kind": kind, "input_shape": shape, "classes": 10}
    return place_exits(NetworkConfig.model_validate(given))


def published(name: str) -> NetworkConfig:
    """``name`` for the pictures that it was published with, without internal classifiers."""
    return configured(name, "full", (1, 28, 28) if name.startswith("lenet") else (3, 32, 32))


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("vgg16", 14_724_042, 313_201_664),
        ("resnet56", 855_770, 125_747_840),
        ("wideresnet32_4", 7_399_130, 1_072_089_600),
        ("mobilenet", 3_217_226, 46_354_432),
        ("lenet5", 431_080, 2_293_000),
        ("lenet300", 266_610, 266_200),
    ],
)
def test_the_counts_are_the_published_ones(name: str, parameters: int, macs: int) -> None:
    [found] = cost(Network(published(name)))
    assert (found.parameters, found.macs) == (parameters, macs)
    assert f"| {parameters:,} | {macs:,} |" in PAGE


@every_architecture
def test_the_page_says_where_the_exits_stand_and_what_they_cost(name: str) -> None:
    config = published(name).model_copy(update={"kind": "full_ic"})
    costs = cost(Network(config))
    behind = ", ".join(str(i) for i, bit in enumerate(config.structure, start=1) if bit)
    shares = ", ".join(f"{100 * each.macs / costs[-1].macs:.0f}" for each in costs[:-1])
    assert f"| `{name}` | {behind} | {shares} % |" in PAGE


def test_the_convolutions_of_vgg16_weigh_what_its_paper_says() -> None:
    layers = masked_layers(Network(published("vgg16"))).values()
    convolutions = [layer for layer in layers if isinstance(layer, MaskedConv2d)]
    assert len(convolutions) == 13
    assert sum(layer.weight.numel() for layer in convolutions) == 14_710_464


def test_the_configuration_knows_every_architecture() -> None:
    names = typing.get_args(NetworkConfig.model_fields["cells"].annotation)
    assert set(names) == {"seed", *ZOO}
    assert {name: len(structure) for name, structure in PUBLISHED.items()} == {
        name: len(built.cells) for name, built in ZOO.items()
    }


@every_architecture
def test_an_architecture_is_made_of_what_there_is(name: str) -> None:
    built = ZOO[name]
    assert {spec.type for spec in built.cells} <= set(CELLS)
    assert built.final in EXITS
    assert all(spec.stride in (1, 2) and spec.channels > 0 for spec in built.cells)


@every_architecture
def test_the_exits_have_places_of_their_own(name: str) -> None:
    given = NetworkConfig.model_validate({"cells": name})
    assert given.exits_at == (None if any(PUBLISHED[name]) else EXITS_AT)
    placed = configured(name)
    assert sum(placed.structure) + 1 == placed.exits == given.exits
    assert placed.structure[-1] == 0


@every_architecture
@pytest.mark.parametrize("kind", ["full", "full_ic", "iterative"])
def test_every_architecture_runs_in_every_kind(name: str, kind: str) -> None:
    config = configured(name, kind)
    network = Network(config, stages=config.exits, seed=0)
    images = torch.rand(2, 1, 16, 16)
    for mode in (True, False):
        logits = network.train(mode)(images)
        assert logits.shape == (1 if kind == "full" else config.exits, 2, 10)
        assert logits.isfinite().all()
    network.train()(images).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@every_architecture
def test_a_grown_architecture_is_the_one_built_whole(name: str) -> None:
    config = configured(name, "iterative")
    young = Network(config, seed=3)
    assert len(young.stages) == 1
    added = []
    while not young.complete:
        added.append(grow(young, seed=3))
    assert len(added) == config.growths == config.exits - 1
    whole = Network(config, stages=config.exits, seed=3)
    for (key, one), other in zip(young.state_dict().items(), whole.state_dict().values(), strict=True):
        assert torch.equal(one, other), key


@every_architecture
def test_a_shorter_structure_takes_the_first_cells(name: str) -> None:
    config = NetworkConfig.model_validate(
        {"cells": name, "structure": (1,), "kind": "full_ic", "input_shape": (1, 16, 16), "classes": 10}
    )
    whole = [cell for stage in plan(configured(name)) for cell in stage.cells]
    assert [stage.cells for stage in plan(config)] == [(whole[0],), ()]
    assert Network(config, seed=0)(torch.rand(2, 1, 16, 16)).shape == (2, 2, 10)


@every_architecture
def test_an_exit_on_the_way_is_the_network_cut_there(name: str) -> None:
    config = configured(name, "iterative")
    images = torch.rand(2, 1, 16, 16)
    whole = Network(config, stages=config.exits, seed=0).eval()(images)
    assert torch.equal(Network(config, seed=0).eval()(images), whole[:1])


@pytest.mark.slow
@every_architecture
@pytest.mark.parametrize("stages", [1, None])
def test_an_architecture_is_saved_and_read_back_exactly(name: str, stages: int | None, tmp_path: Path) -> None:
    side = 16 if name in ("lenet5", "mobilenet") else 8
    config = configured(name, "iterative", (1, side, side))
    network = Network(config, stages=config.exits if stages is None else stages, seed=0).eval()
    small = compact_half(network)
    for number, each in enumerate((network, small)):
        folder = tmp_path / str(number)
        folder.mkdir()
        card = card_with(Card(config, len(each.stages), tuple("abcdefghij"), epoch=1), each)
        for file, blob in pack_model(each, card).items():
            (folder / file).write_bytes(blob)
        loaded, read = read_model(folder)
        assert read == card
        assert (read.plans is None) is (each is network)
        assert loaded.plans == each.plans
        assert all(torch.equal(value, each.state_dict()[key]) for key, value in loaded.state_dict().items())
        images = torch.rand(2, 1, side, side)
        assert torch.equal(loaded(images), each(images))


def compact_half(network: Network) -> Network:
    """``network`` without half of the channels that it can lose, taken out."""
    prune(network, 0.5, "random", unit="channel")
    lost = alive(network, channels(network)).count(False)
    small, receipt = compact(network)
    assert receipt.removed == lost > 0
    assert receipt.after[-1].kept == receipt.after[-1].weights, "half of it is gone, and the rest is not masked"
    return small


@every_architecture
def test_the_smallest_pictures_run_through_and_smaller_ones_are_refused(name: str) -> None:
    side = ZOO[name].smallest
    config = configured(name, "full_ic", (3, side, side + 3))
    assert Network(config, seed=0)(torch.rand(2, 3, side, side + 3)).shape == (config.exits, 2, 10)
    if side > 8:  # no picture is smaller than 8
        with pytest.raises(
            ConfigError,
            match=rf"network\.input_shape: got \[3, {side - 1}, 32\]; accepted: sides of {side} or more for "
            rf"network\.cells={name} \(see data\.size\)",
        ):
            plan(config.model_copy(update={"input_shape": (3, side - 1, 32)}))
