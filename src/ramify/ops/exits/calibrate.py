"""Calibration: the thresholds at which a network answers cheaply enough, or well enough, on stored logits.

What may be lost is counted from the best answer that there is: an exit may be worse than the one before it.
"""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from ramify.errors import InputError
from ramify.ops.exits.certify import Certificate, p_value, pictures_needed
from ramify.ops.exits.fit import check_labelled, crossed, mixture, scores, temperature
from ramify.ops.exits.policy import CRITERIA, Combine, Fallback, Policy, answers, criterion_problems, leaving
from ramify.ops.exits.thresholds import (
    EXACT,
    ExitOutcomes,
    Goal,
    bound,
    cheapest,
    most_accurate,
    of_pictures,
    score,
    search,
    thresholds_of,
)
from ramify.seeds import generator

LADDER = 64
"""How many policies a certificate tries at most."""
BOLDEST = 1.25
"""How much the boldest of them loses on the pictures that chose it, relative to what may be lost."""
AGAINST = re.compile(r"best|last|exit:[1-9][0-9]*")
"""What a drop may be measured against."""


@dataclass(frozen=True)
class Calibration:
    """A policy, and what it does on the pictures: those given, or with a certificate the half it was tested on.

    Costs are averages over pictures, in the unit they were given in. Under a learned criterion, without a certificate,
    the figures are those of cross-fitted scores (:func:`ramify.ops.exits.fit.crossed`).

    Attributes:
        policy: with the thresholds found.
        max_drop: the accuracy that may be lost against the ``reference``, where that was the goal.
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
        reference: what the drop is measured against, in words: ``exit 2 alone``.
        reference_accuracy: of that, in [0, 1]; None in what an earlier version kept.
        alone: the accuracy of each exit alone; empty in what an earlier version kept.
        costs: of answering at each exit; empty likewise.
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
    reference: str = "the last exit"
    reference_accuracy: float | None = None
    alone: tuple[float, ...] = ()
    costs: tuple[float, ...] = ()

    @property
    def cut(self) -> int | None:
        """The exit, from 1, at which the network may end: alone as accurate as the policy and no dearer; None: none.

        The last exit is none, as there is nothing to cut.
        """
        good = [
            (-accuracy, at)
            for at, (accuracy, cost) in enumerate(zip(self.alone[:-1], self.costs, strict=False), start=1)
            if accuracy >= self.accuracy and cost <= self.cost * (1 + 1e-9)
        ]
        return min(good)[1] if good else None


@dataclass(frozen=True)
class _Candidate:
    """One way to combine answers: the policy but for its thresholds, and what a search knows of the pictures."""

    rule: Policy
    pictures: ExitOutcomes


@dataclass(frozen=True)
class _Reference:
    """What a drop is measured against: ``right`` answers, by exit ``at`` of ``rule``, or a policy of ``candidate``."""

    words: str
    right: float
    candidate: _Candidate
    rule: Policy
    at: int | None


def calibrate(
    logits: Tensor,
    labels: Tensor,
    costs: Sequence[float],
    *,
    max_drop: float | None = None,
    max_cost: float | None = None,
    criterion: str = "max_probability",
    scale: bool = True,
    confidence: float | None = None,
    seed: int = 0,
    against: str = "best",
    combine: Combine | None = None,
    fallback: Fallback = "last",
    survivors: bool = False,
) -> Calibration:
    """Find the thresholds of the cheapest policy that is accurate enough, or of the most accurate that is cheap enough.

    Either ``max_drop`` or ``max_cost`` is given. On the pictures themselves the goal is kept, but thresholds fit them
    a little too well: on others the accuracy is lower. ``confidence`` gives a guarantee in its place (learn then
    test, arXiv:2110.01052): half of the pictures, drawn with ``seed``, choose the reference, what is fitted and a
    ladder of policies from cautious to bold; the other half tests them in this order by
    :func:`ramify.ops.exits.certify.p_value`, up to the first that fails, and the last that passed is the answer. A
    policy that loses too much is certified only if the first such in the order passes, whose probability is at most
    ``1 - confidence``; no correction for many tests is needed.

    With up to three exits the thresholds are the best there are. With more they come from descents over all pairs of
    exits, and ``bound`` says how much better any could be.

    Args:
        logits: finite, of all exits ``[E, N, C]``, shallowest first.
        labels: int ``[N]`` in [0, C).
        costs: of answering at each exit, rising: MACs, milliseconds.
        max_drop: the accuracy that may be lost against the reference, in [0, 1); above 0 with a confidence.
        max_cost: the average cost allowed, at least ``costs[0]``. Of equally accurate policies the cheaper is taken.
        criterion: a name in :data:`ramify.ops.exits.policy.CRITERIA`.
        scale: fit a temperature to each exit first, where the criterion has a use for it.
        confidence: that not more than ``max_drop`` is lost on other pictures, in (0, 1).
        seed: of the halves of a certificate, and of the parts of cross-fitting.
        against: the reference. ``best``: the most accurate of each exit alone, the average over the exits up to each
            (where ``combine`` allows it) and, without a confidence, the policy without a limit. ``last``: the last
            exit. ``exit:K``: exit K alone, from 1.
        combine: see :class:`ramify.ops.exits.policy.Policy`; None: whichever serves the goal best.
        fallback: likewise.
        survivors: fit the score of a learned criterion at each exit on the pictures that come so far: once on all,
            and again on those that a first search lets through.

    Raises:
        InputError: none or both of the goals, a number out of range, logits, labels and costs that do not fit each
            other, a cost below the cheapest there is, a drop that no thresholds keep to, or too few pictures for the
            confidence.

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
    _check_names(len(logits), criterion, against, combine)
    fits = _Fits(criterion, scale, combine, fallback, survivors, seed)
    logits, labels = logits.detach().cpu(), labels.cpu()
    if max_drop is not None and confidence is not None:
        return _certified(logits, labels, costs, max_drop, fits, against, confidence)
    candidates = fits.candidates(logits, labels, costs)
    reference = _reference(candidates, logits, labels, against, unlimited=max_drop is not None)
    tried: list[tuple[tuple[float, float, float], Calibration]] = []
    for each in candidates:
        goal = _goal(each.pictures, reference, max_drop, max_cost)
        cuts = search(each.pictures, goal)
        correct, cost = score(each.pictures, cuts)
        rank = tuple(float(value[0]) for value in goal.ranks(np.array([correct]), np.array([cost])))
        policy = replace(each.rule, thresholds=thresholds_of(each.pictures, cuts))
        found = _measured(policy, each.pictures, goal, reference)
        if len(logits) <= EXACT:
            found = replace(found, bound=found.accuracy if max_drop is None else found.cost)
        tried.append(((rank[0], rank[1], rank[2]), found))
    (missing, *_), found = min(tried, key=lambda each: each[0])
    if missing > 0 and max_drop is not None:
        least = (reference.right - max(score(each.pictures, _best(each))[0] for each in candidates)) / len(labels)
        raise InputError(
            f"max_drop: got {max_drop:g} against {reference.words}; accepted: at least {least:.4g}, the least that any "
            "thresholds lose"
        )
    return replace(_alone(found, logits, labels), max_drop=max_drop, max_cost=max_cost)


