"""Where widths change, and what exits of a cascade answer."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ramify.config.rules import Config, NetworkConfig
from ramify.errors import ConfigError
from ramify.nn.network import Network, plan
from ramify.ops.exits.policy import Policy
from tests.ops.shapes import SHAPES, pictures, shaped


@given(cells=st.integers(1, 12), groups=st.integers(1, 5))
def test_widths_are_spread_evenly_and_each_but_the_first_starts_with_a_stride(cells: int, groups: int) -> None:
    widths = tuple(range(4, 4 + groups))
    told = {"structure": (0,) * cells, "channels": widths, "input_shape": (1, 8, 8), "classes": 2, "kind": "full_ic"}
    if groups > cells:
        with pytest.raises(ConfigError, match=r"network\.channels: got .*; accepted: up to"):
            Config(network=NetworkConfig.model_validate(told))
        return
    config = Config(network=NetworkConfig.model_validate(told)).network
    planned = [cell for stage in plan(config) for cell in stage.cells]
    given_widths = [cell.out_channels for cell in planned]
    sizes = [given_widths.count(width) for width in widths]
    assert given_widths == sorted(given_widths)
    assert max(sizes) - min(sizes) <= 1
    assert [cell.stride for cell in planned] == [
        1 if before == here else 2 for before, here in zip([4, *given_widths], given_widths, strict=False)
    ]
    by_hand = config.model_copy(update={"strides": config.strided})
    assert plan(by_hand) == plan(config)


def test_a_number_is_what_it_always_was() -> None:
    for kind, weights in (("dense", 169_392), ("iterative", 52_144)):
        told = {"kind": kind, "structure": (0, 0, 1, 0, 0, 1, 0, 1, 0), "input_shape": (3, 32, 32), "classes": 10}
        config = NetworkConfig.model_validate(told)
        network = Network(config, stages=config.exits, seed=0)
        spread = Network(config.model_copy(update={"channels": (16,)}), stages=config.exits, seed=0)
        found = {name: value for name, value in network.named_parameters() if value.dim() > 1}
        assert sum(value.numel() for value in found.values()) == weights
        assert all(torch.equal(value, spread.get_parameter(name)) for name, value in found.items())


def test_dense_wiring_goes_on_at_half_the_size() -> None:
    network = shaped("dense strided")
    trunk = network.enter(pictures(network))
    sizes = []
    for stage in network.stages:
        trunk, _ = stage(trunk)
        sizes.append(tuple(trunk.shape[1:]))
    # Widths 4, 4, 6, 6, 8 behind a stem of 4: the third and the fifth cell stride.
    assert sizes == [(12, 13, 16), (24, 7, 8), (32, 4, 4)]
    assert [cell.pooled for stage in network.plans for cell in stage.cells] == [False, False, True, False, True]


@pytest.mark.parametrize("name", [name for name, told in SHAPES.items() if told.get("cascade")])
def test_an_exit_of_a_cascade_adds_to_the_one_before_it(name: str) -> None:
    network = shaped(name)
    images = pictures(network)
    trunk, own = network.enter(images), []
    for stage in network.stages:
        trunk, logits = stage(trunk)
        own.append(logits)
    torch.testing.assert_close(network(images), torch.stack(own).cumsum(dim=0))


@pytest.mark.parametrize("name", list(SHAPES))
@pytest.mark.parametrize("count", [1, 40])
def test_who_leaves_early_gets_the_answer_of_that_exit(name: str, count: int) -> None:
    network = shaped(name)
    images = pictures(network, count)
    logits = network(images).detach()
    sure = logits.softmax(dim=2).amax(dim=2)
    policy = Policy(thresholds=tuple(sure.median(dim=1).values[:-1].tolist()))
    answer = network.predict(images, policy)
    if count > 1:
        assert len(set(answer.exits.tolist())) > 1
    at = torch.arange(count)
    assert torch.equal(answer.classes, logits[answer.exits, at].argmax(dim=1))
    torch.testing.assert_close(answer.confidence, sure[answer.exits, at])


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"strides": (0, 1)}, r"network\.strides: got \[0, 1\]; accepted: a list of 7"),
        (
            {"channels": (4, 8, 16), "strides": (0, 1, 0, 0, 0, 0, 0)},
            r"network\.strides: got .*; accepted: a list with 2 times 1, as each moves on to the next of the 3 widths",
        ),
        ({"squeeze": 0.5}, r"network\.squeeze: got 0\.5; accepted: null, as basic cells have no place for it"),
        ({"cells": "vgg16", "structure": (0,) * 12, "strides": (0,) * 12}, r"network\.strides: got .*; accepted: null"),
    ],
)
def test_shapes_that_contradict_each_other_are_told(told: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config(network=NetworkConfig.model_validate(told))
