"""How well a policy ranks pictures by whether a deeper exit helps, and what its trade-off is worth."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ramify.ops.exits.analysis import reliability
from ramify.ops.exits.confusion import auroc
from ramify.ops.exits.policy import Policy, answers, leaving
from ramify.seeds import generator

_LEVELS = 201
"""Thresholds on the curve of :func:`area`."""
DRAWS = 1000
"""Bootstrap samples of an interval."""


@dataclass(frozen=True)
class Interval:
    """A mean difference over pictures, with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Ranking:
    """What the scores of a policy are worth on pictures that had no part in it.

    Attributes:
        criterion: of the policy.
        auroc: for each exit but the last, how well ``1 - confidence`` separates the pictures that a deeper exit would
            correct from the rest; 0.5 is chance, None where there are none of either.
        error_before, error_after: expected calibration error of the highest probability of each exit, without and with
            the policy's temperatures.
        area_macs, area_milliseconds: see :func:`area`; over average MACs, and over milliseconds where measured.
        against_best: accuracy of the policy minus that of the exit that is best alone on these pictures.
        macs_saved: of the last exit's MACs, the share that the policy saves.
    """

    criterion: str
    auroc: tuple[float | None, ...]
    error_before: tuple[float, ...]
    error_after: tuple[float, ...]
    area_macs: float
    area_milliseconds: float | None
    against_best: Interval
    macs_saved: Interval


def rank(
    policy: Policy,
    logits: Tensor,
    labels: Tensor,
    macs: Sequence[float],
    milliseconds: Sequence[float] | None = None,
    seed: int = 0,
) -> Ranking:
    """Measure ``policy`` on ``logits [E, N, C]`` and ``labels [N]``.

    Args:
        policy: for E exits.
        logits: finite.
        labels: int64.
        macs: multiply-accumulates of answering at each exit.
        milliseconds: measured latency of answering there.
        seed: of the bootstrap.

    Example:
        >>> logits = torch.tensor([[[0.1, 0.0], [4.0, 0.0]], [[0.0, 4.0], [4.0, 0.0]]])
        >>> ranking = rank(Policy((0.9,)), logits, torch.tensor([1, 0]), (1.0, 2.0))
        >>> ranking.auroc, ranking.area_macs, ranking.macs_saved.mean
        ((1.0,), 0.875, 0.25)
    """
    logits, labels = logits.detach().cpu(), labels.cpu()
    classes, sure = answers(policy, logits)
    right = classes == labels
    corrected = [~right[at] & right[at + 1 :].any(dim=0) for at in range(len(right) - 1)]
    scaled = replace(policy, combine="last", weights=None)
    exits = leaving(policy, sure)
    policy_right = right.gather(0, exits[None])[0]
    alone = logits.argmax(dim=-1) == labels
    best = int(alone.sum(dim=1).argmax())
    costs = torch.tensor(macs, dtype=torch.float64)
    return Ranking(
        criterion=policy.criterion,
        auroc=tuple(auroc(1 - sure[at], positive) for at, positive in enumerate(corrected)),
        error_before=_errors(replace(scaled, temperatures=None), logits, labels),
        error_after=_errors(scaled, logits, labels),
        area_macs=area(sure, right, macs),
        area_milliseconds=None if milliseconds is None else area(sure, right, milliseconds),
        against_best=paired(policy_right.double(), alone[best].double(), seed),
        macs_saved=paired(torch.ones(len(labels), dtype=torch.float64), costs[exits] / costs[-1], seed),
    )


def _errors(policy: Policy, logits: Tensor, labels: Tensor) -> tuple[float, ...]:
    highest = [p.max(dim=-1) for p in policy.probabilities(logits)]
    return tuple(reliability(top.values, top.indices == labels).error for top in highest)


def area(sure: Tensor, right: Tensor, costs: Sequence[float]) -> float:
    """The area under accuracy against average cost as one threshold for all exits goes from 0 to above 1.

    It is the mean accuracy over all average costs from the first exit's to the last's, in [0, 1]. The thresholds are
    quantiles of the confidences, so only their ranks matter.

    Args:
        sure: the confidence of each exit, ``[E, N]``.
        right: whether it is right, bool ``[E, N]``.
        costs: of answering at each exit, rising.

    Example:
        >>> area(torch.tensor([[0.2, 0.9], [1.0, 1.0]]), torch.tensor([[False, True], [True, True]]), (1.0, 2.0))
        0.875
    """
    exits = len(sure)
    if exits == 1:
        return float(right[0].double().mean())
    levels = sure[:-1].flatten().double().quantile(torch.linspace(0, 1, _LEVELS, dtype=torch.float64))
    price = torch.tensor(costs, dtype=torch.float64)
    points = {(float(price[0]), float(right[0].double().mean())), (float(price[-1]), float(right[-1].double().mean()))}
    for level in levels.unique():
        left = (sure[:-1].double() < level).long().cumprod(dim=0).sum(dim=0)
        points.add((float(price[left].mean()), float(right.gather(0, left[None])[0].double().mean())))
    x, y = np.array(sorted(points)).T
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / (x[-1] - x[0]))


def paired(first: Tensor, second: Tensor, seed: int = 0) -> Interval:
    """The mean of ``first - second``, float64 ``[N]`` of the same pictures, with its percentile bootstrap interval.

    Example:
        >>> paired(torch.ones(10).double(), torch.zeros(10).double())
        Interval(mean=1.0, low=1.0, high=1.0)
    """
    difference = (first - second).double()
    draw = generator(seed, "bootstrap")
    means = torch.stack(
        [difference[torch.randint(len(difference), (len(difference),), generator=draw)].mean() for _ in range(DRAWS)]
    )
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(difference.mean()), low, high)
