"""The exit policy of a saved network: the calibrated one, one with the user's threshold, or none."""

from dataclasses import dataclass, replace

from ramify.errors import InputError
from ramify.ops.exits.policy import Policy
from ramify.ops.exits.sentences import asked_for, calibrated
from ramify.run.checkpoint import Card


@dataclass(frozen=True)
class ChosenPolicy:
    """A policy, whether it was calibrated for the network, and a sentence about it."""

    policy: Policy
    calibrated: bool
    description: str


def choose_policy(card: Card, threshold: float | None = None) -> ChosenPolicy:
    """The policy by which the network of ``card`` answers: the calibrated one, else the last exit for every picture.

    Args:
        card: of a saved network.
        threshold: in [0, 1], in place of the calibrated thresholds; without a calibrated policy it is compared with the
            highest probability.

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
