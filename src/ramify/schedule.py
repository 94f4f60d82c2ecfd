"""When: growth, learning rate and loss weights as pure functions of the epoch. Epochs count from 1.

What is due at an epoch happens before its first step, so with a growth at epoch 25 the 25th epoch is the
first to train the new stage.
"""

from collections.abc import Sequence


def learning_rate(epoch: int, base: float, milestones: Sequence[int], gammas: Sequence[float]) -> float:
    """``base`` times the gamma of every milestone that ``epoch`` has reached.

    Example:
        >>> [learning_rate(epoch, 0.5, (10, 20), (0.5, 0.25)) for epoch in (9, 10, 20)]
        [0.5, 0.25, 0.0625]
    """
    rate = base
    for milestone, gamma in zip(milestones, gammas, strict=True):
        if epoch >= milestone:
            rate *= gamma
    return rate


def growth_due(epoch: int, growth_epochs: Sequence[int]) -> bool:
    """Whether a scheduled growth happens before the first step of ``epoch``."""
    return epoch in growth_epochs


def stages_at(epoch: int, first_stages: int, growth_epochs: Sequence[int]) -> int:
    """Stages that exist while ``epoch`` trains, under scheduled growth.

    Example:
        >>> [stages_at(epoch, 1, (5, 9)) for epoch in (4, 5, 9)]
        [1, 2, 3]
    """
    return first_stages + sum(epoch >= due for due in growth_epochs)


TAU_START = 0.01


def exit_weights(epoch: int, epochs: int, exits: int, tau_max: Sequence[float]) -> tuple[float, ...]:
    """Weight of each existing exit's cross-entropy in the loss of ``epoch``.

    The deepest exit that exists weighs 1: it is the final classifier, or stands in for it until the network has
    grown. Every other internal classifier weighs ``tau_i``, which rises linearly over the epochs from 0.01 to
    ``tau_max[i]`` (Shallow-Deep Networks, arXiv:1810.07052).

    Args:
        epoch: 1 to ``epochs``.
        exits: how many exits exist, 1 to ``len(tau_max) + 1``.
        tau_max: one number for each internal classifier of the grown network.

    Example:
        >>> exit_weights(1, 11, 2, (0.51, 0.76)), exit_weights(11, 11, 3, (0.51, 0.76))
        ((0.01, 1.0), (0.51, 0.76, 1.0))
    """
    ramp = (epoch - 1) / max(epochs - 1, 1)
    return (*(TAU_START + ramp * (top - TAU_START) for top in tau_max[: exits - 1]), 1.0)


def ready_for_best(epoch: int, growth_epochs: Sequence[int], prune_epochs: Sequence[int]) -> bool:
    """Whether ``epoch`` may be the best one: nothing is left to grow or to prune.

    Earlier epochs are of another network, smaller or denser, than the run is asked for.
    """
    return epoch >= max((*growth_epochs, *prune_epochs), default=1)
