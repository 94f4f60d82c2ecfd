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


def prune_targets(
    policy: str,
    epoch: int,
    prune_epochs: Sequence[int],
    births: Sequence[int],
    keep_ratio: float | Sequence[float],
    min_ratio: float | Sequence[float] | None = None,
) -> float | dict[int, float]:
    """What the pruning due at ``epoch`` is to keep: one ratio for the whole network, or one for each stage it takes.

    - ``skip_layer``: the i-th pruning takes the i-th stage alone, to ``keep_ratio[i]``.
    - ``normal``: the whole network, to ``keep_ratio``.
    - ``iterative``: every stage that exists, to ``max(keep_ratio[s] ** n, min_ratio[s])``, n being how often that
      stage has been pruned, this time included.

    Args:
        policy: one of these three.
        epoch: one of ``prune_epochs``.
        births: the epoch from which each stage exists.
        keep_ratio: a number, or one for each stage; with one fewer, the last stage takes the last.
        min_ratio: likewise; None is no minimum.

    Example:
        >>> prune_targets("iterative", 30, (10, 20, 30), (1, 15, 40), 0.5, 0.2)
        {0: 0.2, 1: 0.25}
        >>> prune_targets("skip_layer", 20, (10, 20, 50), (1, 15, 40), (0.5, 0.4))
        {1: 0.4}
    """
    keeps, floors = _each(keep_ratio, len(births)), _each(0.0 if min_ratio is None else min_ratio, len(births))
    if policy == "normal":
        return keeps[0]
    if policy == "skip_layer":
        stage = list(prune_epochs).index(epoch)
        return {stage: keeps[stage]}
    targets: dict[int, float] = {}
    for stage, birth in enumerate(births):
        if birth <= epoch:
            times = sum(birth <= pruned <= epoch for pruned in prune_epochs)
            targets[stage] = max(keeps[stage] ** times, floors[stage])
    return targets


def _each(value: float | Sequence[float], stages: int) -> list[float]:
    if isinstance(value, int | float):
        return [value] * stages
    return [value[min(stage, len(value) - 1)] for stage in range(stages)]


def ready_for_best(epoch: int, growth_epochs: Sequence[int], prune_epochs: Sequence[int]) -> bool:
    """Whether ``epoch`` may be the best one: nothing is left to grow or to prune.

    Earlier epochs are of another network, smaller or denser, than the run is asked for.
    """
    return epoch >= max((*growth_epochs, *prune_epochs), default=1)
