"""A statistical test that bounds the accuracy that a policy loses on other pictures."""

import bisect
import math
from dataclasses import dataclass

import numpy as np

from ramify.errors import InputError

BETS = 200
"""How many bets :func:`p_value` mixes."""
EXACT_SHARE = 2 / 3
"""Of the risk that :func:`p_value` takes, what the exact test of the lost pictures has."""


@dataclass(frozen=True)
class Certificate:
    """With ``confidence``, a policy loses at most ``max_drop`` of accuracy against the reference.

    This holds on pictures drawn like those it was tested on. The confidence is in the whole procedure: at most a share
    of ``1 - confidence`` of the sets of pictures that could have been drawn leads to a policy that loses more.

    Attributes:
        max_drop: the accuracy that may be lost, in (0, 1).
        confidence: in (0, 1).
        pictures: how many it was tested on; none of them had a part in choosing it.
        lost: of these, how many the reference gets right and the policy does not.
        gained: how many the policy gets right and the reference does not.
        p_value: of the policy, at most ``1 - confidence``; see :func:`p_value`.
        passed: how many policies passed, each bolder than the one before; the last is the one certified. With 0, the
            reference answers every picture.
        reference: what the drop is measured against, in words.
    """

    max_drop: float
    confidence: float
    pictures: int
    lost: int
    gained: int
    p_value: float
    passed: int
    reference: str = "the last exit"


def p_value(lost: int, gained: int, pictures: int, max_drop: float) -> float:
    """An upper bound on the probability of so small a loss if the true loss is above ``max_drop``; in [0, 1].

    On one picture the loss L is 1 where only the reference is right, -1 where only the policy is, else 0. Two tests
    share the risk; the smaller of their p-values, each divided by its share, is one too (Bonferroni).

    - Two thirds: the exact binomial test of the lost pictures, ``p = P(Binomial(N, m) <= lost)``, which does not count
      what is gained.
    - One third: the betting bound of arXiv:2010.09686, ``p = 1 / K``, where ``K`` is the mean of
      ``K_b = prod_i (1 + b (m - L_i))`` over a fixed grid of b in (0, 1 / (1 - m)). Where the mean of L is above m, the
      mean of ``K`` is below 1, and by Markov's inequality ``K >= 1 / alpha`` has a probability of at most alpha.

    Both hold for any number of pictures, without a limit theorem.

    Args:
        lost: pictures with L = 1.
        gained: pictures with L = -1.
        pictures: of all, >= lost + gained.
        max_drop: m, in [0, 1).

    Raises:
        InputError: counts or ``max_drop`` out of range.

    Example:
        >>> p_value(lost=0, gained=0, pictures=1000, max_drop=0.01) < 0.001
        True
        >>> p_value(lost=20, gained=0, pictures=1000, max_drop=0.01)
        1.0
    """
    if min(lost, gained) < 0 or lost + gained > pictures:
        raise InputError(
            f"p_value: got {lost} lost and {gained} gained of {pictures}; accepted: counts >= 0, within all"
        )
    if not 0 <= max_drop < 1:
        raise InputError(f"max_drop: got {max_drop}; accepted: a number in [0, 1)")
    exact = _binomial(lost, pictures, max_drop)
    return min(1.0, exact / EXACT_SHARE, _bet(lost, gained, pictures, max_drop) / (1 - EXACT_SHARE))


def _binomial(lost: int, pictures: int, chance: float) -> float:
    """``P(Binomial(pictures, chance) <= lost)``, summed over logarithms."""
    if chance == 0:
        return 1.0
    logs = [
        math.lgamma(pictures + 1)
        - math.lgamma(k + 1)
        - math.lgamma(pictures - k + 1)
        + k * math.log(chance)
        + (pictures - k) * math.log1p(-chance)
        for k in range(lost + 1)
    ]
    return min(1.0, math.exp(float(np.logaddexp.reduce(logs))))


def _bet(lost: int, gained: int, pictures: int, max_drop: float) -> float:
    bets = (np.arange(BETS) + 0.5) / BETS / (1 - max_drop)
    logs = (
        lost * np.log1p(bets * (max_drop - 1))
        + float(pictures - lost - gained) * np.log1p(bets * max_drop)
        + gained * np.log1p(bets * (max_drop + 1))
    )
    log_k = float(np.logaddexp.reduce(logs)) - math.log(BETS)
    return min(1.0, math.exp(-log_k)) if log_k > 0 else 1.0


def pictures_needed(max_drop: float, confidence: float) -> int:
    """The fewest pictures for a certificate: half of them suffice if none is lost.

    Raises:
        InputError: ``max_drop`` or ``confidence`` is not in (0, 1).

    Example:
        >>> pictures_needed(max_drop=0.01, confidence=0.95)
        678
    """
    if not 0 < max_drop < 1:
        raise InputError(f"max_drop: got {max_drop}; accepted with a confidence: a number in (0, 1)")
    if not 0 < confidence < 1:
        raise InputError(f"confidence: got {confidence}; accepted: a number in (0, 1), such as 0.95")
    counts = range(1, 1 << 60)
    tested = bisect.bisect_left(counts, True, key=lambda count: p_value(0, 0, count, max_drop) <= 1 - confidence)
    return 2 * counts[tested]