@dataclass(frozen=True)
class _Fits:
    """How a policy is fitted before its thresholds are searched: the arguments of :func:`calibrate`."""

    criterion: str
    scale: bool
    combine: Combine | None
    fallback: Fallback
    survivors: bool
    seed: int

    def candidates(self, logits: Tensor, labels: Tensor, costs: Sequence[float]) -> list[_Candidate]:
        """For each way to combine answers; the plain one first, which is taken where others are no better."""
        about = CRITERIA[self.criterion]
        fitting = self.scale and about.scaled
        temperatures = tuple(temperature(each, labels) for each in logits) if fitting else None
        ways: tuple[Combine, ...] = get_args(Combine) if self.combine is None else (self.combine,)
        found: list[_Candidate] = []
        for way in ways:
            weights = mixture(logits, labels, temperatures) if way == "weighted" else None
            base = Policy((None,) * (len(logits) - 1), "max_probability", temperatures, way, weights)
            base = replace(base, fallback=self.fallback)
            found.append(self._fitted(base, logits, labels, costs))
        return found

    def _fitted(self, base: Policy, logits: Tensor, labels: Tensor, costs: Sequence[float]) -> _Candidate:
        if CRITERIA[self.criterion].targets is None:
            rule = replace(base, criterion=self.criterion)
            classes, sure = answers(rule, logits)
            return _Candidate(rule, of_pictures(sure, classes == labels, costs))
        reached = None
        for last in (False, True) if self.survivors else (True,):
            coefficients = scores(base, self.criterion, logits, labels, reached)
            rule = replace(base, criterion=self.criterion, coefficients=coefficients)
            sure = crossed(base, self.criterion, logits, labels, self.seed, reached)
            pictures = of_pictures(sure, answers(rule, logits)[0] == labels, costs)
            if not last:
                goal = cheapest(float(pictures.right.sum(axis=1).max()), 0.0, pictures.total)
                first = replace(rule, thresholds=thresholds_of(pictures, search(pictures, goal)))
                left = leaving(first, sure)
                reached = (left >= torch.arange(len(logits))[:, None]).float()
        return _Candidate(rule, pictures)


