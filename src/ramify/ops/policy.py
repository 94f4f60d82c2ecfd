"""When a picture leaves: how sure each exit is of its answer, and the thresholds at which that is enough."""

import difflib
import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ramify.errors import InputError
from ramify.nn.branching import Judgement, Prediction

Criterion = Literal["max_probability", "margin", "entropy", "patience"]
"""How the confidence of an exit is taken from its logits; see :func:`confidences`."""

COLDEST, HOTTEST = 0.05, 20.0
"""The temperatures between which :func:`temperature` looks."""


@dataclass(frozen=True)
class Policy:
    """A picture leaves at the first exit whose confidence reaches its threshold; the last exit lets all go.

    It keeps no state: one policy may judge any number of batches at once. Like every rule of this kind it compares
    in float32.

    Args:
        thresholds: one for each exit but the last, in [0, 1]: 0 lets every picture go, and None lets none go, not
            even one whose confidence is exactly 1.
        criterion: what the confidence is, as :func:`confidences` defines it.
        temperatures: one for each exit, the last included, each > 0; logits are divided by them first (temperature
            scaling, arXiv:1706.04599). None: all are 1.

    Raises:
        InputError: a threshold or temperature is out of range, temperatures are not as many as exits, or the
            criterion is unknown.

    Example:
        >>> policy = Policy(thresholds=(0.9, None))
        >>> policy.exits
        3
        >>> policy.judge(torch.tensor([[[9.0, 0.0], [1.0, 0.0]]])).leaves.tolist()
        [True, False]
    """

    thresholds: tuple[float | None, ...]
    criterion: Criterion = "max_probability"
    temperatures: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        problems = [
            f"policy.thresholds: got {threshold} for exit {position}; accepted: a number in [0, 1], or null for never"
            for position, threshold in enumerate(self.thresholds, start=1)
            if threshold is not None and not 0 <= threshold <= 1
        ]
        problems += _criterion_problems("policy.criterion", self.criterion)
        if self.temperatures is not None:
            problems += _temperature_problems("policy.temperatures", self.temperatures, self.exits)
        if problems:
            raise InputError(*problems)

    @property
    def exits(self) -> int:
        """For how many exits it is made: one more than it has thresholds."""
        return len(self.thresholds) + 1

    def judge(self, logits: Tensor) -> Judgement:
        """Judge the last of ``logits`` ``[i + 1, B, C]``, those of the exits so far, on their device."""
        at = len(logits) - 1
        heat = 1.0 if self.temperatures is None else self.temperatures[at]
        confidence = _last_confidence(logits, self.criterion, heat, self.exits)
        return Judgement(logits[-1].argmax(dim=-1), confidence, self.leaves(at, confidence))

    def foregone(self, at: int) -> bool | None:
        """Whether all leave at exit ``at``, from 0, or none, whatever its logits are; None where it depends on them.

        Example:
            >>> [Policy((0.0, 0.5, None)).foregone(at) for at in range(4)]
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


def confidences(
    logits: Tensor, criterion: Criterion = "max_probability", temperatures: tuple[float, ...] | None = None
) -> Tensor:
    """How sure each exit is of each picture: ``logits [E, B, C] -> [E, B]``, float32 in [0, 1], on their device.

    With ``p = softmax(logits / T)``, computed in float32, and the classes that the exits answer with:

    - ``max_probability``: ``max p``.
    - ``margin``: the highest of ``p`` minus the second highest.
    - ``entropy``: ``1 - H(p) / log C``, where ``H(p) = -sum p log p``.
    - ``patience``: ``run / E``, where ``run`` counts the consecutive exits, this one last, that answer with the same
      class (PABEE, arXiv:2006.04152, whose counter is ``run - 1``). Temperatures do not change it.

    A picture has the same bits here as when :meth:`Policy.judge` sees it, in whatever batch. Where logits are not
    finite the confidence is 0.

    Args:
        logits: of all E exits, shallowest first, of at least two classes; any floating dtype.
        criterion: see above.
        temperatures: T of each exit, > 0; None: all are 1.

    Raises:
        InputError: unknown criterion, temperatures out of range or not E, or logits of another shape.

    Example:
        >>> logits = torch.tensor([[[2.0, 0.0, 0.0]], [[4.0, 0.0, 0.0]]])
        >>> [round(value, 3) for value in confidences(logits, "margin").flatten().tolist()]
        [0.68, 0.947]
        >>> confidences(logits, "patience").flatten().tolist()
        [0.5, 1.0]
    """
    if logits.dim() != 3 or logits.shape[2] < 2:
        raise InputError(f"logits: got shape {tuple(logits.shape)}; accepted: [exits, pictures, classes], classes >= 2")
    exits = len(logits)
    problems = _criterion_problems("criterion", criterion)
    if temperatures is not None:
        problems += _temperature_problems("temperatures", temperatures, exits)
    if problems:
        raise InputError(*problems)
    heats = (1.0,) * exits if temperatures is None else temperatures
    return torch.stack([_last_confidence(logits[: i + 1], criterion, heats[i], exits) for i in range(exits)])


def follow(policy: Policy, logits: Tensor) -> Prediction:
    """What ``policy`` makes of stored logits ``[E, N, C]``: who leaves where, and with which answer.

    The same as :meth:`ramify.nn.branching.Branching.predict` on a network with these logits, ``ran`` included.

    Raises:
        InputError: ``policy`` is made for another number of exits, or logits of another shape.

    Example:
        >>> logits = torch.tensor([[[9.0, 0.0], [1.0, 0.0]], [[9.0, 0.0], [0.0, 9.0]]])
        >>> answer = follow(Policy((0.9,)), logits)
        >>> answer.classes.tolist(), answer.exits.tolist(), answer.ran
        ([0, 1], [0, 1], (2, 1))
    """
    found = confidences(logits, policy.criterion, policy.temperatures)
    if policy.exits != len(logits):
        raise InputError(f"policy: got one for {policy.exits} exits; accepted: {len(logits)}, as many as logits has")
    exits = leaving(policy, found)
    classes = logits.argmax(dim=-1).gather(0, exits[None])[0]
    ran = tuple(int((exits >= at).sum()) for at in range(policy.exits))
    return Prediction(classes, exits, found.gather(0, exits[None])[0], ran)


def leaving(policy: Policy, confidence: Tensor) -> Tensor:
    """At which exit each picture leaves, int64 ``[N]`` from 0, by its ``confidence`` at all of them, ``[E, N]``.

    Example:
        >>> leaving(Policy((0.9,)), torch.tensor([[0.95, 0.5], [0.6, 0.6]])).tolist()
        [0, 1]
    """
    stays = torch.stack([~policy.leaves(at, confidence[at]) for at in range(policy.exits)])
    return stays.long().cumprod(dim=0).sum(dim=0)


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that makes the probabilities of one exit most likely (arXiv:1706.04599).

    It minimises the mean of ``-sum_c t_c log softmax(logits / T)_c`` over T in [0.05, 20], where ``t`` is 1 at the
    label, but for ``1 / (N + 1)`` shared by all classes: as in Platt's scaling, one picture's worth of doubt keeps an
    exit that is right on all N from being sure beyond them. In ``1 / T`` this is convex, and a bracketed Newton
    search finds the minimum. Logits that say nothing give 1. Computed in float64 on the CPU; nothing is drawn.

    Args:
        logits: finite, ``[N, C]``.
        labels: int64 ``[N]`` in [0, C).

    Raises:
        InputError: there are no pictures, logits are not finite, or labels do not fit them.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0]]).repeat(4000, 1)  # 98 % sure, and right three times in four
        >>> round(temperature(logits, torch.tensor([0, 0, 0, 1]).repeat(1000)), 2)  # 4 / log 3
        3.64
    """
    if logits.dim() != 2:
        raise InputError(f"logits: got shape {tuple(logits.shape)}; accepted: [pictures, classes]")
    check_labelled(logits[None], labels)
    z = logits.detach().cpu().double()
    z = z - z.amax(dim=1, keepdim=True)
    doubt = 1 / (len(z) + 1)
    mine = (1 - doubt) * z.gather(1, labels.cpu().long()[:, None])[:, 0] + doubt * z.mean(dim=1)
    low, high, sharpness = 1 / HOTTEST, 1 / COLDEST, 1.0  # of 1 / T
    for _ in range(100):
        p = (sharpness * z).softmax(dim=1)
        mean = (p * z).sum(dim=1)
        slope = float((mean - mine).mean())
        bend = float((p * (z - mean[:, None]).square()).sum(dim=1).mean())
        if slope == 0:
            break
        low, high = (sharpness, high) if slope < 0 else (low, sharpness)
        step = sharpness - slope / bend if bend > 0 else math.inf
        # Where Newton leaves the bracket, the geometric middle is next: temperatures are a matter of scale.
        following = step if low < step < high else math.sqrt(low * high)
        done = abs(following - sharpness) <= 1e-12 * sharpness
        sharpness = following
        if done:
            break
    return min(max(1 / sharpness, COLDEST), HOTTEST)


