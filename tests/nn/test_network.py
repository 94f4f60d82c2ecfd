"""Networks: exact sizes, the shape of what they give, and a contract that every kind, cell and exit keeps."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ramify.config.rules import Config, NetworkConfig
from ramify.errors import ConfigError
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network, plan

SEED_STRUCTURE = (0, 0, 1, 0, 0, 1, 0, 1, 0)
KINDS = ("dense", "iterative", "full_ic", "full")


def grown(config: NetworkConfig, seed: int = 0) -> Network:
    return Network(config, stages=config.exits, seed=seed)


@pytest.mark.parametrize(
    ("kind", "weights"), [("dense", 169_392), ("iterative", 52_144), ("full_ic", 52_144), ("full", 44_464)]
)
def test_the_seeds_networks_have_exactly_its_weights(kind: str, weights: int) -> None:
    config = NetworkConfig.model_validate(
        {"kind": kind, "structure": SEED_STRUCTURE, "input_shape": (3, 32, 32), "classes": 10}
    )
    assert sum(layer.weight.numel() for layer in masked_layers(grown(config)).values()) == weights


@st.composite
def configs(draw: st.DrawFn) -> NetworkConfig:
    return NetworkConfig(
        kind=draw(st.sampled_from(KINDS)),
        structure=tuple(draw(st.lists(st.integers(0, 1), min_size=1, max_size=6))),
        channels=draw(st.integers(1, 5)),
        cell=draw(st.sampled_from(["basic", "skip_second"])),
        exit=draw(st.sampled_from(["mixed", "average", "max"])),
        input_shape=(draw(st.sampled_from([1, 3])), draw(st.integers(8, 21)), draw(st.integers(8, 21))),
        classes=draw(st.integers(2, 12)),
    )


@given(config=configs(), batch=st.integers(2, 4), data=st.data())
def test_forward_gives_logits_of_every_exit_that_exists(config: NetworkConfig, batch: int, data: st.DataObject) -> None:
    stages = data.draw(st.integers(1, config.exits))
    network = Network(config, stages=stages, seed=0)
    assert config.input_shape is not None
    images = torch.rand(batch, *config.input_shape)
    for mode in (True, False):
        logits = network.train(mode)(images)
        assert logits.shape == (stages, batch, config.classes)
        assert logits.isfinite().all()
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@given(configs())
def test_the_plan_holds_every_cell_once(config: NetworkConfig) -> None:
    stages = plan(config)
    assert len(stages) == config.exits
    assert sum(len(stage.cells) for stage in stages) == len(config.structure)
    assert [stage.final for stage in stages] == [False] * (len(stages) - 1) + [True]
    if config.kind != "full":
        ends = [i for i, carries in enumerate(config.structure, start=1) if carries]
        assert list(itertools.accumulate(len(stage.cells) for stage in stages[:-1])) == ends


def test_dense_cells_read_all_earlier_outputs() -> None:
    config = NetworkConfig(kind="dense", structure=(0, 1, 0), channels=4, input_shape=(1, 8, 8))
    cells = [cell for stage in plan(config) for cell in stage.cells]
    assert [cell.in_channels for cell in cells] == [4, 8, 12]
    assert [stage.exit_channels for stage in plan(config)] == [4, 16]


def test_a_plan_says_what_each_cell_is() -> None:
    config = NetworkConfig(kind="dense", structure=(0, 1, 0), channels=4, input_shape=(1, 8, 12))
    cells = [cell for stage in plan(config) for cell in stage.cells]
    assert [(cell.type, cell.stride, cell.area, cell.projects) for cell in cells] == [
        ("basic", 1, 96, False),
        ("basic", 1, 96, True),
        ("basic", 1, 96, True),
    ]
    assert [(stage.grid, stage.head) for stage in plan(config)] == [((4, 4), None), ((4, 4), None)]


def test_a_last_cell_with_an_exit_leaves_the_final_classifier_alone() -> None:
    config = NetworkConfig(kind="iterative", structure=(1, 1), input_shape=(1, 8, 8))
    assert [len(stage.cells) for stage in plan(config)] == [1, 1, 0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", ["basic", "skip_second"])
@pytest.mark.parametrize("exit_name", ["mixed", "average", "max"])
def test_config_and_stages_rebuild_a_network_exactly(kind: str, cell: str, exit_name: str) -> None:
    config = NetworkConfig.model_validate(
        {"kind": kind, "structure": (0, 1, 1), "cell": cell, "exit": exit_name, "input_shape": (1, 8, 8), "classes": 3}
    )
    for stages in range(1, config.exits + 1):
        first, second = Network(config, stages, seed=1), Network(config, stages, seed=2)
        second.load_state_dict(first.state_dict(), strict=True)
        images = torch.rand(3, 1, 8, 8)
        assert torch.equal(first.eval()(images), second.eval()(images))


@pytest.mark.parametrize("kind", ["dense", "iterative"])
def test_a_stage_starts_alike_from_birth_or_grown(kind: str) -> None:
    config = NetworkConfig.model_validate(
        {"kind": kind, "structure": (1, 0, 1, 0), "input_shape": (3, 8, 8), "classes": 4}
    )
    small = Network(config, seed=7)
    torch.rand(100)
    while not small.complete:
        small.append_stage(seed=7)
    for (name, one), other in zip(small.state_dict().items(), grown(config, seed=7).state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_an_exit_in_a_chain_is_the_network_cut_there() -> None:
    config = NetworkConfig(kind="full_ic", structure=(0, 1, 0, 1), input_shape=(1, 8, 8), classes=5)
    images = torch.rand(4, 1, 8, 8)
    whole = grown(config).eval()(images)
    for stages in range(1, config.exits + 1):
        assert torch.equal(Network(config, stages, seed=0).eval()(images), whole[:stages])


def test_convolutions_start_he_normal_over_the_fan_out() -> None:
    config = NetworkConfig(kind="full", structure=(0,) * 4, channels=64, input_shape=(3, 8, 8), classes=10)
    for name, layer in masked_layers(grown(config)).items():
        if "cells" in name:
            assert layer.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02), name


def test_normalisation_is_part_of_the_network() -> None:
    config = NetworkConfig(structure=(1,), input_shape=(2, 8, 8), classes=2)
    network = grown(config).eval()
    images = torch.rand(3, 2, 8, 8)
    plain = network(images)
    network.set_normalization([0.5, 0.25], [0.1, 0.5])
    mean, std = torch.tensor([0.5, 0.25])[:, None, None], torch.tensor([0.1, 0.5])[:, None, None]
    torch.testing.assert_close(network(images * std + mean), plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("mean", "std"), [([0.5], [1.0]), ([0.5, 0.5], [1.0, 0.0]), ([0.5, 0.5], [1.0])])
def test_a_normalisation_that_does_not_fit_is_refused(mean: list[float], std: list[float]) -> None:
    network = Network(NetworkConfig(structure=(1,), input_shape=(2, 8, 8), classes=2))
    with pytest.raises(ConfigError, match=r"normalization: got .* accepted: 2 numbers each"):
        network.set_normalization(mean, std)


def test_a_network_needs_to_know_its_pictures() -> None:
    with pytest.raises(ConfigError, match=r"network\.input_shape: got nothing"):
        Network(NetworkConfig())
    with pytest.raises(ConfigError, match=r"network\.classes: got nothing"):
        Network(NetworkConfig(input_shape=(1, 8, 8)))
    with pytest.raises(ConfigError, match=r"network\.input_shape: got nothing"):
        plan(NetworkConfig())


def test_a_whole_configuration_will_do() -> None:
    section = NetworkConfig(structure=(1,), input_shape=(1, 8, 8), classes=2)
    assert Network(Config(network=section), seed=0).config == section


@pytest.mark.parametrize("stages", [0, 3, -1])
def test_stages_out_of_range_are_refused(stages: int) -> None:
    with pytest.raises(ConfigError, match=rf"stages: got {stages}; accepted: 1 to 2"):
        Network(NetworkConfig(structure=(1, 0), input_shape=(1, 8, 8), classes=2), stages=stages)


def test_exits_that_are_not_placed_yet_are_told() -> None:
    config = NetworkConfig(structure=(0, 0, 0), exits_at=(0.3, 0.6), input_shape=(1, 8, 8), classes=2)
    with pytest.raises(
        ConfigError, match=r"network\.structure: got 0 internal classifiers; accepted: as many as network\.exits_at"
    ):
        Network(config)


def test_a_complete_network_takes_no_further_stage() -> None:
    network = grown(NetworkConfig(structure=(1, 0), input_shape=(1, 8, 8), classes=2))
    with pytest.raises(ConfigError, match="the network is complete"):
        network.append_stage()
