"""The average of a network's weights in training, through growth, widening and pruning.

Averaged weights are more accurate than the last ones (Polyak and Juditsky 1992; arXiv:1803.05407). The average is a
network that operations take as a follower, so it gets each new stage, width and mask.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

from ramify.nn.branching import Branching, stage_of


def average_decay(decay: float, updates: int) -> float:
    """The decay at update t: ``min(decay, (1 + t) / (10 + t))``, so that the average forgets its first weights."""
    return min(decay, (1 + updates) / (10 + updates))


_N = TypeVar("_N", bound=Branching)


@dataclass
class Average(Generic[_N]):
    """An exponential average of a network's weights and batch norm statistics.

    Every step it becomes ``d * average + (1 - d) * network``, with ``d`` of :func:`average_decay`. Each stage counts
    its own updates, so a late stage forgets its first weights as fast as the first one did. The statistics of batch
    norm are averaged alike; measuring them again, as arXiv:1803.05407 does, would cost a pass before each validation
    and change little, as an exponential average spans few epochs.

    Attributes:
        network: the average, with the same stages, widths and masks as the network it follows.
        decay: in (0, 1).
        updates: how often each stage has been averaged since it was added or renewed.
    """

    network: _N
    decay: float
    updates: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, network: _N, decay: float) -> "Average[_N]":
        """An average that begins as a copy of ``network``."""
        return cls(copy.deepcopy(network), decay, [0] * len(network.stages))

    def renew(self, network: Branching, stages: Iterable[int]) -> None:
        """Copy ``stages`` (counted from 0, the stem in the first) of ``network`` and restart their averages.

        For stages that were added, widened or redrawn.
        """
        chosen = {*stages}
        self.updates += [0] * (len(network.stages) - len(self.updates))
        averages = self.network.state_dict()
        with torch.no_grad():
            for name, value in network.state_dict().items():
                if stage_of(name) in chosen:
                    averages[name].copy_(value)
        for stage in chosen:
            self.updates[stage] = 0

    def following(self, network: Branching) -> Callable[[], None]:
        """A function to call after each training step of ``network``, until a parameter of it is replaced."""
        stages: list[tuple[list[Tensor], list[Tensor]]] = [([], []) for _ in network.stages]
        counters: tuple[list[Tensor], list[Tensor]] = ([], [])
        averages = self.network.state_dict()
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                averaged, live = stages[stage_of(name)]
                averaged.append(averages[name])
                live.append(value)
            elif value.dtype != torch.bool:  # masks change between steps, also those of followers
                counters[0].append(averages[name])
                counters[1].append(value)

        @torch.no_grad()
        def follow() -> None:
            for stage, (averaged, live) in enumerate(stages):
                share = 1 - average_decay(self.decay, self.updates[stage])
                torch._foreach_lerp_(averaged, live, share)
                self.updates[stage] += 1
            if counters[0]:
                torch._foreach_copy_(*counters)

        return follow
