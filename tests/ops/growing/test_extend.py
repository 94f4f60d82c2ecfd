"""A deeper network begins as a shallower one: the same answers, and nothing of the shallower one is touched."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ramify.config.rules import NetworkConfig
from ramify.errors import InputError
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network, plan
from ramify.ops.growing.convert import to_cnn
from ramify.ops.growing.extend import extend, overlap
from ramify.ops.pruning.compact import compact
from ramify.ops.pruning.prune import prune

PICTURES = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def config(structure: tuple[int, ...], **changes: object) -> NetworkConfig:
    keys = {"kind": "full_ic", "channels": 4, "final": "mixed", "input_shape": (1, 8, 8), "classes": 10, **changes}
    return NetworkConfig.model_validate({"structure": structure, **keys})


def learned(config: NetworkConfig, stages: int | None = None) -> Network:
    """A network whose batch norms have seen pictures."""
    network = Network(config, stages=stages or config.exits, seed=3)
    network.train()
    for _ in range(3):
        network(PICTURES)
    return network.eval()


STRUCTURES = st.lists(st.integers(0, 1), min_size=1, max_size=8).map(tuple)


@given(STRUCTURES, STRUCTURES, st.sampled_from(["iterative", "full_ic", "dense"]))
def test_what_is_shared_is_the_beginning_of_both(short: tuple[int, ...], long: tuple[int, ...], kind: str) -> None:
    one, other = config(short, kind=kind), config(long, kind=kind)
    found = overlap(one, other)
    if found is None:
        assert 1 not in short or 1 not in long or short.index(1) != long.index(1)
        return
    assert found.cells <= min(len(short), len(long))
    before = found.cells - found.whole
    assert short[:before] == long[:before]
    assert found.exits == sum(short[:before])
    if not found.whole:
        assert short[found.cells - 1] == long[found.cells - 1] == 1
        ours, theirs = plan(one)[: found.exits], plan(other)[: found.exits]
        assert ours == theirs


@pytest.mark.parametrize(
    ("short", "long", "cells", "whole"),
    [
        ((0, 1, 0), (0, 1, 0, 0, 1, 0), 3, True),  # behind the final classifier's cells
        ((0, 1, 0), (0, 1, 1, 0, 1, 0), 3, True),  # the final classifier becomes an exit
        ((0, 0), (0, 0, 0, 1, 0), 2, True),  # no exit is shared but the final classifier
        ((0, 1, 0, 0, 1, 0), (0, 1, 0, 1, 0), 2, False),  # up to an exit
        ((1, 0, 1), (1, 0, 1), 3, False),  # the same once more
    ],
)
@pytest.mark.parametrize("kind", ["iterative", "full_ic"])
def test_the_deeper_network_answers_what_the_shallower_did(
    short: tuple[int, ...], long: tuple[int, ...], cells: int, whole: bool, kind: str
) -> None:
    old = learned(config(short, kind=kind))
    before = {name: value.clone() for name, value in old.state_dict().items()}
    found = extend(old, config(long, kind=kind), seed=0, images=PICTURES)
    assert (found.overlap.cells, found.overlap.whole) == (cells, whole)
    assert found.network.complete
    assert found.network.config == config(long, kind=kind)
    new, was = found.network.eval()(PICTURES), old(PICTURES)
    shared = found.overlap.exits
    torch.testing.assert_close(new[:shared], was[:shared], rtol=0, atol=0)
    answer = was[-1] if whole else was[shared - 1]
    for later in new[shared:]:
        torch.testing.assert_close(later, answer, rtol=0, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in old.state_dict().items())


@pytest.mark.parametrize("final", [None, "average", "max"])
def test_a_final_classifier_of_another_pooling_goes_on_as_a_mixed_exit(final: str | None) -> None:
    old = learned(config((0, 1, 0), final=final))
    new = extend(old, config((0, 1, 0, 1, 0))).network.eval()
    torch.testing.assert_close(new(PICTURES)[-1], old(PICTURES)[-1], rtol=0, atol=1e-5)


def test_in_dense_wiring_it_goes_on_from_an_exit() -> None:
    old = learned(config((0, 1, 0), kind="dense"))
    found = extend(old, config((0, 1, 0, 1, 0), kind="dense"), seed=0, images=PICTURES)
    assert (found.overlap.cells, found.overlap.whole) == (2, False)
    new = found.network.eval()(PICTURES)
    for later in new:
        torch.testing.assert_close(later, old(PICTURES)[0], rtol=0, atol=1e-5)


def test_a_network_that_has_not_fully_grown_gives_what_it_has() -> None:
    old = learned(config((1, 1, 1, 0), kind="iterative"), stages=2)
    found = extend(old, config((1, 1, 1, 0, 1, 0), kind="iterative"))
    assert (found.overlap.cells, found.overlap.exits, found.overlap.whole) == (2, 2, False)


def test_the_weights_that_were_pruned_may_learn_again() -> None:
    old = learned(config((0, 1, 0)))
    prune(old, 0.3, "magnitude", [])
    new = extend(old, config((0, 1, 0, 1, 0)), seed=0).network.eval()
    assert all(bool(layer.mask.all()) for layer in masked_layers(new).values())
    torch.testing.assert_close(new(PICTURES)[-1], old(PICTURES)[-1], rtol=0, atol=1e-5)


def test_every_part_that_was_taken_over_is_named() -> None:
    old = learned(config((0, 1, 0)))
    for long in ((0, 1, 0, 0, 1, 0), (0, 1, 1, 0)):
        found = extend(old, config(long))
        new, given_ = found.network.state_dict(), old.state_dict()
        named = [key for key in new if any(key.startswith(f"{prefix}.") for prefix in found.names)]
        assert sum(".cells." in key and key.endswith("conv1.weight") for key in named) == 3
        for key in named:
            prefix = max((each for each in found.names if key.startswith(f"{each}.")), key=len)
            assert torch.equal(new[key], given_[found.names[prefix] + key.removeprefix(prefix)]), key


def test_what_does_not_extend_is_refused() -> None:
    old = learned(config((0, 1, 0)))
    for changes in ({"channels": 8}, {"cell": "skip_second"}, {"exit": "max"}, {"kind": "dense"}, {"classes": 3}):
        with pytest.raises(InputError, match=r"network.structure: got \[0, 1, 0, 1, 0\]; accepted: one that extends"):
            extend(old, config((0, 1, 0, 1, 0), **changes))
    with pytest.raises(InputError, match="accepted: one that extends"):
        extend(old, config((1, 0, 0, 1)))
    with pytest.raises(InputError, match="accepted: one that extends"):
        extend(to_cnn(old), config((0, 0, 0), kind="full"))


def test_a_compacted_network_is_refused() -> None:
    old = learned(config((0, 1, 0)))
    prune(old, 0.5, "magnitude", [], unit="channel")
    small, _ = compact(old)
    with pytest.raises(InputError, match="compacted or widened"):
        extend(small, config((0, 1, 0, 1, 0)))
