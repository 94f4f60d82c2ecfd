"""Which exit policy answers: the calibrated one, one that the user asks for, or none."""

from dataclasses import dataclass, replace

from ramify.errors import InputError
from ramify.ops.exits.policy import Policy
from ramify.ops.exits.sentences import asked_for, calibrated
from ramify.run.checkpoint import Card


@dataclass(frozen=True)
class ChosenPolicy:
    """A policy and where it comes from.

    Attributes:
        policy: for as many exits as the network has.
        calibrated: whether it is the one that was calibrated for the network.
        description: the same as one sentence for the user.
    """

    policy: Policy
    calibrated: bool
    description: str


def choose_policy(card: Card, threshold: float | None = None) -> ChosenPolicy:
    """The policy that the network of ``card`` answers by.

    It is the calibrated one. With ``threshold`` a picture leaves at the first exit whose confidence reaches that
    number: the calibrated policy with other thresholds, or the highest probability where there is none. With neither,
    every picture goes to the last exit: thresholds that nobody has measured are not made up.

    Args:
        card: of a saved network.
        threshold: in [0, 1], the same at every exit.

    Raises:
        InputError: ``threshold`` is out of range.
    """
    inner = card.stages - 1
    if threshold is not None:
        if not 0 <= threshold <= 1:
            raise InputError(f"threshold: got {threshold:g}; accepted: a number in [0, 1]")
        kept = Policy((None,) * inner) if card.policy is None else card.policy.calibration.policy
        policy = replace(kept, thresholds=(threshold,) * inner)
        return ChosenPolicy(policy, False, asked_for(policy.criterion, threshold))
    if card.policy is not None:
        policy = card.policy.calibration.policy
        return ChosenPolicy(policy, True, calibrated(policy.criterion, policy.combine, policy.fallback))
    description = (
        "policy: none was calibrated, so every picture goes to the last exit (ramify calibrate NAME finds one)"
    )
    return ChosenPolicy(Policy((None,) * inner), False, description)
