"""Calibration: the thresholds at which a network answers cheaply enough, or well enough, on stored logits."""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from ramify.errors import InputError
from ramify.ops.exits.certify import Certificate, p_value, pictures_needed
from ramify.ops.exits.fit import check_labels, crossed, mixture, scores, temperature
from ramify.ops.exits.policy import CRITERIA, Combine, Fallback, Policy, answers, criterion_problems, leaving
from ramify.ops.exits.thresholds import EXACT, ExitOutcomes, Goal, bound, cheapest, exit_outcomes, most_accurate, search
from ramify.seeds import generator

LADDER = 64
"""How many policies a certificate tries at most."""
BOLDEST = 1.25
"""How much the boldest of them loses on the pictures that chose it, relative to ``max_drop``."""
AGAINST = re.compile(r"best|last|exit:[1-9][0-9]*")
"""What a drop may be measured against."""


@dataclass(frozen=True)
class Calibration:
    """A policy and its figures on all pictures, or with a certificate on the half that tested it.

    Costs are averages over pictures, in the unit of ``costs``. Under a learned criterion, without a certificate, the
    figures are those of cross-fitted scores (:func:`ramify.ops.exits.fit.crossed`).

    Attributes:
        policy: with its thresholds.
        max_drop, max_cost: the goal; one of them is None.
        pictures: how many the figures are taken on.
        accuracy, last_accuracy: of the policy and of the last exit, in [0, 1].
        cost, last_cost: of the policy and of the last exit.
        exits: for each exit, the share of pictures that leave there.
        bound: no thresholds that keep to ``max_drop`` on these pictures cost less than this; with ``max_cost``, none
            are more accurate. With up to three exits and no certificate, the policy reaches it.
        certificate: None without a confidence.
        reference: what the drop is measured against, in words: ``exit 2 alone``.
        reference_accuracy: of that, in [0, 1]; None in files of earlier versions.
        alone: the accuracy of each exit alone; empty in files of earlier versions.
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
        """The exit before the last, from 1, that alone is as accurate as the policy and no dearer; None: none is."""
        good = [
            (-accuracy, at)
            for at, (accuracy, cost) in enumerate(zip(self.alone[:-1], self.costs, strict=False), start=1)
            if accuracy >= self.accuracy and cost <= self.cost * (1 + 1e-9)
        ]
        return min(good)[1] if good else None


class _Candidate(NamedTuple):
    """One way to combine answers: a policy without thresholds, and its outcomes on the pictures."""

    rule: Policy
    pictures: ExitOutcomes


class _Reference(NamedTuple):
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

    The goal is either ``max_drop`` or ``max_cost``. It is kept on these pictures; on others the accuracy is a little
    lower. ``confidence`` gives a guarantee (learn then test, arXiv:2110.01052): a random half of the pictures chooses
    the reference and a ladder of policies from cautious to bold; the other half tests them in this order by
    :func:`ramify.ops.exits.certify.p_value` up to the first that fails, and the last that passed is the answer. With up
    to three exits the thresholds are optimal; with more, ``bound`` limits how much better any could be.

    Args:
        logits: finite, of all exits ``[E, N, C]``, shallowest first.
        labels: int ``[N]`` in [0, C).
        costs: of answering at each exit, rising: MACs, milliseconds.
        max_drop: the accuracy that may be lost against the reference, in [0, 1); above 0 with a confidence.
        max_cost: the average cost allowed, at least ``costs[0]``.
        criterion: a name in :data:`ramify.ops.exits.policy.CRITERIA`.
        scale: fit a temperature to each exit first, where the criterion depends on it.
        confidence: that not more than ``max_drop`` is lost on other pictures, in (0, 1).
        seed: of the halves of a certificate, and of the parts of cross-fitting.
        against: the reference. ``best``: the most accurate of each exit alone, the average over the exits up to each
            (where ``combine`` allows) and, without a confidence, the policy without a limit. ``last``, ``exit:K``:
            that exit alone, from 1.
        combine, fallback: see :class:`ramify.ops.exits.policy.Policy`; combine None: whichever serves the goal best.
        survivors: fit a learned criterion again, at each exit on the pictures that a first search lets through.

    Raises:
        InputError: an argument is out of range, no thresholds keep to the goal, or there are too few pictures.

    Example:
        >>> labels = torch.arange(100) % 2
        >>> sure = torch.where(torch.arange(100) < 60, 4.0, 1.0)  # the first exit is wrong where it is not sure
        >>> right = torch.nn.functional.one_hot(labels, 2).float()
        >>> logits = torch.stack((sure[:, None] * torch.where(sure[:, None] > 2, right, 1 - right), 9 * right))
        >>> calibration = calibrate(logits, labels, costs=(1.0, 3.0), max_drop=0.0)
        >>> calibration.exits, calibration.cost, calibration.accuracy
        ((0.6, 0.4), 1.8, 1.0)
    """
    check_labels(logits, labels)
    _check_goal(len(logits), costs, max_drop, max_cost, confidence)
    _check_names(len(logits), criterion, against, combine)
    fits = _Fits(costs, criterion, scale, combine, fallback, survivors, seed)
    logits, labels = logits.detach().cpu(), labels.cpu()
    if max_drop is not None and confidence is not None:
        return _certified(logits, labels, max_drop, fits, against, confidence)
    candidates = fits.candidates(logits, labels)
    reference = _reference(candidates, logits, labels, against, unlimited=max_drop is not None)
    limit = math.inf if max_cost is None else max_cost
    results: list[tuple[tuple[float, ...], Calibration]] = []
    for rule, pictures in candidates:
        goal = (
            most_accurate(pictures, limit) if max_drop is None else cheapest(reference.right, max_drop, pictures.total)
        )
        cuts = search(pictures, goal)
        result = _measured(replace(rule, thresholds=pictures.thresholds(cuts)), pictures, goal, reference)
        if len(logits) <= EXACT:
            result = replace(result, bound=result.accuracy if max_drop is None else result.cost)
        results.append((pictures.rank(goal, cuts), result))
    (missing, *_), best = min(results, key=lambda pair: pair[0])
    if missing > 0 and max_drop is not None:
        most = max(_unlimited(candidate.pictures) for candidate in candidates)
        raise InputError(
            f"max_drop: got {max_drop:g} against {reference.words}; accepted: at least "
            f"{(reference.right - most) / len(labels):.4g}, the least that any thresholds lose"
        )
    return replace(_with_exits_alone(best, logits, labels), max_drop=max_drop, max_cost=max_cost)


