"""The best thresholds of a policy on pictures whose confidences are known, as a search over cuts.

The best thresholds of one or two exits are exact, the others held: sums over the sorted confidences give every choice
at once. A picture that leaves earlier costs less, so a threshold need only be tried just above a confidence at which
some picture is wrong here and would be right deeper.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ramify.errors import InputError

_Whole = NDArray[np.int64]
Real = NDArray[np.float64]

Cuts = tuple[int, ...]
"""For each exit the cut from which pictures leave: -1 is never, a higher one is bolder; the last exit has 0."""

EXACT = 3
"""Up to how many exits a search finds the best thresholds there are."""
PRICES = 10
"""How many prices of a right answer a search tries."""
COARSE = 256
"""How many cuts of one exit a search over two tries, where it need not be exact."""
BLOCK = 1 << 16
"""How many pairs of cuts are scored at once."""
SLACK = 1e-9
"""By how much a limit is widened, since sums of floats round: relative for a cost, absolute for right answers."""


class Goal(NamedTuple):
    """The lowest ``weight * cost - price * correct``, with at least ``correct`` right answers and at most ``cost``.

    Both are sums over pictures.
    """

    correct: float
    cost: float
    weight: float
    price: float

    def ranks(self, correct: Real, cost: Real) -> tuple[Real, Real, Real]:
        """Lower is better: the distance from what is allowed, then the aim, then, of equals, cost and right answers."""
        far = np.maximum(self.correct - correct, 0) + np.maximum(cost - self.cost, 0)
        return far, self.weight * cost - self.price * correct, cost - correct


@dataclass(frozen=True)
class ExitOutcomes:
    """Confidence, float32 ``[E, N]``, and correctness, 0 or 1 ``[E, N]``, of each picture at each exit.

    A picture leaves at exit i from cut ``entry[i]`` on, of ``cuts[i]``.
    """

    sure: NDArray[np.float32]
    right: Real
    costs: Real
    entry: _Whole
    cuts: tuple[int, ...]

    @property
    def total(self) -> int:
        """How many there are."""
        return int(self.right.shape[1])

    def ends(self, cuts: Sequence[int]) -> _Whole:
        """At which exit each picture leaves."""
        ends: _Whole = (self.entry > np.array(cuts)[:, None]).argmin(axis=0)
        return ends

    def score(self, cuts: Sequence[int]) -> tuple[float, float]:
        """Right answers, and cost, summed over the pictures in an order that does not change."""
        ends = self.ends(cuts)
        left = np.bincount(ends, minlength=len(self.costs))
        return float(np.take_along_axis(self.right, ends[None], 0).sum()), float(left @ self.costs)

    def rank(self, goal: Goal, cuts: Sequence[int]) -> tuple[float, ...]:
        """:meth:`Goal.ranks` of ``cuts``."""
        correct, cost = self.score(cuts)
        return tuple(float(rank[0]) for rank in goal.ranks(np.array([correct]), np.array([cost])))

    def thresholds(self, cuts: Cuts, share: float = 1.0) -> tuple[float | None, ...]:
        """The thresholds of ``cuts``, or those that let only the most sure ``share`` of them leave at each exit.

        A threshold lies midway between two confidences, so that rounding in another batch size changes nothing.
        """
        ends = self.ends(cuts)
        thresholds: list[float | None] = []
        for i, sure in enumerate(self.sure[:-1]):
            reaching = np.sort(sure[ends >= i])[::-1]
            going = int(share * np.count_nonzero(ends == i) + SLACK)
            if going == len(reaching):
                thresholds.append(0.0)
            elif going == 0:
                thresholds.append(None)
            else:
                high, low = reaching[going - 1 : going + 1]
                middle = low + (high - low) / 2
                thresholds.append(float(middle if middle > low else high))
        return tuple(thresholds)


def exit_outcomes(sure: Tensor, right: Tensor, costs: Sequence[float]) -> ExitOutcomes:
    """The outcomes of exits with confidence ``sure`` float32 and correctness ``right`` bool, both ``[E, N]``."""
    deeper = right.flip(0).cummax(dim=0).values.flip(0)
    entry = np.zeros(right.shape, dtype=np.int64)
    cuts = [1] * len(right)
    confidence = sure.numpy()
    for i in range(len(right) - 1):
        # One cut just above each confidence at which a right answer may be lost, and one below all.
        risky = np.unique(confidence[i][(~right[i] & deeper[i + 1]).numpy()])
        entry[i] = len(risky) - np.searchsorted(risky, confidence[i])
        cuts[i] = len(risky) + 1
    return ExitOutcomes(confidence, right.double().numpy(), np.array(costs, dtype=np.float64), entry, tuple(cuts))


def cheapest(reference: float, max_drop: float, total: int) -> Goal:
    """The least cost at which of ``total`` pictures at most ``max_drop`` fewer are right than ``reference`` are."""
    lowest = math.ceil(reference - max_drop * total - SLACK)
    return Goal(correct=lowest, cost=math.inf, weight=1, price=0)


def most_accurate(pictures: ExitOutcomes, max_cost: float = math.inf) -> Goal:
    """The most right answers at an average cost of at most ``max_cost``."""
    least, total = float(pictures.costs[0]), pictures.total
    if not max_cost >= least:
        raise InputError(
            f"max_cost: got {max_cost:g}; accepted: at least {least:g}, at which every picture leaves at the first "
            f"exit and {pictures.right[0].mean():.2%} of the answers are right"
        )
    return Goal(correct=-math.inf, cost=max_cost * total * (1 + SLACK), weight=0, price=1)


def bound(right: Real, costs: Real, goal: Goal) -> float:
    """The lowest average cost, or the highest accuracy, if each picture could choose its exit on its own.

    All leave at the first exit, but for the cheapest of those that are first right at a deeper one.
    """
    total = right.shape[1]
    first = right.argmax(axis=0)
    extra = np.sort((costs[first] - costs[0])[first > 0])
    if goal.price == 0:
        missing = max(0, round(goal.correct - right[0].sum()))
        return float(costs[0] + extra[:missing].sum() / total)
    affordable = np.searchsorted(extra.cumsum(), goal.cost - total * costs[0], side="right")
    return float((right[0].sum() + affordable) / total)


def search(pictures: ExitOutcomes, goal: Goal) -> Cuts:
    """Good cuts; with up to :data:`EXACT` exits, optimal ones."""
    last = len(pictures.right) - 1
    if last < EXACT:
        return _descended(pictures, goal, (*(-1,) * last, 0), [(0, 1)][:last])
    pairs = [(i, j) for i in range(last) for j in range(i + 1, last + 1)]
    results = [_descended(pictures, goal, start, pairs) for start in _starts(pictures, goal)]
    return min(results, key=lambda cuts: pictures.rank(goal, cuts))


def _starts(pictures: ExitOutcomes, goal: Goal) -> list[Cuts]:
    """Cuts on either side of the limit, by bisecting the price of a right answer.

    With a price in place of the limit, no exit uses up what the others need.
    """
    last = len(pictures.right) - 1
    lines = [(i, last) for i in range(last)]
    low, high = 0.01, float(pictures.right.shape[1])
    cuts: Cuts = (*(-1,) * last, 0)
    sides = {False: cuts}
    for _ in range(PRICES):
        price = math.sqrt(low * high)
        at_price = Goal(-math.inf, math.inf, 1, price * (pictures.costs[-1] - pictures.costs[0]))
        cuts = _descended(pictures, at_price, cuts, lines)
        correct, cost = pictures.score(cuts)
        bold = correct < goal.correct or (goal.price > 0 and cost <= goal.cost)
        low, high = (price, high) if bold else (low, price)
        sides[bold] = cuts
    return list(sides.values())


def _descended(pictures: ExitOutcomes, goal: Goal, cuts: Cuts, pairs: Sequence[tuple[int, int]]) -> Cuts:
    """``cuts`` after coordinate descent over ``pairs`` of exits, until no pair improves."""
    rank = pictures.rank(goal, cuts)
    since = turn = 0
    while since < len(pairs):
        i, j = pairs[turn % len(pairs)]
        tried = list(cuts)
        tried[i], tried[j] = _scan(pictures, goal, cuts, i, j)
        tried_rank = pictures.rank(goal, tried)
        since = 1 if tried_rank < rank else since + 1
        cuts, rank = (tuple(tried), tried_rank) if tried_rank < rank else (cuts, rank)
        turn += 1
    return cuts


def _scan(pictures: ExitOutcomes, goal: Goal, cuts: Cuts, i: int, j: int) -> tuple[int, int]:
    """The best cuts of exits i < j, the others held; with the last exit for j, the best cut of i alone.

    Sums over pictures are those where nobody leaves at i or j, plus what changes for the pictures that leave at i, plus
    what changes for those that pass i and leave at j. The last is a table over both cuts, held in blocks of rows, the
    boldest first.
    """
    right, costs, last = pictures.right, pictures.costs, len(pictures.right) - 1
    exact = last < EXACT or j == last
    tried_i, tried_j = (_tried(pictures.cuts[at], cuts[at], exact) for at in (i, j))
    shape = len(tried_i), len(tried_j)
    ends = pictures.ends([-1 if at in (i, j) and at < last else cut for at, cut in enumerate(cuts)])
    row = np.searchsorted(tried_i, pictures.entry[i])
    column = np.searchsorted(tried_j, pictures.entry[j])
    at_i, at_j = ends >= i, ends > j

    def totals(staying: Real, leaving_i: Real, leaving_j: Real) -> Iterator[Real]:
        alone = np.bincount(row[at_i], (leaving_i - staying)[at_i], shape[0] + 1)[: shape[0], None].cumsum(axis=0)
        for rows, table in _tables(row[at_j], column[at_j], (leaving_j - staying)[at_j], shape):
            yield staying.sum() + alone[rows] + table

    blocks = []
    bottom = shape[0]
    for correct, cost in zip(
        totals(np.take_along_axis(right, ends[None], 0)[0], right[i], right[j]),
        totals(costs[ends], np.full(len(ends), costs[i]), np.full(len(ends), costs[j])),
        strict=True,
    ):
        bottom -= len(correct)
        ranks = goal.ranks(correct.ravel(), cost.ravel())
        at = _least(ranks)
        y, x = divmod(at, shape[1])
        blocks.append((tuple(float(rank[at]) for rank in ranks), int(tried_i[bottom + y]), int(tried_j[x])))
    _, cut_i, cut_j = min(blocks)
    return cut_i, cut_j


def _tables(row: _Whole, column: _Whole, gain: Real, shape: tuple[int, int]) -> Iterator[tuple[slice, Real]]:
    """Blocks of rows, the last first, of the sums at ``[a, b]`` of ``gain`` where ``row > a`` and ``column <= b``."""
    rows, columns = shape
    height = max(1, BLOCK // columns)
    carried = np.zeros(columns + 1)
    for stop in range(rows, 0, -height):
        start = max(0, stop - height)
        inside = (row > start) & (row <= stop)
        place = (row[inside] - start - 1) * (columns + 1) + column[inside]
        table = np.zeros((stop - start, columns + 1))  # bincount of no pictures has integers
        table += np.bincount(place, gain[inside], table.size).reshape(table.shape)
        table[-1] += carried
        table = table[::-1].cumsum(axis=0)[::-1]
        carried = table[0]
        yield slice(start, stop), table[:, :-1].cumsum(axis=1)


def _tried(cuts: int, current: int, exact: bool) -> _Whole:
    if exact or cuts <= COARSE:
        return np.arange(cuts)
    return np.unique(np.append(np.linspace(0, cuts - 1, COARSE).astype(np.int64), max(current, 0)))


def _least(ranks: tuple[Real, ...]) -> int:
    """The position of the lowest by the first rank, of equals by the second, and so on; faster than a sort."""
    left = np.flatnonzero(ranks[0] <= ranks[0].min())
    for rank in ranks[1:]:
        left = left[rank[left] <= rank[left].min()]
    return int(left[0])
