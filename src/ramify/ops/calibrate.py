"""Calibration: the thresholds at which a network answers cheaply enough, or well enough, on stored logits.

Of one exit, or of two, the best thresholds are found exactly, all others being held: sums over the sorted confidences
give every choice at once. Only few places need a look. Where a picture leaves earlier, it costs less; so a threshold
is worth stopping at only above a confidence at which some picture is wrong here and would be right deeper.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ramify.errors import InputError
from ramify.ops.certify import Certificate, p_value, pictures_needed
from ramify.ops.policy import Criterion, Policy, check_labelled, confidences, follow, leaving, temperature
from ramify.seeds import generator

Whole = NDArray[np.int64]
Real = NDArray[np.float64]

Cuts = tuple[int, ...]
"""For each exit, at which of its cuts it lets pictures go: -1 is never, a higher one is bolder; the last has 0."""

EXACT = 3
"""Up to how many exits a search finds the best thresholds there are."""
PRICES = 10
"""How many prices of a right answer a search tries."""
COARSE = 256
"""How many cuts of one exit a search over two tries, where it need not be exact."""
BLOCK = 1 << 16
"""How many pairs of cuts are scored at once."""
LADDER = 64
"""How many policies a certificate tries at most."""
BOLDEST = 1.25
"""How much the boldest of them loses on the pictures that chose it, relative to what may be lost."""
SLACK = 1e-9
"""By how much a limit is widened, since sums of floats round: a cost in proportion, a number of answers as it is."""


@dataclass(frozen=True)
class Calibration:
    """A policy, and what it does on the pictures: those given, or with a certificate the half it was tested on.

    Costs are averages over pictures, in the unit they were given in.

    Attributes:
        policy: with the thresholds found.
        max_drop: the accuracy that may be lost against the last exit, where that was the goal.
        max_cost: the cost allowed, where that was the goal.
        pictures: how many the figures below are taken on.
        accuracy: of the policy, in [0, 1].
        last_accuracy: of the last exit, in [0, 1].
        cost: of the policy.
        last_cost: of the last exit.
        exits: for each exit, the share of pictures that leave there.
        bound: no thresholds whatever that keep to the goal on these pictures cost less than this; where the cost was
            limited, none are more accurate. With up to three exits and no certificate, the policy reaches it.
        certificate: where a confidence was asked for.
    """

    policy: Policy
    max_drop: float | None
    max_cost: float | None
    pictures: int
    accuracy: float
    last_accuracy: float
    cost: float
    last_cost: float
    exits: tuple[float, ...]
    bound: float
    certificate: Certificate | None


def calibrate(
    logits: Tensor,
    labels: Tensor,
    costs: Sequence[float],
    *,
    max_drop: float | None = None,
    max_cost: float | None = None,
    criterion: Criterion = "max_probability",
    scale: bool = True,
    confidence: float | None = None,
    seed: int = 0,
) -> Calibration:
    """Find the thresholds of the cheapest policy that is accurate enough, or of the most accurate that is cheap enough.

    Either ``max_drop`` or ``max_cost`` is given. On the pictures themselves the goal is kept, but thresholds fit them
    a little too well: on others the accuracy is lower. ``confidence`` gives a guarantee in its place (learn then
    test, arXiv:2110.01052): half of the pictures, drawn with ``seed``, choose temperatures and a ladder of policies
    from cautious to bold; the other half tests them in this order by :func:`ramify.ops.certify.p_value`, up to the
    first that fails, and the last that passed is the answer. A policy that loses too much is certified only if the
    first such in the order passes, whose probability is at most ``1 - confidence``; no correction for many tests is
    needed.

    With up to three exits the thresholds are the best there are. With more they come from descents over all pairs of
    exits, and ``bound`` tells how much better any could be.

    Args:
        logits: finite, of all exits ``[E, N, C]``, shallowest first.
        labels: int ``[N]`` in [0, C).
        costs: of answering at each exit, rising: MACs, milliseconds.
        max_drop: the accuracy that may be lost against the last exit, in [0, 1); above 0 with a confidence.
        max_cost: the average cost allowed, at least ``costs[0]``. Of equally accurate policies the cheaper is taken.
        criterion: see :func:`ramify.ops.policy.confidences`.
        scale: fit a temperature to each exit first. Patience has no use for one.
        confidence: that not more than ``max_drop`` is lost on other pictures, in (0, 1).
        seed: of the halves; used with a confidence only.

    Raises:
        InputError: none or both of the goals, a number out of range, logits, labels and costs that do not fit each
            other, a cost below the cheapest there is, or too few pictures for the confidence.

    Example:
        >>> labels = torch.arange(100) % 2
        >>> sure = torch.where(torch.arange(100) < 60, 4.0, 1.0)  # the first exit is wrong where it is not sure
        >>> right = torch.nn.functional.one_hot(labels, 2).float()
        >>> logits = torch.stack((sure[:, None] * torch.where(sure[:, None] > 2, right, 1 - right), 9 * right))
        >>> found = calibrate(logits, labels, costs=(1.0, 3.0), max_drop=0.0)
        >>> found.exits, found.cost, found.accuracy
        ((0.6, 0.4), 1.8, 1.0)
    """
    check_labelled(logits, labels)
    _check(len(logits), costs, max_drop, max_cost, confidence)
    logits, labels = logits.detach().cpu(), labels.cpu()
    if max_drop is not None and confidence is not None:
        return _certified(logits, labels, costs, max_drop, criterion, scale, confidence, seed)
    pictures = _prepared(logits, labels, costs, criterion, scale)
    if max_drop is not None:
        goal = _cheapest(pictures.right, max_drop)
    else:
        assert max_cost is not None  # _check saw to it
        goal = _most_accurate(pictures, max_cost)
    found = _measured(_policy(pictures, _search(pictures, goal)), logits, labels, costs, goal)
    found = replace(found, max_drop=max_drop, max_cost=max_cost)
    if len(logits) > EXACT:
        return found
    return replace(found, bound=found.accuracy if max_drop is None else found.cost)


class _Goal(NamedTuple):
    """Sums over pictures: at least ``correct`` right answers at a ``cost`` of at most so much are allowed.

    Of what is allowed, the best has the lowest ``weight * cost - price * right answers``.
    """

    correct: float
    cost: float
    weight: float
    price: float

    def ranks(self, correct: Real, cost: Real) -> tuple[Real, Real, Real]:
        """What the best has least of: how far it is from what is allowed; then the aim; then, of equals, the rest."""
        far = np.maximum(self.correct - correct, 0) + np.maximum(cost - self.cost, 0)
        return far, self.weight * cost - self.price * correct, cost - correct


@dataclass(frozen=True)
class _Pictures:
    """What a search knows of pictures at exits: how sure, float32 ``[E, N]``, and whether right, 0 or 1 ``[E, N]``.

    A picture leaves at exit i from cut ``entry[i]`` on, of ``cuts[i]``.
    """

    criterion: Criterion
    temperatures: tuple[float, ...] | None
    sure: NDArray[np.float32]
    right: Real
    costs: Real
    entry: Whole
    cuts: tuple[int, ...]


def _certified(
    logits: Tensor,
    labels: Tensor,
    costs: Sequence[float],
    max_drop: float,
    criterion: Criterion,
    scale: bool,
    confidence: float,
    seed: int,
) -> Calibration:
    total, needed = len(labels), pictures_needed(max_drop, confidence)
    if total < needed:
        raise InputError(
            f"confidence: got {confidence:g} that at most {max_drop:g} is lost, with {total} pictures; accepted: at "
            f"least {needed} pictures, half of which test what the others chose"
        )
    choosing, testing = torch.randperm(total, generator=generator(seed, "certify")).tensor_split([total // 2])
    ladder = _ladder(_prepared(logits[:, choosing], labels[choosing], costs, criterion, scale), max_drop)
    logits, labels = logits[:, testing], labels[testing]
    sure = confidences(logits, criterion, ladder[0].temperatures)
    right = logits.argmax(dim=-1) == labels
    passed: list[tuple[Policy, Certificate]] = []
    for policy in ladder:
        mine = right.gather(0, leaving(policy, sure)[None])[0]
        lost, gained = int((right[-1] & ~mine).sum()), int((mine & ~right[-1]).sum())
        p = p_value(lost, gained, len(labels), max_drop)
        if p > 1 - confidence:
            break
        certificate = Certificate(max_drop, confidence, len(labels), lost, gained, p, passed=len(passed))
        passed.append((policy, certificate))
    policy, certificate = passed[-1]  # the first of the ladder loses nothing, and passes with so many pictures
    found = _measured(policy, logits, labels, costs, _cheapest(right.double().numpy(), max_drop))
    return replace(found, max_drop=max_drop, certificate=certificate)


def _check(
    exits: int, costs: Sequence[float], max_drop: float | None, max_cost: float | None, confidence: float | None
) -> None:
    if (max_drop is None) == (max_cost is None):
        raise InputError(
            f"max_drop and max_cost: got {'neither' if max_drop is None else 'both'}; accepted: one of them"
        )
    if max_drop is not None and not 0 <= max_drop < 1:
        raise InputError(f"max_drop: got {max_drop}; accepted: a number in [0, 1)")
    if confidence is not None and max_drop is None:
        raise InputError(f"confidence: got {confidence} with max_cost; accepted: with max_drop only")
    if len(costs) != exits:
        raise InputError(f"costs: got {len(costs)}; accepted: {exits}, one for each exit of logits")
    rising = all(low < high for low, high in itertools.pairwise(costs))
    if not rising or not 0 < costs[0] <= costs[-1] < math.inf:
        raise InputError(f"costs: got {', '.join(f'{cost:g}' for cost in costs)}; accepted: rising numbers > 0")


def _measured(policy: Policy, logits: Tensor, labels: Tensor, costs: Sequence[float], goal: _Goal) -> Calibration:
    """What a policy does on pictures, as yet without its goal and certificate."""
    answers = follow(policy, logits)
    right = (logits.argmax(dim=-1) == labels).double().numpy()
    left = answers.exits.bincount(minlength=len(logits)).tolist()
    total = len(labels)
    return Calibration(
        policy,
        max_drop=None,
        max_cost=None,
        pictures=total,
        accuracy=int((answers.classes == labels).sum()) / total,
        last_accuracy=int(right[-1].sum()) / total,
        cost=sum(number * cost for number, cost in zip(left, costs, strict=True)) / total,
        last_cost=float(costs[-1]),
        exits=tuple(number / total for number in left),
        bound=_bound(right, np.array(costs, dtype=np.float64), goal),
        certificate=None,
    )


def _cheapest(right: Real, max_drop: float) -> _Goal:
    lowest = math.ceil(right[-1].sum() - max_drop * right.shape[1] - SLACK)
    return _Goal(correct=lowest, cost=math.inf, weight=1, price=0)


def _most_accurate(pictures: _Pictures, max_cost: float) -> _Goal:
    least, total = float(pictures.costs[0]), pictures.right.shape[1]
    if not max_cost >= least:
        raise InputError(
            f"max_cost: got {max_cost:g}; accepted: at least {least:g}, at which every picture leaves at the first "
            f"exit and {pictures.right[0].mean():.2%} of the answers are right"
        )
    return _Goal(correct=-math.inf, cost=max_cost * total * (1 + SLACK), weight=0, price=1)


def _bound(right: Real, costs: Real, goal: _Goal) -> float:
    """The lowest average cost, or the highest accuracy, if each picture could choose its exit on its own.

    All leave at the first exit, but for those that are first right at a deeper one: they cost more and are one right
    answer each, so that taking the cheapest first is best.
    """
    total = right.shape[1]
    first = right.argmax(axis=0)
    extra = np.sort((costs[first] - costs[0])[first > 0])
    if goal.price == 0:
        missing = max(0, round(goal.correct - right[0].sum()))
        return float(costs[0] + extra[:missing].sum() / total)
    affordable = np.searchsorted(extra.cumsum(), goal.cost - total * costs[0], side="right")
    return float((right[0].sum() + affordable) / total)


def _prepared(logits: Tensor, labels: Tensor, costs: Sequence[float], criterion: Criterion, scale: bool) -> _Pictures:
    fitting = scale and criterion != "patience"
    temperatures = tuple(temperature(each, labels) for each in logits) if fitting else None
    sure = confidences(logits, criterion, temperatures).numpy()
    right = logits.argmax(dim=-1) == labels
    right_deeper = right.flip(0).cummax(dim=0).values.flip(0)
    entry = np.zeros(right.shape, dtype=np.int64)
    cuts = [1] * len(right)
    for i in range(len(right) - 1):
        # One cut just above each confidence at which a right answer may be lost, and one below all.
        risky = np.unique(sure[i][(~right[i] & right_deeper[i + 1]).numpy()])
        entry[i] = len(risky) - np.searchsorted(risky, sure[i])
        cuts[i] = len(risky) + 1
    return _Pictures(
        criterion, temperatures, sure, right.double().numpy(), np.array(costs, dtype=np.float64), entry, tuple(cuts)
    )


def _ends(pictures: _Pictures, cuts: Sequence[int]) -> Whole:
    """At which exit each picture leaves."""
    ends: Whole = (pictures.entry > np.array(cuts)[:, None]).argmin(axis=0)
    return ends


def _policy(pictures: _Pictures, cuts: Cuts, share: float = 1.0) -> Policy:
    """The thresholds of ``cuts``; or of those who leave at an exit, only the most sure ``share`` are let go there.

    A threshold lies midway between the confidences it parts, so that a rounding on another batch size flips nothing.
    """
    ends = _ends(pictures, cuts)
    thresholds: list[float | None] = []
    for i, sure in enumerate(pictures.sure[:-1]):
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
    return Policy(tuple(thresholds), pictures.criterion, pictures.temperatures)


def _ladder(pictures: _Pictures, max_drop: float) -> list[Policy]:
    """Policies from cautious to bold, ever cheaper; the first has every picture answered by the last exit.

    They are one policy that is a little too bold, of which rising shares are let go. This fits the pictures less
    than thresholds that are searched anew for each rung do, and loses less on others at the same cost.
    """
    if pictures.criterion == "patience":  # its confidences are too few to part by shares
        drops = np.linspace(0, BOLDEST * max_drop, LADDER // 4)
        rungs = [_search(pictures, _cheapest(pictures.right, drop)) for drop in drops]
        rungs.sort(key=lambda cuts: -_score(pictures, cuts)[1])
        policies = [_policy(pictures, cuts) for cuts in rungs]
    else:
        bold = _search(pictures, _cheapest(pictures.right, BOLDEST * max_drop))
        policies = [_policy(pictures, bold, share) for share in np.linspace(0, 1, LADDER)]
    policies.insert(0, _policy(pictures, _never(pictures)))
    return [policy for policy, _ in itertools.groupby(policies)]


def _search(pictures: _Pictures, goal: _Goal) -> Cuts:
    """The best cuts found; with up to :data:`EXACT` exits, the best there are."""
    last = len(pictures.right) - 1
    if last < EXACT:
        return _descended(pictures, goal, _never(pictures), [(0, 1)][:last])
    pairs = [(i, j) for i in range(last) for j in range(i + 1, last + 1)]
    found = [_descended(pictures, goal, start, pairs) for start in _starts(pictures, goal)]
    return min(found, key=lambda cuts: _rank(pictures, goal, cuts))


def _starts(pictures: _Pictures, goal: _Goal) -> list[Cuts]:
    """Cuts on either side of the limit: the best known at a price of a right answer, which is bisected.

    At a price no exit uses up what the others need, as each would in a search that has a limit.
    """
    last = len(pictures.right) - 1
    lines = [(i, last) for i in range(last)]
    low, high = 0.01, float(pictures.right.shape[1])
    cuts = _never(pictures)
    sides = {False: cuts}
    for _ in range(PRICES):
        price = math.sqrt(low * high)
        at_price = _Goal(-math.inf, math.inf, 1, price * (pictures.costs[-1] - pictures.costs[0]))
        cuts = _descended(pictures, at_price, cuts, lines)
        correct, cost = _score(pictures, cuts)
        bold = correct < goal.correct or (goal.price > 0 and cost <= goal.cost)
        low, high = (price, high) if bold else (low, price)
        sides[bold] = cuts
    return list(sides.values())


def _descended(pictures: _Pictures, goal: _Goal, cuts: Cuts, pairs: Sequence[tuple[int, int]]) -> Cuts:
    """``cuts`` after the best of each pair of exits were taken in turn, until none of them is better."""
    rank = _rank(pictures, goal, cuts)
    since = turn = 0
    while since < len(pairs):
        i, j = pairs[turn % len(pairs)]
        tried = list(cuts)
        tried[i], tried[j] = _scan(pictures, goal, cuts, i, j)
        found = _rank(pictures, goal, tried)
        since = 1 if found < rank else since + 1
        cuts, rank = (tuple(tried), found) if found < rank else (cuts, rank)
        turn += 1
    return cuts


def _scan(pictures: _Pictures, goal: _Goal, cuts: Cuts, i: int, j: int) -> tuple[int, int]:
    """The best cuts of exits i < j, the others held. With the last exit for j, it is that of one exit.

    Sums over pictures are counted from those at which neither i nor j lets any go: what is gained at i by the pictures
    that reach it and leave, and at j by those that stay at i, reach j and leave there. The second is a table over both
    cuts, of which a block of rows is held at a time, the boldest first.
    """
    right, costs, last = pictures.right, pictures.costs, len(pictures.right) - 1
    exact = last < EXACT or j == last
    tried_i, tried_j = (_tried(pictures.cuts[at], cuts[at], exact) for at in (i, j))
    shape = len(tried_i), len(tried_j)
    ends = _ends(pictures, [-1 if at in (i, j) and at < last else cut for at, cut in enumerate(cuts)])
    row = np.searchsorted(tried_i, pictures.entry[i])
    column = np.searchsorted(tried_j, pictures.entry[j])
    at_i, at_j = ends >= i, ends > j

    def totals(now: Real, leaving_i: Real, leaving_j: Real) -> Iterator[Real]:
        alone = np.bincount(row[at_i], (leaving_i - now)[at_i], shape[0] + 1)[: shape[0], None].cumsum(axis=0)
        for rows, table in _tables(row[at_j], column[at_j], (leaving_j - now)[at_j], shape):
            yield now.sum() + alone[rows] + table

    found = []
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
        found.append((tuple(float(rank[at]) for rank in ranks), int(tried_i[bottom + y]), int(tried_j[x])))
    _, cut_i, cut_j = min(found)
    return cut_i, cut_j


def _tables(row: Whole, column: Whole, gain: Real, shape: tuple[int, int]) -> Iterator[tuple[slice, Real]]:
    """At ``[a, b]`` the sum of ``gain`` where ``row > a`` and ``column <= b``: blocks of rows, the last first."""
    rows, columns = shape
    height = max(1, BLOCK // columns)
    carried = np.zeros(columns + 1)
    for stop in range(rows, 0, -height):
        start = max(0, stop - height)
        here = (row > start) & (row <= stop)
        place = (row[here] - start - 1) * (columns + 1) + column[here]
        table = np.zeros((stop - start, columns + 1))
        table += np.bincount(place, gain[here], table.size).reshape(table.shape)
        table[-1] += carried
        table = table[::-1].cumsum(axis=0)[::-1]
        carried = table[0]
        yield slice(start, stop), table[:, :-1].cumsum(axis=1)


def _tried(cuts: int, now: int, exact: bool) -> Whole:
    if exact or cuts <= COARSE:
        return np.arange(cuts)
    return np.unique(np.append(np.linspace(0, cuts - 1, COARSE).astype(np.int64), max(now, 0)))


def _least(ranks: tuple[Real, ...]) -> int:
    """The position of the lowest by the first rank, of equals by the second, and so on."""
    left = np.flatnonzero(ranks[0] <= ranks[0].min())
    for rank in ranks[1:]:
        left = left[rank[left] <= rank[left].min()]
    return int(left[0])


def _score(pictures: _Pictures, cuts: Sequence[int]) -> tuple[float, float]:
    """Right answers, and cost, summed over the pictures in an order that does not change."""
    ends = _ends(pictures, cuts)
    left = np.bincount(ends, minlength=len(pictures.costs))
    return float(np.take_along_axis(pictures.right, ends[None], 0).sum()), float(left @ pictures.costs)


def _rank(pictures: _Pictures, goal: _Goal, cuts: Sequence[int]) -> tuple[float, ...]:
    correct, cost = _score(pictures, cuts)
    return tuple(float(rank[0]) for rank in goal.ranks(np.array([correct]), np.array([cost])))


def _never(pictures: _Pictures) -> Cuts:
    return (-1,) * (len(pictures.costs) - 1) + (0,)