@dataclass(frozen=True)
class _Fits:
    """The arguments of :func:`calibrate` that say how a policy is fitted before its thresholds are searched."""

    costs: Sequence[float]
    criterion: str
    scale: bool
    combine: Combine | None
    fallback: Fallback
    survivors: bool
    seed: int

    def candidates(self, logits: Tensor, labels: Tensor) -> list[_Candidate]:
        """One for each way to combine answers, the plain one first: it is taken where others are no better."""
        scaled = self.scale and CRITERIA[self.criterion].scaled
        temperatures = tuple(temperature(z, labels) for z in logits) if scaled else None
        ways: tuple[Combine, ...] = get_args(Combine) if self.combine is None else (self.combine,)
        plain = Policy((None,) * (len(logits) - 1), temperatures=temperatures, fallback=self.fallback)
        weights = mixture(logits, labels, temperatures) if "weighted" in ways else None
        rules = [replace(plain, combine=way, weights=weights if way == "weighted" else None) for way in ways]
        return [self._fitted(rule, logits, labels) for rule in rules]

    def _fitted(self, base: Policy, logits: Tensor, labels: Tensor) -> _Candidate:
        if CRITERIA[self.criterion].targets is None:
            rule = replace(base, criterion=self.criterion)
            classes, sure = answers(rule, logits)
            return _Candidate(rule, exit_outcomes(sure, classes == labels, self.costs))
        reached = None
        for last in (False, True) if self.survivors else (True,):
            coefficients = scores(base, self.criterion, logits, labels, reached)
            rule = replace(base, criterion=self.criterion, coefficients=coefficients)
            sure = crossed(base, self.criterion, logits, labels, self.seed, reached)
            pictures = exit_outcomes(sure, answers(rule, logits)[0] == labels, self.costs)
            if not last:
                goal = cheapest(float(pictures.right.sum(axis=1).max()), 0.0, pictures.total)
                first = replace(rule, thresholds=pictures.thresholds(search(pictures, goal)))
                left = leaving(first, sure)
                reached = (left >= torch.arange(len(logits))[:, None]).float()
        return _Candidate(rule, pictures)


def _unlimited(pictures: ExitOutcomes) -> float:
    """The most right answers that any thresholds give."""
    return pictures.score(search(pictures, most_accurate(pictures)))[0]


def _reference(
    candidates: Sequence[_Candidate], logits: Tensor, labels: Tensor, against: str, unlimited: bool
) -> _Reference:
    """What a drop is measured against, see :func:`calibrate`; of equals the first: the cheapest exit, alone."""
    exits, first = len(logits), candidates[0]
    plain = Policy((None,) * (exits - 1))
    alone = (logits.argmax(dim=-1) == labels).sum(dim=1).tolist()
    references = [_Reference(_words(plain, at), float(right), first, plain, at) for at, right in enumerate(alone)]
    if against == "last":
        return references[-1]
    if against != "best":
        return references[int(against.removeprefix("exit:")) - 1]
    for candidate in candidates:
        rule, pictures = candidate
        if rule.combine != "last":
            sums = pictures.right.sum(axis=1).tolist()
            references += [_Reference(_words(rule, at), right, candidate, rule, at) for at, right in enumerate(sums)]
        if unlimited:
            references.append(_Reference("the policy without a limit", _unlimited(pictures), candidate, rule, None))
    return max(references, key=lambda reference: reference.right)


