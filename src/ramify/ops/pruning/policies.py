"""Pruning policies: what each pruning of a run keeps, a function of the schedule alone, in :data:`POLICIES`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Due:
    """A pruning that is due.

    Attributes:
        epoch: one of ``epochs``.
        epochs: of all prunings (``prune.epochs``).
        births: the epoch from which each stage exists.
        keep: of each stage, in (0, 1] (``prune.keep_ratio``).
        least: of each stage, in [0, 1] (``prune.min_ratio``).
    """

    epoch: int
    epochs: tuple[int, ...]
    births: tuple[int, ...]
    keep: tuple[float, ...]
    least: tuple[float, ...]

    @property
    def existing(self) -> list[int]:
        """The stages that exist, from 0."""
        return [stage for stage, birth in enumerate(self.births) if birth <= self.epoch]


Targets = Callable[[Due], float | dict[int, float]]
"""The keep ratio of the whole network, ranked at once, or of each stage that is pruned, ranked inside itself."""


@dataclass(frozen=True)
class PruningPolicy:
    """A value of ``prune.policy``.

    Attributes:
        targets: what a pruning keeps.
        summary: what it does, for ``ramify config --keys``.
        by_stage: whether each stage may have a ratio of its own, and is ranked inside itself.
        regrows: None, or where masked connections regrow in training; stages are then sparse from their birth.
    """

    targets: Targets
    summary: str
    by_stage: bool = True
    regrows: Literal["gradient", "random"] | None = None


def normal(due: Due) -> float:
    """The whole network, to one ratio."""
    return due.keep[0]


def gradual(due: Due) -> float:
    """The whole network, to ``keep + (1 - keep) (1 - i / n) ** 3`` at the i-th of n prunings."""
    share = (due.epochs.index(due.epoch) + 1) / len(due.epochs)
    return due.keep[0] + (1 - due.keep[0]) * (1 - share) ** 3


def skip_layer(due: Due) -> dict[int, float]:
    """The i-th pruning takes the i-th stage alone."""
    stage = due.epochs.index(due.epoch)
    return {stage: due.keep[stage]}


def iterative(due: Due) -> dict[int, float]:
    """Every stage that exists, to ``max(keep ** n, least)`` at its n-th pruning."""
    targets = {}
    for stage in due.existing:
        times = sum(due.births[stage] <= epoch <= due.epoch for epoch in due.epochs)
        targets[stage] = max(due.keep[stage] ** times, due.least[stage])
    return targets


def from_birth(due: Due) -> dict[int, float]:
    """Every stage that exists, to its ratio."""
    return {stage: due.keep[stage] for stage in due.existing}


POLICIES: dict[str, PruningPolicy] = {
    "skip_layer": PruningPolicy(skip_layer, "the i-th pruning takes the i-th stage"),
    "normal": PruningPolicy(normal, "the whole network, ranked globally", by_stage=False),
    "gradual": PruningPolicy(
        gradual,
        "as normal, in steps from one of prune.epochs to the next, large ones first (arXiv:1710.01878)",
        by_stage=False,
    ),
    "iterative": PruningPolicy(iterative, "every stage, again and again"),
    "rigl": PruningPolicy(
        from_birth,
        "every stage is sparse from its birth, and its connections move while it learns, to where the gradient is "
        "largest (arXiv:1911.11134)",
        regrows="gradient",
    ),
    "set": PruningPolicy(from_birth, "as rigl, but to random places (arXiv:1707.04780)", regrows="random"),
}
"""Every policy by the name that ``prune.policy`` takes."""

DYNAMIC = tuple(name for name, policy in POLICIES.items() if policy.regrows)
"""Policies under which connections move while the network learns."""

FIXED = tuple(name for name in POLICIES if name not in DYNAMIC)
"""Policies whose masks only shrink."""
