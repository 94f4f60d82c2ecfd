"""What compaction gave, measured: sizes, multiply-accumulates, and milliseconds before and after."""

import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from ramify.nn.network import Network
from ramify.ops.compact import Compaction

BATCHES = (1, 64)
PAIRS = 15


@dataclass(frozen=True)
class Latency:
    """Median milliseconds of a whole forward pass on ``batch`` pictures, the two networks measured in turn."""

    batch: int
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """How many times faster the network is after compaction."""
        return self.before / self.after


@dataclass(frozen=True)
class Receipt:
    """One compaction; a pair is (before, after).

    Attributes:
        density: the fraction of weights kept by the masks.
        removed: channels taken out.
        macs: of each exit, shallowest first.
        flushed: numbers too small for a normal float32 that became 0.
        difference: largest absolute difference of logits between the two networks.
        threads: processor threads of the measurement.
    """

    density: tuple[float, float]
    parameters: tuple[int, int]
    macs: tuple[tuple[int, int], ...]
    removed: int
    flushed: int
    difference: float
    latencies: tuple[Latency, ...]
    threads: int


def receipt(masked: Network, compacted: Network, compaction: Compaction) -> Receipt:
    """The receipt of a compaction, with latencies measured here and now, on the device of the networks."""
    before, after = compaction.before, compaction.after
    return Receipt(
        density=(before[-1].density, after[-1].density),
        parameters=(before[-1].parameters, after[-1].parameters),
        macs=tuple((large.macs, small.macs) for large, small in zip(before, after, strict=True)),
        removed=compaction.removed,
        flushed=compaction.flushed,
        difference=compaction.difference,
        latencies=tuple(paired_latency(masked, compacted, batch) for batch in BATCHES),
        threads=torch.get_num_threads(),
    )


def paired_latency(first: Network, second: Network, batch: int, pairs: int = PAIRS) -> Latency:
    """Time both networks in turn on the same random pictures; other work on the machine then meets both alike."""
    shape = first.config.input_shape
    assert shape is not None
    images = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0)).to(first.mean.device)
    times: tuple[list[float], list[float]] = ([], [])
    modes = first.training, second.training
    with torch.inference_mode():
        for _ in range(pairs):
            for network, found in zip((first.eval(), second.eval()), times, strict=True):
                found.append(_milliseconds(network, images))
    for network, mode in zip((first, second), modes, strict=True):
        network.train(mode)
    # The first pair warms up: allocations, caches, and kernels that are chosen at their first call.
    return Latency(batch, statistics.median(times[0][1:]), statistics.median(times[1][1:]))


def _milliseconds(network: Network, images: Tensor) -> float:
    _wait_for(images.device)
    began = time.perf_counter()
    network(images)
    _wait_for(images.device)
    return 1000 * (time.perf_counter() - began)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
