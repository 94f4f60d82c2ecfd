"""Milliseconds that a network takes on this machine, measured in turn with what it is compared to."""

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ramify.nn.branching import Branching
from ramify.nn.modes import keeping_modes

PAIRS = 15


@dataclass(frozen=True)
class Latency:
    """Median milliseconds of a forward pass of two networks on ``batch`` pictures, measured in turn."""

    batch: int
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """How many times faster the second network is."""
        return self.before / self.after


def in_turn(
    calls: Sequence[Callable[[], object]],
    device: torch.device,
    rounds: int = PAIRS,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Median milliseconds of each call, timed in turn so that other work on the machine affects all alike.

    The first round is a warm-up, and is left out. ``clock``: in seconds.
    """
    return [statistics.median(times[1:]) for times in times_in_turn(calls, device, rounds, clock=clock)]


def times_in_turn(
    calls: Sequence[Callable[[], object]],
    device: torch.device,
    rounds: int = PAIRS,
    pause: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Milliseconds of each call in each round, the warm-up included; see :func:`in_turn`.

    ``pause``: seconds before each call, in which the threads of the one before go to sleep.
    """
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, own in zip(calls, times, strict=True):
            _wait_for(device)
            if pause:
                time.sleep(pause)
            began = clock()
            call()
            _wait_for(device)
            own.append(1000 * (clock() - began))
    return times


def paired_latency(first: Branching, second: Branching, batch: int, pairs: int = PAIRS) -> Latency:
    """Time two networks on the same random pictures."""
    images = _pictures(first, batch)
    with keeping_modes(first), keeping_modes(second), torch.inference_mode():
        calls = [lambda network=network: network(images) for network in (first.eval(), second.eval())]
        before, after = in_turn(calls, images.device, pairs)
    return Latency(batch, before, after)


def exit_latencies(network: Branching, batch: int = 1, rounds: int = PAIRS) -> list[float]:
    """Median milliseconds of answering at each exit, shallowest first: all heads on the way are computed."""
    images = _pictures(network, batch)
    with keeping_modes(network), torch.inference_mode():
        network.eval()
        calls = [lambda depth=depth: up_to(network, images, depth) for depth in range(1, len(network.stages) + 1)]
        times = in_turn(calls, images.device, rounds)
    # A deeper exit takes longer; a measurement that says otherwise is noise.
    return list(itertools.accumulate(times, lambda before, here: max(1.001 * before, here)))


def up_to(network: Branching, images: torch.Tensor, depth: int) -> torch.Tensor:
    """The logits ``[B, C]`` of exit ``depth``, counted from 1; nothing behind it is computed."""
    trunk = network.enter(images)
    trunk, logits = network.run_stage(0, trunk, None)
    for at in range(1, depth):
        trunk, logits = network.run_stage(at, trunk, logits)
    return logits


def _pictures(network: Branching, batch: int) -> torch.Tensor:
    return torch.rand(batch, *network.input_shape, generator=torch.Generator().manual_seed(0)).to(network.mean.device)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
