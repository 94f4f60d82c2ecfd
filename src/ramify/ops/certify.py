"""Whether a policy may be trusted beyond the pictures it was chosen on: a test that bounds what it loses."""

import math
from dataclasses import dataclass

import numpy as np

from ramify.errors import InputError

BETS = 200
"""How many bets :func:`p_value` mixes."""


@dataclass(frozen=True)
class Certificate:
    """With ``confidence``, a policy loses at most ``max_drop`` of accuracy against the last exit.

    On pictures drawn like those it was tested on. The confidence is in the whole procedure: of all the sets of
    pictures that could have been drawn, at most a share of ``1 - confidence`` leads to a policy that loses more.

    Attributes:
        max_drop: the accuracy that may be lost, in (0, 1).
        confidence: in (0, 1).
        pictures: how many it was tested on; none of them had a part in choosing it.
        lost: of these, how many the last exit gets right and the policy does not.
        gained: how many the policy gets right and the last exit does not.
        p_value: of the policy, at most ``1 - confidence``; see :func:`p_value`.
        passed: how many policies passed, each bolder than the one before; the last is the one certified. With 0,
            none did, and every picture goes to the last exit, which certainly loses nothing.
    """

    max_drop: float
    confidence: float
    pictures: int
    lost: int
    gained: int
    p_value: float
    passed: int


def p_value(lost: int, gained: int, pictures: int, max_drop: float) -> float:
    """How likely, at most, is so small a loss on the pictures where the true one is above ``max_drop``; in [0, 1].

    On one picture the loss L is 1 where only the last exit is right, -1 where only the policy is, else 0. A gambler
    bets the share b against "the mean of L is above m": after all pictures he holds
    ``K_b = prod_i (1 + b (m - L_i))`` of what he had. Where b is in (0, 1 / (1 - m)), no factor is negative; where
    the mean of L is above m, each has a mean below 1, so that of their product, the pictures being independent, is
    below 1 too, and so is that of ``K``, the mean of ``K_b`` over a grid of b that is fixed beforehand. By Markov's
    inequality ``K >= 1 / alpha`` has a probability of at most alpha, whence ``p = 1 / K`` (the betting bound of
    arXiv:2010.09686). It holds for any number of pictures, without a limit theorem.

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
        >>> p_value(lost=10, gained=0, pictures=1000, max_drop=0.01)
        1.0
    """
    if min(lost, gained) < 0 or lost + gained > pictures:
        raise InputError(
            f"p_value: got {lost} lost and {gained} gained of {pictures}; accepted: counts >= 0, within all"
        )
    if not 0 <= max_drop < 1:
        raise InputError(f"max_drop: got {max_drop}; accepted: a number in [0, 1)")
    bets = (np.arange(BETS) + 0.5) / BETS / (1 - max_drop)
    logs = (
        lost * np.log1p(bets * (max_drop - 1))
        + float(pictures - lost - gained) * np.log1p(bets * max_drop)
        + gained * np.log1p(bets * (max_drop + 1))
    )
    log_k = float(np.logaddexp.reduce(logs)) - math.log(BETS)
    return min(1.0, math.exp(-log_k)) if log_k > 0 else 1.0


def pictures_needed(max_drop: float, confidence: float) -> int:
    """How many pictures a certificate takes at least: so many that half of them, none lost, would do.

    Raises:
        InputError: ``max_drop`` or ``confidence`` is not in (0, 1).

    Example:
        >>> pictures_needed(max_drop=0.01, confidence=0.95)
        898
    """
    if not 0 < max_drop < 1:
        raise InputError(f"max_drop: got {max_drop}; accepted with a confidence: a number in (0, 1)")
    if not 0 < confidence < 1:
        raise InputError(f"confidence: got {confidence}; accepted: a number in (0, 1), such as 0.95")
    few, enough = 0, 1
    while p_value(0, 0, enough, max_drop) > 1 - confidence:
        few, enough = enough, 2 * enough
    while enough - few > 1:
        middle = (few + enough) // 2
        if p_value(0, 0, middle, max_drop) > 1 - confidence:
            few = middle
        else:
            enough = middle
    return 2 * enough