def _best(candidate: _Candidate) -> tuple[int, ...]:
    return search(candidate.pictures, most_accurate(candidate.pictures))


def _reference(
    candidates: Sequence[_Candidate], logits: Tensor, labels: Tensor, against: str, unlimited: bool
) -> _Reference:
    """What a drop is measured against, see :func:`calibrate`; of equals the cheapest exit, the plainest way."""
    exits, first = len(logits), candidates[0]
    plain = Policy((None,) * (exits - 1))
    alone = (logits.argmax(dim=-1) == labels).sum(dim=1).tolist()
    found = [_Reference(_words(plain, at), float(right), first, plain, at) for at, right in enumerate(alone)]
    if against == "last":
        return found[-1]
    if against != "best":
        return found[int(against.removeprefix("exit:")) - 1]
    for each in candidates:
        if each.rule.combine != "last":
            sums = each.pictures.right.sum(axis=1).tolist()
            found += [_Reference(_words(each.rule, at), right, each, each.rule, at) for at, right in enumerate(sums)]
        if unlimited:
            correct = score(each.pictures, _best(each))[0]
            found.append(_Reference("the policy without a limit", correct, each, each.rule, None))
    return max(found, key=lambda each: each.right)


def _words(rule: Policy, at: int) -> str:
    if rule.combine != "last" and at > 0:
        return f"the {'weighted ' if rule.combine == 'weighted' else ''}average of exits 1 to {at + 1}"
    return "the last exit" if at + 1 == rule.exits else f"exit {at + 1} alone"


def _alone(found: Calibration, logits: Tensor, labels: Tensor) -> Calibration:
    """With what each exit does on its own, neither averaged nor with a fallback."""
    alone = tuple((logits.argmax(dim=-1) == labels).double().mean(dim=1).tolist())
    return replace(found, alone=alone, last_accuracy=alone[-1])


def _goal(pictures: ExitOutcomes, reference: _Reference, max_drop: float | None, max_cost: float | None) -> Goal:
    if max_drop is not None:
        return cheapest(reference.right, max_drop, pictures.total)
    assert max_cost is not None  # _check saw to it
    return most_accurate(pictures, max_cost)