def _words(rule: Policy, at: int) -> str:
    if rule.combine != "last" and at > 0:
        return f"the {'weighted ' if rule.combine == 'weighted' else ''}average of exits 1 to {at + 1}"
    return "the last exit" if at + 1 == rule.exits else f"exit {at + 1} alone"


def _with_exits_alone(calibration: Calibration, logits: Tensor, labels: Tensor) -> Calibration:
    """With the accuracy of each exit on its own, neither averaged nor with a fallback."""
    alone = tuple((logits.argmax(dim=-1) == labels).double().mean(dim=1).tolist())
    return replace(calibration, alone=alone, last_accuracy=alone[-1])


def _certified(
    logits: Tensor, labels: Tensor, max_drop: float, fits: _Fits, against: str, confidence: float
) -> Calibration:
    total, needed = len(labels), pictures_needed(max_drop, confidence)
    if total < needed:
        raise InputError(
            f"confidence: got {confidence:g} that at most {max_drop:g} is lost, with {total} pictures; accepted: at "
            f"least {needed} pictures, half of which test what the others chose"
        )
    choosing, testing = torch.randperm(total, generator=generator(fits.seed, "certify")).tensor_split([total // 2])
    logits, labels, chosen, known = logits[:, testing], labels[testing], logits[:, choosing], labels[choosing]
    reference = _reference(fits.candidates(chosen, known), chosen, known, against, unlimited=False)
    assert reference.at is not None
    ladder = _ladder(reference.candidate, reference.at, max_drop)
    classes, sure = answers(ladder[0], logits)
    right = classes == labels
    reference_right = answers(reference.rule, logits)[0][reference.at] == labels
    stay = replace(reference.rule, thresholds=_ending((None,) * reference.at, len(logits)))
    passed = [(stay, Certificate(max_drop, confidence, len(labels), 0, 0, p_value(0, 0, len(labels), max_drop), 0))]
    for policy in ladder:
        policy_right = right.gather(0, leaving(policy, sure)[None])[0]
        lost, gained = int((reference_right & ~policy_right).sum()), int((policy_right & ~reference_right).sum())
        p = p_value(lost, gained, len(labels), max_drop)
        if p > 1 - confidence:
            break
        if policy.thresholds != stay.thresholds:
            passed.append((policy, Certificate(max_drop, confidence, len(labels), lost, gained, p, len(passed))))
    policy, certificate = passed[-1]
    classes, sure = answers(policy, logits)
    tested = exit_outcomes(sure, classes == labels, fits.costs)
    reference = reference._replace(right=float(reference_right.sum()))
    result = _measured(policy, tested, cheapest(reference.right, max_drop, tested.total), reference)
    certificate = replace(certificate, reference=reference.words)
    return replace(_with_exits_alone(result, logits, labels), max_drop=max_drop, certificate=certificate)


def _ladder(candidate: _Candidate, at: int, max_drop: float) -> list[Policy]:
    """Policies from cautious to bold, ever cheaper; in the first, exit ``at``, the reference, answers every picture.

    Each lets a larger share of the pictures of one bold policy leave. This overfits less than thresholds that are
    searched again for each rung. All end at exit ``at``.
    """
    whole = candidate.pictures
    sure, right = torch.from_numpy(whole.sure[: at + 1]), torch.from_numpy(whole.right[: at + 1]).bool()
    pictures = exit_outcomes(sure, right, tuple(whole.costs[: at + 1].tolist()))
    correct = float(pictures.right[-1].sum())
    rungs: list[tuple[float | None, ...]] = [(None,) * at]
    if max(len(np.unique(row)) for row in pictures.sure) < LADDER:  # too few confidences to part by shares
        drops = np.linspace(0, BOLDEST * max_drop, LADDER // 4)
        searched = [search(pictures, cheapest(correct, drop, pictures.total)) for drop in drops]
        searched.sort(key=lambda cuts: -pictures.score(cuts)[1])
        rungs += [pictures.thresholds(cuts) for cuts in searched]
    else:
        bold = search(pictures, cheapest(correct, BOLDEST * max_drop, pictures.total))
        rungs += [pictures.thresholds(bold, share) for share in np.linspace(0, 1, LADDER)]
    return [
        replace(candidate.rule, thresholds=_ending(thresholds, len(whole.right)))
        for thresholds, _ in itertools.groupby(rungs)
    ]


def _ending(thresholds: tuple[float | None, ...], exits: int) -> tuple[float | None, ...]:
    """``thresholds`` of the first exits, then an exit at which every picture leaves: for all but the last exit."""
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


def _check_goal(
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
    """The figures of a policy on pictures, without its goal and certificate."""
    exits = leaving(policy, torch.from_numpy(pictures.sure)).numpy()
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
