"""The confusion score of Shallow-Deep Networks (arXiv:1810.07052): exits that disagree point to errors of the last."""

from dataclasses import dataclass

import torch
from torch import Tensor

CONFUSION_EDGES = tuple(i / 4 for i in range(-8, 17))
"""Edges of the bins in which confusion scores are counted; the outermost bins take what lies beyond them."""


@dataclass(frozen=True)
class ConfusionScore:
    """How :func:`confusion_scores` separate the pictures that the last exit gets right from those it gets wrong.

    Attributes:
        auroc: of the scores, see :func:`auroc`.
        confidence_auroc: of ``1 - highest probability`` of the last exit, to compare.
        right, wrong: mean score of the pictures that the last exit gets right, or wrong; None where there are none.
        edges: of the bins of both histograms, :data:`CONFUSION_EDGES`.
        right_counts, wrong_counts: right and wrong pictures in each bin.
    """

    auroc: float | None
    confidence_auroc: float | None
    right: float | None
    wrong: float | None
    edges: tuple[float, ...]
    right_counts: tuple[int, ...]
    wrong_counts: tuple[int, ...]


def confusion_scores(probabilities: Tensor) -> Tensor:
    """How much the internal classifiers disagree with the last exit (arXiv:1810.07052), ``[E, N, C] -> [N]``.

    ``D = sum_i ||F_last - F_i||_1`` over the internal classifiers i, less its mean over the pictures, divided by its
    standard deviation (of N, not N - 1). The paper takes both from the training pictures, which keeps the order. All
    scores are 0 where all D are the same.

    Args:
        probabilities: softmax of every exit, float ``[E, N, C]``, E >= 1.
    """
    distance = (probabilities[:-1] - probabilities[-1]).abs().sum(dim=(0, 2)).double()
    deviation = distance.std(correction=0)
    return (distance - distance.mean()) / deviation if deviation > 1e-9 else torch.zeros_like(distance)


def auroc(scores: Tensor, positive: Tensor) -> float | None:
    """The chance that a positive scores higher than a negative, ties counting half: the area under the ROC curve.

    Exact, by ranks: ``(sum of the positives' ranks - P (P + 1) / 2) / (P Q)`` for P positives and Q negatives.

    Args:
        scores: float ``[N]``.
        positive: bool ``[N]``.

    Returns:
        A number in [0, 1], 0.5 being chance; None where there is no positive or no negative.

    Example:
        >>> auroc(torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([False, True, False, True]))
        0.875
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    _, place, counts = scores.unique(return_inverse=True, return_counts=True)
    ranks = counts.cumsum(dim=0) - (counts.double() - 1) / 2  # from 1; those that tie share their mean rank
    above = float(ranks[place][positive].sum()) - positives * (positives + 1) / 2
    return above / (positives * negatives)


def confusion_score(probabilities: Tensor, right: Tensor) -> ConfusionScore:
    """How well the disagreement of the exits predicts the errors of the last one.

    Args:
        probabilities: softmax of every exit, float ``[E, N, C]``, E >= 2.
        right: whether the last exit is right, bool ``[N]``.
    """
    scores = confusion_scores(probabilities)
    inner = torch.tensor(CONFUSION_EDGES[1:-1], dtype=torch.float64)

    def mean(which: Tensor) -> float | None:
        return float(scores[which].mean()) if which.any() else None

    def counts(which: Tensor) -> tuple[int, ...]:
        places = torch.bucketize(scores[which], inner, right=True)
        return tuple(torch.bincount(places, minlength=len(inner) + 1).tolist())

    return ConfusionScore(
        auroc=auroc(scores, ~right),
        confidence_auroc=auroc(-probabilities[-1].amax(dim=1), ~right),
        right=mean(right),
        wrong=mean(~right),
        edges=CONFUSION_EDGES,
        right_counts=counts(right),
        wrong_counts=counts(~right),
    )
