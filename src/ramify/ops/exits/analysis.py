"""What early exits are worth, waste and destroy, from the logits that every exit gave.

After Shallow-Deep Networks (arXiv:1810.07052). Exits and pictures are counted from 0.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ramify.errors import InputError
from ramify.ops.exits.confusion import ConfusionScore, confusion_score
from ramify.ops.exits.fit import check_labels

LEVELS = (
    *(i / 20 for i in range(17)),
    *(i / 100 for i in (82, 84, 86, 88, *range(90, 100))),
    *(i / 1000 for i in range(991, 1000)),
    *(0.9995, 0.9999, 0.99995, 0.99999, 1.0, 1.01),
)
"""Thresholds of the curve, from 0 (all pictures leave at the first exit) to above 1 (all reach the last); finer towards
1, where the probabilities of trained networks crowd."""

BINS = 15
"""Bins of equal width over [0, 1] for the calibration error, as in arXiv:1706.04599."""

CASES = 20
"""Most example pictures listed of each kind."""


@dataclass(frozen=True)
class Outcome:
    """Averages over pictures that each leave at one exit.

    Attributes:
        accuracy: in [0, 1].
        macs: multiply-accumulates.
        milliseconds: measured latency; None where none was measured.
        exits: the share of the pictures that leave at each exit.
    """

    accuracy: float
    macs: float
    milliseconds: float | None
    exits: tuple[float, ...]


@dataclass(frozen=True)
class CurvePoint(Outcome):
    """The outcome when each picture leaves at the first exit whose highest probability is >= ``threshold``."""

    threshold: float


@dataclass(frozen=True)
class ReliabilityBin:
    """The pictures whose highest probability is in one bin ``(low, high]``; means are None where there are none."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Reliability:
    """How far one exit's probabilities are from its accuracy: the expected calibration error, in [0, 1]."""

    error: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class Case:
    """One picture that an early exit and the last one answer.

    Attributes:
        picture: its index among the pictures.
        exit: the earlier exit, from 0.
        confidence: that exit's highest probability.
        answer: the class that exit answers.
        last: the class the last exit answers.
        label: the true class.
    """

    picture: int
    exit: int
    confidence: float
    answer: str
    last: str
    label: str


@dataclass(frozen=True)
class Overthinking:
    """Four shares of all pictures that sum to 1, by where a picture is first answered right, and examples.

    Attributes:
        wasteful: right at an internal classifier and right at the last exit.
        wasted_macs: ``macs[last] - macs[first right exit]`` of the wasteful pictures, averaged over all pictures.
        destructive: right at some internal classifier but wrong at the last exit.
        late: right at the last exit only.
        never: wrong at every exit.
        wasteful_cases: at most :data:`CASES`, at their first right exit; the earliest first, then the surest.
        destructive_cases: likewise; the surest first.
        late_cases: at exit 0; the surest first. Empty without internal classifiers.
    """

    wasteful: float
    wasted_macs: float
    destructive: float
    late: float
    never: float
    wasteful_cases: tuple[Case, ...]
    destructive_cases: tuple[Case, ...]
    late_cases: tuple[Case, ...]


@dataclass(frozen=True)
class ClassExits:
    """The pictures of one true class: how many leave at each exit, and their average MACs (None without any)."""

    name: str
    exits: tuple[int, ...]
    macs: float | None


@dataclass(frozen=True)
class Analysis:
    """The result of :func:`analyze`, in plain values: ``json.dumps(dataclasses.asdict(analysis))`` writes it.

    Attributes:
        pictures: how many there are.
        macs, milliseconds: cost of answering at each exit.
        accuracy: of each exit, in [0, 1].
        averaged: for each exit, the accuracy of the average of its probabilities and those of all exits before it.
        reliability: of each exit.
        oracle: every picture leaves at its first right exit, or at the last where none is right.
        curve: one point for each of :data:`LEVELS`, dominated ones included.
        overthinking: what is wasted and destroyed after the first right answer.
        confusion_score: None where there is no internal classifier.
        agreement: ``[i][j]``: the share of the pictures on which exits i and j answer the same class.
        shared: ``[i][j]``: the share of what exit i gets right that exit j gets right too; None where exit i gets
            nothing right.
        by_policy: whether ``by_class`` counts the exits of a policy, or the first right exits.
        by_class: for each class.
    """

    pictures: int
    macs: tuple[int, ...]
    milliseconds: tuple[float, ...] | None
    accuracy: tuple[float, ...]
    averaged: tuple[float, ...]
    reliability: tuple[Reliability, ...]
    oracle: Outcome
    curve: tuple[CurvePoint, ...]
    overthinking: Overthinking
    confusion_score: ConfusionScore | None
    agreement: tuple[tuple[float, ...], ...]
    shared: tuple[tuple[float | None, ...], ...]
    by_policy: bool
    by_class: tuple[ClassExits, ...]


