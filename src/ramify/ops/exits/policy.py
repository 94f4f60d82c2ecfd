"""When a picture leaves: the confidence of each exit in its answer, and the thresholds that it must reach.

This is the one place where logits become an answer, a confidence and a decision. A criterion is one entry of
:data:`CRITERIA`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ramify.errors import InputError, unknown_name
from ramify.nn.branching import Judgement, Prediction

Combine = Literal["last", "mean", "weighted"]
"""What an exit answers with: its own probabilities, or their average over the exits that the picture has passed."""

Fallback = Literal["last", "most_confident"]
"""Who answers where no exit is sure: the last one, or the most confident (Shallow-Deep Networks, arXiv:1810.07052)."""

Coefficients = tuple[tuple[float, ...], ...]
"""A learned score of one exit: for each target an intercept and a weight for each of :func:`features`."""


class Seen(NamedTuple):
    """What a criterion sees of B pictures at one exit.

    Attributes:
        probabilities: of this exit, last, and of those before it, float32 ``[B, C]`` each; of this one alone for a
            criterion that does not look at earlier exits.
        classes: the answers, int64 ``[B]`` each.
        exits: how many exits the network has.
        coefficients: of a learned criterion at this exit, else empty.
    """

    probabilities: Sequence[Tensor]
    classes: Sequence[Tensor]
    exits: int
    coefficients: Coefficients


@dataclass(frozen=True)
class Criterion:
    """How sure an exit is of its answer.

    Attributes:
        words: what it is, for people.
        score: the confidence ``[B]``, float32 in [0, 1], with operations that ONNX has. Not a number counts as 0.
        scaled: whether temperatures change it.
        earlier: whether it looks at earlier exits.
        targets: of a learned criterion, ``(right [E, N], at) -> bool [N]`` of each event whose chance it estimates at
            exit ``at``; see :func:`ramify.ops.exits.fit.scores`.
    """

    words: str
    score: Callable[[Seen], Tensor]
    scaled: bool = True
    earlier: bool = False
    targets: Callable[[Tensor, int], tuple[Tensor, ...]] | None = None


def max_probability(seen: Seen) -> Tensor:
    """``max p``."""
    return seen.probabilities[-1].amax(dim=-1)  # no quotient of a term and its sum is above 1


def margin(seen: Seen) -> Tensor:
    """The highest of ``p`` minus the second highest."""
    highest = seen.probabilities[-1].topk(2, dim=-1).values
    return highest[..., 0] - highest[..., 1]


def entropy(seen: Seen) -> Tensor:
    """``1 - H(p) / log C``, where ``H(p) = -sum p log p``."""
    p = seen.probabilities[-1]
    confidence: Tensor = 1 - torch.special.entr(p).sum(dim=-1) / math.log(p.shape[-1])
    return confidence


def patience(seen: Seen) -> Tensor:
    """``run / E`` of the ``run`` consecutive exits, this one last, that answer the same class (arXiv:2006.04152)."""
    return _streak(seen).float() / seen.exits


def features(seen: Seen) -> list[Tensor]:
    """The inputs of a learned score at an exit, float64 ``[B]`` each.

    With ``p`` sorted, ``p1`` the highest: ``log p1``, ``log p2`` and, of three classes or more, ``log p3`` (none below
    -16), the margin ``p1 - p2`` and the entropy as a share of its maximum; behind earlier exits also the share of them
    that answer this class, how many in a row do, and the mean probability that they give it. In float32 the last bit of
    a logarithm would depend on the size of the batch.
    """
    p = seen.probabilities[-1]
    top = p.topk(min(3, p.shape[-1]), dim=-1).values.double().unbind(dim=-1)
    inputs = [*(value.clamp(min=1e-7).log() for value in top), top[0] - top[1], 1 - entropy(seen).double()]
    before = len(seen.classes) - 1
    if before:
        answer = seen.classes[-1]
        agreeing = [(earlier == answer).double() for earlier in seen.classes[:-1]]
        of_answer = [p.gather(-1, answer[..., None])[..., 0].double() for p in seen.probabilities[:-1]]
        inputs += [_summed(agreeing) / before, _streak(seen).double() / seen.exits, _summed(of_answer) / before]
    return inputs


def failure(seen: Seen) -> Tensor:
    """One minus a probability learned from :func:`features` (failure prediction, arXiv:2508.21495).

    For ``failure`` it is that of a wrong answer, for ``correctable`` that of one which a deeper exit corrects.
    """
    return 1 - _chances(seen)[0]


def gain(seen: Seen) -> Tensor:
    """``(1 - g) / 2`` with ``g = P(wrong here, right at the last exit) - P(right here, wrong at the last exit)``.

    The learned expected gain of going on; answers that the last exit spoils ("overthinking", arXiv:1810.07052) count
    against it.
    """
    corrected, *spoiled = _chances(seen)
    return (1 - corrected + spoiled[0]) / 2 if spoiled else 1 - corrected


# Nothing is deeper than the last exit: there the target of both is that its answer is wrong.
def _corrected(right: Tensor, at: int) -> tuple[Tensor, ...]:
    return (~right[at] & right[at + 1 :].any(dim=0) if at + 1 < len(right) else ~right[at],)


def _gained(right: Tensor, at: int) -> tuple[Tensor, ...]:
    if at + 1 == len(right):
        return (~right[at],)
    return ~right[at] & right[-1], right[at] & ~right[-1]


CRITERIA: dict[str, Criterion] = {
    "max_probability": Criterion("the highest probability", max_probability),
    "margin": Criterion("the highest probability less the second highest", margin),
    "entropy": Criterion("how far the entropy is below its maximum", entropy),
    "patience": Criterion("how many exits in a row agree", patience, scaled=False, earlier=True),
    "failure": Criterion(
        "the learned chance that the answer is right", failure, earlier=True, targets=lambda right, at: (~right[at],)
    ),
    "correctable": Criterion(
        "the learned chance that no deeper exit corrects the answer", failure, earlier=True, targets=_corrected
    ),
    "gain": Criterion("the learned loss or gain of going on", gain, earlier=True, targets=_gained),
}
"""Every criterion by its name."""


@dataclass(frozen=True)
class Policy:
    """A picture leaves at the first exit whose confidence reaches its threshold, or at the last.

    It keeps no state. Confidences are compared in float32.

    Args:
        thresholds: one for each exit but the last, in [0, 1]: at 0 every picture leaves, at None none does, not even
            one whose confidence is exactly 1.
        criterion: what the confidence is, a name in :data:`CRITERIA`.
        temperatures: one for each exit, the last included, each > 0; logits are divided by them first (temperature
            scaling, arXiv:1706.04599). None: all are 1.
        combine: what an exit answers with. ``last``: its own probabilities ``p_i = softmax(z_i / T_i)``. ``mean``:
            ``sum_{j <= i} p_j / (i + 1)``. ``weighted``: ``sum_{j <= i} w_ij p_j``.
        weights: of ``weighted``: for exit i, from 0, i + 1 numbers >= 0 that sum to 1.
        coefficients: of a learned criterion, for each exit; see :data:`Coefficients`.
        fallback: who answers where no exit is sure.

    Raises:
        InputError: a number is out of range, there are not as many as exits, or a name is unknown.

    Example:
        >>> policy = Policy(thresholds=(0.9, None))
        >>> policy.exits
        3
        >>> policy.judge(torch.tensor([[[9.0, 0.0], [1.0, 0.0]]])).leaves.tolist()
        [True, False]
    """

    thresholds: tuple[float | None, ...]
    criterion: str = "max_probability"
    temperatures: tuple[float, ...] | None = None
    combine: Combine = "last"
    weights: tuple[tuple[float, ...], ...] | None = None
    coefficients: tuple[Coefficients, ...] | None = None
    fallback: Fallback = "last"

    def __post_init__(self) -> None:
        problems = [
            f"policy.thresholds: got {threshold} for exit {position}; accepted: a number in [0, 1], or null for never"
            for position, threshold in enumerate(self.thresholds, start=1)
            if threshold is not None and not 0 <= threshold <= 1
        ]
        problems += criterion_problems("policy.criterion", self.criterion)
        if self.temperatures is not None and len(self.temperatures) != self.exits:
            problems.append(
                f"policy.temperatures: got {len(self.temperatures)}; accepted: {self.exits}, one for each exit, the "
                "last included"
            )
        else:
            problems += [
                f"policy.temperatures: got {temperature} for exit {position}; accepted: a finite number > 0"
                for position, temperature in enumerate(self.temperatures or (), start=1)
                if not 0 < temperature < math.inf
            ]
        for name, value, kind in (("combine", self.combine, Combine), ("fallback", self.fallback, Fallback)):
            if value not in get_args(kind):
                problems.append(f"policy.{name}: got {value!r}; accepted: {', '.join(get_args(kind))}")
        if (self.combine == "weighted") != (self.weights is not None) or not _are_shares(self.weights, self.exits):
            problems.append(
                f"policy.weights: got {self.weights} with combine {self.combine}; accepted: with weighted alone, for "
                f"exit i of {self.exits} i numbers >= 0 that sum to 1"
            )
        learned = self.criterion in CRITERIA and CRITERIA[self.criterion].targets is not None
        if learned != (self.coefficients is not None) or len(self.coefficients or self.exits * " ") != self.exits:
            problems.append(
                f"policy.coefficients: got {'none' if self.coefficients is None else len(self.coefficients)} for "
                f"{self.criterion}; accepted: of a learned criterion alone, {self.exits}, one for each exit"
            )
        if problems:
            raise InputError(*problems)

    @property
    def exits(self) -> int:
        """How many exits it is for: one more than it has thresholds."""
        return len(self.thresholds) + 1

    @property
    def remembers(self) -> bool:
        """Whether it needs the answers of earlier exits at an exit."""
        return self.combine != "last" or self.fallback != "last" or CRITERIA[self.criterion].earlier

    def judge(self, logits: Tensor) -> Judgement:
        """Judge the last exit of ``logits [i + 1, B, C]``, those of the exits so far, on their device."""
        return self.judge_at(len(logits) - 1, logits if self.remembers else logits[-1:])

    def judge_at(self, at: int, logits: Tensor) -> Judgement:
        """Judge exit ``at``, from 0, by its ``logits [1, B, C]``, with those before it if it :attr:`remembers`."""
        if self.remembers:
            views = self.seen(logits)
            if self.fallback == "last" or at + 1 < self.exits:
                views = views[-1:]
            classes, confidence = _most_confident([(view.classes[-1], _scored(self.criterion, view)) for view in views])
        else:
            own = logits[-1]
            classes, p = own.argmax(dim=-1), _softmax(own, 1.0 if self.temperatures is None else self.temperatures[at])
            confidence = _scored(self.criterion, Seen((p,), (classes,), self.exits, ()))
        return Judgement(classes, confidence, self.leaves(at, confidence))

    def known(self, at: int) -> bool | None:
        """Whether all pictures leave at exit ``at``, from 0, or none do; None where it depends on the logits.

        Example:
            >>> [Policy((0.0, 0.5, None)).known(at) for at in range(4)]
            [True, None, False, True]
        """
        if at == self.exits - 1:
            return True
        threshold = self.thresholds[at]
        return False if threshold is None else True if threshold == 0 else None

    def leaves(self, at: int, confidence: Tensor) -> Tensor:
        """Which pictures leave at exit ``at``, from 0, with ``confidence`` there: bool ``[B]``."""
        if at == self.exits - 1:
            return torch.ones_like(confidence, dtype=torch.bool)
        threshold = self.thresholds[at]
        if threshold is None:
            return torch.zeros_like(confidence, dtype=torch.bool)
        return confidence >= threshold

    def probabilities(self, logits: Tensor) -> list[Tensor]:
        """The answer of each exit, float32 ``[B, C]``: softmax of ``logits [E', B, C]``, scaled and combined."""
        temperatures = (1.0,) * self.exits if self.temperatures is None else self.temperatures
        own = [_softmax(z, temperatures[at]) for at, z in enumerate(logits.unbind(0))]
        if self.combine == "last":
            return own
        weights = self.weights or tuple((1 / (at + 1),) * (at + 1) for at in range(len(own)))
        return [_summed([w * p for w, p in zip(weights[at], own, strict=False)]) for at in range(len(own))]

    def seen(self, logits: Tensor) -> list[Seen]:
        """The input of the criterion at each exit of ``logits [E', B, C]``, those of the first E' exits."""
        p = self.probabilities(logits)
        classes = [values.argmax(dim=-1) for values in (logits.unbind(0) if self.combine == "last" else p)]
        return [
            Seen(p[: at + 1], classes[: at + 1], self.exits, self.coefficients[at] if self.coefficients else ())
            for at in range(len(p))
        ]


def answers(policy: Policy, logits: Tensor) -> tuple[Tensor, Tensor]:
    """The answer of each exit and its confidence, from ``logits [E, N, C]``: both ``[E, N]``.

    Raises:
        InputError: ``policy`` is for another number of exits.
    """
    if policy.exits != len(logits):
        raise InputError(f"policy: got one for {policy.exits} exits; accepted: {len(logits)}, as many as logits has")
    judged = [(view.classes[-1], _scored(policy.criterion, view)) for view in policy.seen(logits)]
    if policy.fallback == "most_confident":
        judged[-1] = _most_confident(judged)
    return torch.stack([classes for classes, _ in judged]), torch.stack([confidence for _, confidence in judged])


def _most_confident(judged: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Of the classes and confidences of exits, the surest for each picture; of equals, the deepest."""
    classes, confidence = judged[0]
    for other, sure in judged[1:]:
        classes = torch.where(sure >= confidence, other, classes)
        confidence = torch.where(sure >= confidence, sure, confidence)
    return classes, confidence


def confidences(
    logits: Tensor, criterion: str = "max_probability", temperatures: tuple[float, ...] | None = None
) -> Tensor:
    """The confidence of each exit in each picture: ``logits [E, B, C] -> [E, B]``, float32 in [0, 1], on their device.

    It is that of :data:`CRITERIA` for ``p = softmax(logits / T)``, with the same bits as in :meth:`Policy.judge`,
    whatever the batch. Where logits are not finite the confidence is 0.

    Args:
        logits: of all E exits, shallowest first, of at least two classes; any floating dtype.
        criterion: a name in :data:`CRITERIA`, not of a learned one.
        temperatures: T of each exit, > 0; None: all are 1.

    Raises:
        InputError: an unknown criterion, or temperatures or logits out of range.

    Example:
        >>> logits = torch.tensor([[[2.0, 0.0, 0.0]], [[4.0, 0.0, 0.0]]])
        >>> [round(value, 3) for value in confidences(logits, "margin").flatten().tolist()]
        [0.68, 0.947]
        >>> confidences(logits, "patience").flatten().tolist()
        [0.5, 1.0]
    """
    if logits.dim() != 3 or logits.shape[2] < 2:
        raise InputError(f"logits: got shape {tuple(logits.shape)}; accepted: [exits, pictures, classes], classes >= 2")
    return answers(Policy((None,) * (len(logits) - 1), criterion, temperatures), logits)[1]


def follow(policy: Policy, logits: Tensor) -> Prediction:
    """The prediction of ``policy`` on stored logits ``[E, N, C]``.

    It equals :meth:`ramify.nn.branching.Branching.predict` on a network with these logits, ``ran`` included.

    Raises:
        InputError: ``policy`` is for another number of exits, or logits have another shape.

    Example:
        >>> logits = torch.tensor([[[9.0, 0.0], [1.0, 0.0]], [[9.0, 0.0], [0.0, 9.0]]])
        >>> prediction = follow(Policy((0.9,)), logits)
        >>> prediction.classes.tolist(), prediction.exits.tolist(), prediction.ran
        ([0, 1], [0, 1], (2, 1))
    """
    classes, confidence = answers(policy, logits)
    exits = leaving(policy, confidence)
    ran = tuple(int((exits >= at).sum()) for at in range(policy.exits))
    return Prediction(classes.gather(0, exits[None])[0], exits, confidence.gather(0, exits[None])[0], ran)


def leaving(policy: Policy, confidence: Tensor) -> Tensor:
    """The exit of each picture, int64 ``[N]`` from 0, by its ``confidence`` at every exit, ``[E, N]``.

    Example:
        >>> leaving(Policy((0.9,)), torch.tensor([[0.95, 0.5], [0.6, 0.6]])).tolist()
        [0, 1]
    """
    stays = torch.stack([~policy.leaves(at, confidence[at]) for at in range(policy.exits)])
    return stays.long().cumprod(dim=0).sum(dim=0)


def _softmax(logits: Tensor, temperature: float) -> Tensor:
    z = logits.float()
    if temperature != 1.0:
        # Less the highest logit, so that low temperatures do not overflow.
        z = (z - z.amax(dim=-1, keepdim=True)) / temperature
    return z.softmax(dim=-1)


def _scored(criterion: str, seen: Seen) -> Tensor:
    return CRITERIA[criterion].score(seen).float().nan_to_num(nan=0.0).clamp(0, 1)


def _streak(seen: Seen) -> Tensor:
    """How many exits in a row, this one last, give the same class: int64 ``[B]``."""
    answer = seen.classes[-1]
    agree = run = torch.ones_like(answer)
    for earlier in reversed(seen.classes[:-1]):
        agree = agree * (earlier == answer)
        run = run + agree
    return run


def _summed(values: Sequence[Tensor]) -> Tensor:
    """The sum from first to last, in an order that is the same everywhere, as it decides the bits."""
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def _chances(seen: Seen) -> list[Tensor]:
    """The estimated chance of each target."""
    inputs = features(seen)
    return [
        _summed([weight * value for weight, value in zip(weights, inputs, strict=True)]).add(intercept).sigmoid()
        for intercept, *weights in seen.coefficients
    ]


def criterion_problems(where: str, criterion: str) -> list[str]:
    """An error message if ``criterion`` is none of :data:`CRITERIA`."""
    return [] if criterion in CRITERIA else [unknown_name(where, criterion, CRITERIA)]


def _are_shares(weights: tuple[tuple[float, ...], ...] | None, exits: int) -> bool:
    return weights is None or (
        len(weights) == exits
        and all(len(row) == at + 1 and min(row) >= 0 and abs(sum(row) - 1) < 1e-6 for at, row in enumerate(weights))
    )