def _certified(
    logits: Tensor,
    labels: Tensor,
    costs: Sequence[float],
    max_drop: float,
    fits: _Fits,
    against: str,
    confidence: float,
) -> Calibration:
    total, needed = len(labels), pictures_needed(max_drop, confidence)
    if total < needed:
        raise InputError(
            f"confidence: got {confidence:g} that at most {max_drop:g} is lost, with {total} pictures; accepted: at "
            f"least {needed} pictures, half of which test what the others chose"
        )
    choosing, testing = torch.randperm(total, generator=generator(fits.seed, "certify")).tensor_split([total // 2])
    logits, labels, chosen, known = logits[:, testing], labels[testing], logits[:, choosing], labels[choosing]
    reference = _reference(fits.candidates(chosen, known, costs), chosen, known, against, unlimited=False)
    assert reference.at is not None
    ladder = _ladder(reference.candidate, reference.at, max_drop)
    classes, sure = answers(ladder[0], logits)
    right = classes == labels
    theirs = answers(reference.rule, logits)[0][reference.at] == labels
    stay = replace(reference.rule, thresholds=_ending((None,) * reference.at, len(costs)))
    passed = [(stay, Certificate(max_drop, confidence, len(labels), 0, 0, p_value(0, 0, len(labels), max_drop), 0))]
    for policy in ladder:
        mine = right.gather(0, leaving(policy, sure)[None])[0]
        lost, gained = int((theirs & ~mine).sum()), int((mine & ~theirs).sum())
        p = p_value(lost, gained, len(labels), max_drop)
        if p > 1 - confidence:
            break
        if policy.thresholds != stay.thresholds:
            passed.append((policy, Certificate(max_drop, confidence, len(labels), lost, gained, p, len(passed))))
    policy, certificate = passed[-1]
    classes, sure = answers(policy, logits)
    tested = of_pictures(sure, classes == labels, costs)
    reference = replace(reference, right=float(theirs.sum()))
    found = _measured(policy, tested, cheapest(reference.right, max_drop, tested.total), reference)
    certificate = replace(certificate, reference=reference.words)
    return replace(_alone(found, logits, labels), max_drop=max_drop, certificate=certificate)


def _ladder(candidate: _Candidate, at: int, max_drop: float) -> list[Policy]:
    """Policies from cautious to bold, ever cheaper; by the first, exit ``at`` answers every picture.

    They are one policy that is a little too bold, of which rising shares are let go. This fits the pictures less
    than thresholds that are searched again for each rung do, and loses less on others at the same cost. All end at
    exit ``at``, which is the reference.
    """
    whole = candidate.pictures
    sure, right = torch.from_numpy(whole.sure[: at + 1]), torch.from_numpy(whole.right[: at + 1]).bool()
    pictures = of_pictures(sure, right, tuple(whole.costs[: at + 1].tolist()))
    correct = float(pictures.right[-1].sum())
    found: list[tuple[float | None, ...]] = [(None,) * at]
    if max(len(np.unique(row)) for row in pictures.sure) < LADDER:  # too few confidences to part by shares
        drops = np.linspace(0, BOLDEST * max_drop, LADDER // 4)
        rungs = [search(pictures, cheapest(correct, drop, pictures.total)) for drop in drops]
        rungs.sort(key=lambda cuts: -score(pictures, cuts)[1])
        found += [thresholds_of(pictures, cuts) for cuts in rungs]
    else:
        bold = search(pictures, cheapest(correct, BOLDEST * max_drop, pictures.total))
        found += [thresholds_of(pictures, bold, share) for share in np.linspace(0, 1, LADDER)]
    ends = [_ending(each, len(whole.right)) for each, _ in itertools.groupby(found)]
    return [replace(candidate.rule, thresholds=each) for each in ends]


def _ending(thresholds: tuple[float | None, ...], exits: int) -> tuple[float | None, ...]:
    """Thresholds of all but the last of ``exits``: those given, and then an exit at which every picture leaves."""
    deeper = exits - 1 - len(thresholds)
    return (*thresholds, 0.0, *(None,) * (deeper - 1)) if deeper else thresholds


def _check_names(exits: int, criterion: str, against: str, combine: Combine | None) -> None:
    problems = criterion_problems("criterion", criterion)
    if not AGAINST.fullmatch(against) or (against.startswith("exit:") and int(against[5:]) > exits):
        problems.append(f"against: got {against!r}; accepted: best, last, or exit:1 to exit:{exits}")
    if combine is not None and combine not in get_args(Combine):
        problems.append(f"combine: got {combine!r}; accepted: {', '.join(get_args(Combine))}")
    if problems:
        raise InputError(*problems)


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


def _measured(policy: Policy, pictures: ExitOutcomes, goal: Goal, reference: _Reference) -> Calibration:
    """What a policy does on pictures, as yet without its goal and certificate."""
    sure = torch.from_numpy(pictures.sure)
    exits = leaving(policy, sure).numpy()
    left = np.bincount(exits, minlength=len(pictures.costs)).tolist()
    total = pictures.total
    return Calibration(
        policy,
        max_drop=None,
        max_cost=None,
        pictures=total,
        accuracy=int(np.take_along_axis(pictures.right, exits[None], 0).sum()) / total,
        last_accuracy=int(pictures.right[-1].sum()) / total,
        cost=sum(number * float(cost) for number, cost in zip(left, pictures.costs, strict=True)) / total,
        last_cost=float(pictures.costs[-1]),
        exits=tuple(number / total for number in left),
        bound=bound(pictures.right, pictures.costs, goal),
        certificate=None,
        reference=reference.words,
        reference_accuracy=reference.right / total,
        costs=tuple(pictures.costs.tolist()),
    )