def analyze(
    logits: Tensor,
    labels: Tensor,
    macs: Sequence[int],
    classes: Sequence[str],
    milliseconds: Sequence[float] | None = None,
    exits: Tensor | None = None,
) -> Analysis:
    """Analyze the exits of a network by their answers to the same pictures.

    Args:
        logits: float ``[E, N, C]`` of E exits, the shallowest first, for N pictures and C classes.
        labels: true classes, whole numbers ``[N]`` in 0 to C - 1.
        macs: multiply-accumulates of answering one picture at each exit, heads included; they never fall.
        classes: C names.
        milliseconds: measured latency of answering one picture at each exit.
        exits: whole numbers ``[N]`` in 0 to E - 1: the exit of each picture for ``by_class``; None takes the first
            right exit.

    Raises:
        InputError: shapes that do not fit, no pictures, logits that are not finite, or numbers out of range.

    Example:
        >>> logits = torch.tensor([[[2.0, 0.0], [1.0, 0.0]], [[3.0, 0.0], [0.0, 4.0]]])  # 2 exits, 2 pictures
        >>> analysis = analyze(logits, torch.tensor([0, 1]), macs=[100, 300], classes=["cat", "dog"])
        >>> analysis.accuracy, analysis.oracle.accuracy, analysis.oracle.macs
        ((0.5, 1.0), 1.0, 200.0)
        >>> analysis.overthinking.wasteful, analysis.overthinking.wasted_macs
        (0.5, 100.0)
    """
    check_labels(logits, labels)
    problems = list(_problems(logits, macs, classes, milliseconds, exits))
    if problems:
        raise InputError(*problems)
    probabilities = logits.detach().cpu().double().softmax(dim=2)
    labels = labels.cpu().long()
    confidence, answers = probabilities.max(dim=2)  # [E, N]
    right = answers == labels
    averaged = probabilities.cumsum(dim=0).argmax(dim=2) == labels
    first = _first(right)
    return Analysis(
        pictures=len(labels),
        macs=tuple(map(int, macs)),
        milliseconds=None if milliseconds is None else tuple(map(float, milliseconds)),
        accuracy=_floats(right.double().mean(dim=1)),
        averaged=_floats(averaged.double().mean(dim=1)),
        reliability=tuple(map(reliability, confidence, right)),
        oracle=Outcome(*outcome_fields(first, right, macs, milliseconds)),
        curve=tuple(
            CurvePoint(*outcome_fields(_first(confidence >= level), right, macs, milliseconds), level)
            for level in LEVELS
        ),
        overthinking=_overthinking(confidence, answers, labels, macs, classes),
        confusion_score=confusion_score(probabilities, right[-1]) if len(logits) > 1 else None,
        agreement=tuple(_floats((answers == row).double().mean(dim=1)) for row in answers),
        shared=tuple(
            _floats(right[:, row].double().mean(dim=1)) if row.any() else (None,) * len(right) for row in right
        ),
        by_policy=exits is not None,
        by_class=_by_class(first if exits is None else exits.cpu().long(), labels, macs, classes),
    )


def reliability(confidence: Tensor, right: Tensor) -> Reliability:
    """The expected calibration error, ``sum_b |b| / N * |accuracy(b) - confidence(b)|``, and its bins b.

    There are :data:`BINS` bins of equal width, each with its upper edge (arXiv:1706.04599).

    Args:
        confidence: highest probability of each picture, float ``[N]`` in [0, 1], N >= 1.
        right: whether its answer is right, bool ``[N]``.
    """
    confidence = confidence.double()
    edges = torch.arange(BINS + 1, dtype=torch.float64) / BINS
    places = torch.bucketize(confidence, edges[1:-1])
    counts = torch.bincount(places, minlength=BINS).tolist()
    sure = torch.bincount(places, confidence, BINS).tolist()
    hits = torch.bincount(places, right.double(), BINS).tolist()
    bins = tuple(
        ReliabilityBin(low, high, n, total / n if n else None, hit / n if n else None)
        for low, high, n, total, hit in zip(_floats(edges[:-1]), _floats(edges[1:]), counts, sure, hits, strict=True)
    )
    gaps = sum(abs(hit - total) for hit, total in zip(hits, sure, strict=True))
    return Reliability(gaps / len(confidence), bins)