def check_labelled(logits: Tensor, labels: Tensor) -> None:
    """Refuse logits ``[E, N, C]`` that are not finite or empty, and labels ``[N]`` that do not fit them.

    Raises:
        InputError: as said.
    """
    if logits.dim() != 3 or logits.shape[0] < 1 or logits.shape[1] < 1 or logits.shape[2] < 2:
        raise InputError(
            f"logits: got shape {tuple(logits.shape)}; accepted: [exits, pictures, classes] "
            "with at least 1 exit, 1 picture and 2 classes"
        )
    _, pictures, classes = logits.shape
    if labels.shape != (pictures,) or labels.is_floating_point():
        raise InputError(
            f"labels: got {labels.dtype} of shape {tuple(labels.shape)}; "
            f"accepted: whole numbers of shape ({pictures},), one for each picture of logits"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise InputError(
            f"labels: got {int(labels.min())} to {int(labels.max())}; "
            f"accepted: 0 to {classes - 1}, the classes of logits"
        )
    if not logits.isfinite().all():
        raise InputError("logits: got some that are infinite or not a number; accepted: finite ones")


def _last_confidence(logits: Tensor, criterion: Criterion, heat: float, exits: int) -> Tensor:
    """The confidence, ``[B]``, of the last of ``logits`` ``[i + 1, B, C]`` in a network of ``exits``."""
    if criterion == "patience":
        classes = logits.argmax(dim=-1)
        return (classes == classes[-1]).flip(0).long().cumprod(dim=0).sum(dim=0).float() / exits
    z = logits[-1].float()
    if heat != 1.0:
        # The highest logit is taken off before dividing, so that cold temperatures do not overflow.
        z = (z - z.amax(dim=-1, keepdim=True)) / heat
    p = z.softmax(dim=-1)
    if criterion == "max_probability":
        return p.amax(dim=-1).nan_to_num(0.0)  # no quotient of a term and its sum is above 1
    if criterion == "margin":
        first, second = p.topk(2, dim=-1).values.unbind(dim=-1)
        sure = first - second
    else:
        sure = 1 - torch.special.entr(p).sum(dim=-1) / math.log(p.shape[-1])
    return sure.nan_to_num(0.0).clamp(0, 1)


def _criterion_problems(where: str, criterion: str) -> list[str]:
    accepted = get_args(Criterion)
    if criterion in accepted:
        return []
    near = difflib.get_close_matches(criterion, accepted, n=1, cutoff=0.4)
    hint = f" (nearest: {near[0]})" if near else ""
    return [f"{where}: got {criterion!r}{hint}; accepted: {', '.join(accepted)}"]


def _temperature_problems(where: str, temperatures: tuple[float, ...], exits: int) -> list[str]:
    if len(temperatures) != exits:
        return [f"{where}: got {len(temperatures)}; accepted: {exits}, one for each exit, the last included"]
    return [
        f"{where}: got {heat} for exit {position}; accepted: a finite number > 0"
        for position, heat in enumerate(temperatures, start=1)
        if not 0 < heat < math.inf
    ]
