"""Latencies: measured in turn, and rising with depth."""

import itertools

import torch

from ramify.config.rules import NetworkConfig
from ramify.nn.network import Network
from ramify.run.latency import exit_latencies, in_turn


def test_calls_are_timed_in_turn() -> None:
    seen: list[str] = []
    found = in_turn([lambda: seen.append("a"), lambda: seen.append("b")], torch.device("cpu"), rounds=3)
    assert seen == ["a", "b"] * 3
    assert len(found) == 2
    assert all(each >= 0 for each in found)


def test_deeper_exits_take_longer() -> None:
    config = NetworkConfig(kind="full_ic", structure=(1, 1, 1, 0), channels=4, input_shape=(1, 8, 8), classes=5)
    network = Network(config).train()
    found = exit_latencies(network, rounds=3)
    assert len(found) == 4
    assert all(a < b for a, b in itertools.pairwise(found))
    assert network.training