def _problems(
    logits: Tensor,
    macs: Sequence[int],
    classes: Sequence[str],
    milliseconds: Sequence[float] | None,
    exits: Tensor | None,
) -> Iterator[str]:
    count, pictures, width = logits.shape
    whole = exits is None or not (exits.is_floating_point() or exits.dtype == torch.bool)
    if exits is not None and (exits.shape != (pictures,) or not whole):
        got = f"got {exits.dtype} of shape {list(exits.shape)}"
        yield f"exits: {got}; accepted: whole numbers of shape [{pictures}], one for each picture"
    elif exits is not None and not 0 <= int(exits.min()) <= int(exits.max()) < count:
        yield f"exits: got {int(exits.min())} to {int(exits.max())}; accepted: 0 to {count - 1}"
    if len(macs) != count or min(macs) <= 0 or list(macs) != sorted(macs):
        yield f"macs: got {list(macs)}; accepted: {count} numbers above 0, one for each exit, never falling"
    if milliseconds is not None and (len(milliseconds) != count or not all(0 < ms < math.inf for ms in milliseconds)):
        yield f"milliseconds: got {list(milliseconds)}; accepted: {count} numbers above 0, one for each exit"
    if len(classes) != width:
        yield f"classes: got {len(classes)} names; accepted: {width}, as many as the logits have classes"


def _floats(values: Tensor) -> tuple[float, ...]:
    return tuple(float(value) for value in values.tolist())


def _first(marks: Tensor) -> Tensor:
    """The first marked exit of each picture, the last where none is, ``bool [E, N] -> int64 [N]``."""
    last = torch.ones_like(marks[:1])
    return torch.cat((marks[:-1], last)).int().argmax(dim=0)


def outcome_fields(
    exits: Tensor, right: Tensor, macs: Sequence[int], milliseconds: Sequence[float] | None
) -> tuple[float, float, float | None, tuple[float, ...]]:
    """The fields of an :class:`Outcome` of pictures that leave at ``exits [N]``."""
    shares = _floats(torch.bincount(exits, minlength=len(right)).double() / len(exits))
    accuracy = float(right.gather(0, exits[None]).double().mean())
    return accuracy, _mean(shares, macs), None if milliseconds is None else _mean(shares, milliseconds), shares


def _mean(shares: Sequence[float], costs: Sequence[float]) -> float:
    return sum(share * cost for share, cost in zip(shares, costs, strict=True))


def _overthinking(
    confidence: Tensor, answers: Tensor, labels: Tensor, macs: Sequence[int], classes: Sequence[str]
) -> Overthinking:
    right = answers == labels
    early, last = right[:-1].any(dim=0), right[-1]
    first = _first(right)
    sure = confidence.gather(0, first[None])[0]
    spared = torch.tensor([macs[-1] - cost for cost in macs], dtype=torch.float64)[first]

    def cases(which: Tensor, exits: Tensor, rank: Tensor) -> tuple[Case, ...]:
        """The pictures of highest rank; of equal ones, those that come first."""
        pictures = which.nonzero()[:, 0]
        chosen = pictures[rank[pictures].argsort(descending=True, stable=True)[:CASES]].tolist()
        return tuple(
            Case(
                picture=picture,
                exit=int(exits[picture]),
                confidence=float(confidence[exits[picture], picture]),
                answer=classes[int(answers[exits[picture], picture])],
                last=classes[int(answers[-1, picture])],
                label=classes[int(labels[picture])],
            )
            for picture in chosen
        )

    def share(which: Tensor) -> float:
        return float(which.double().mean())

    wasteful, destructive, late = early & last, early & ~last, ~early & last
    return Overthinking(
        wasteful=share(wasteful),
        wasted_macs=float((spared * wasteful).mean()),
        destructive=share(destructive),
        late=share(late),
        never=share(~early & ~last),
        wasteful_cases=cases(wasteful, first, sure - 2 * first),  # no confidence makes up for a later exit
        destructive_cases=cases(destructive, first, sure),
        late_cases=cases(late, torch.zeros_like(first), confidence[0]) if len(right) > 1 else (),
    )


def _by_class(exits: Tensor, labels: Tensor, macs: Sequence[int], classes: Sequence[str]) -> tuple[ClassExits, ...]:
    places = labels * len(macs) + exits
    counts = torch.bincount(places, minlength=len(classes) * len(macs)).view(len(classes), len(macs))
    return tuple(
        ClassExits(name, tuple(row), _mean(row, macs) / sum(row) if sum(row) else None)
        for name, row in zip(classes, counts.tolist(), strict=True)
    )
