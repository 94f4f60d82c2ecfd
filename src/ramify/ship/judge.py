"""What a policy makes of one exit after the other, in operations that can be exported and in as few as possible.

At batch 1 a graph spends much of its time on small operations, so those of :mod:`ramify.ops.policy` that cannot change
a result are left out; what is left gives the same numbers, which a test compares bit for bit.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ramify.ops.policy import Criterion, Policy


@dataclass(frozen=True)
class State:
    """What is known behind an exit; all ``[B]``, and None where no exit has asked yet.

    Attributes:
        classes, confidence, exits: the answers; of pictures that are undecided, those of the last exit that asked.
        stays: which pictures are undecided.
        latest, streak: for the criterion ``patience``, the class that the last exit gives, and how many exits in a row
            have given it.
    """

    classes: Tensor | None = None
    confidence: Tensor | None = None
    exits: Tensor | None = None
    stays: Tensor | None = None
    latest: Tensor | None = None
    streak: Tensor | None = None

    @property
    def known(self) -> dict[str, Tensor]:
        """Those that are there, by name, in the order above."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value is not None}


def judge(policy: Policy, at: int, logits: Tensor, before: State) -> State:
    """What is known behind exit ``at`` with ``logits [B, classes]``, from what was known ``before`` it.

    The pictures that stay undecided have been asked at every exit that has a threshold; the last exit lets all go, and
    an exit whose threshold is None is not asked.
    """
    last = at == policy.exits - 1
    threshold = None if last else policy.thresholds[at]
    latest, streak = before.latest, before.streak
    if policy.criterion == "patience":
        latest, streak = _lengthened(logits, before)
    if threshold is None and not last:
        return State(before.classes, before.confidence, before.exits, before.stays, latest, streak)
    if streak is None:
        classes = logits.argmax(dim=-1)
        heat = 1.0 if policy.temperatures is None else policy.temperatures[at]
        confidence = _sure(logits, policy.criterion, heat)
    else:
        assert latest is not None
        classes, confidence = latest, streak.float() / policy.exits
    stays = None if threshold is None else confidence < threshold
    if before.stays is None:
        return State(classes, confidence, torch.full_like(classes, at), stays, latest, streak)
    assert before.classes is not None
    assert before.confidence is not None
    assert before.exits is not None
    return State(
        torch.where(before.stays, classes, before.classes),
        torch.where(before.stays, confidence, before.confidence),
        torch.where(before.stays, at, before.exits),
        None if stays is None else before.stays & stays,
        latest,
        streak,
    )


def _lengthened(logits: Tensor, before: State) -> tuple[Tensor, Tensor]:
    """The class of an exit, and how many in a row have now given it."""
    classes = logits.argmax(dim=-1)
    if before.latest is None or before.streak is None:
        return classes, torch.ones_like(classes)
    return classes, torch.where(classes == before.latest, before.streak + 1, 1)


def _sure(logits: Tensor, criterion: Criterion, heat: float) -> Tensor:
    """See :func:`ramify.ops.policy.confidences`; 0 where logits are not finite."""
    # A softmax takes the highest logit off by itself; ahead of a temperature it has to be done here.
    p = (logits if heat == 1 else (logits - logits.amax(dim=-1, keepdim=True)) / heat).softmax(dim=-1)
    if criterion == "max_probability":
        sure = p.amax(dim=-1)
    elif criterion == "margin":
        highest = p.topk(2, dim=-1).values
        sure = highest[:, 0] - highest[:, 1]
    else:
        sure = (1 - torch.special.entr(p).sum(dim=-1) / math.log(p.shape[-1])).clamp(0, 1)
    return torch.where(sure.isnan(), 0.0, sure)
