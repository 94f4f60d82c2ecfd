"""The measured effect of compaction: sizes, multiply-accumulates, and milliseconds before and after."""

from dataclasses import dataclass

import torch

from ramify.nn.branching import Branching
from ramify.ops.pruning.compact import Compaction
from ramify.run.latency import Latency, paired_latency

_BATCHES = (1, 64)


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


def receipt(masked: Branching, compacted: Branching, compaction: Compaction) -> Receipt:
    """The receipt of a compaction, with latencies measured on the device of the networks."""
    before, after = compaction.before, compaction.after
    return Receipt(
        density=(before[-1].density, after[-1].density),
        parameters=(before[-1].parameters, after[-1].parameters),
        macs=tuple((large.macs, small.macs) for large, small in zip(before, after, strict=True)),
        removed=compaction.removed,
        flushed=compaction.flushed,
        difference=compaction.difference,
        latencies=tuple(paired_latency(masked, compacted, batch) for batch in _BATCHES),
        threads=torch.get_num_threads(),
    )
