"""Growth, learning rate, mixing, sizes and loss weights as pure functions of the epoch. Epochs count from 1.

What is due at an epoch happens before its first step: with a growth at epoch 25, that epoch trains the new stage.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ramify.config.rules import ResolvedTraining
from ramify.ops.pruning.policies import POLICIES, Due


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


def cosine(done: float) -> float:
    """Half a cosine from 1 to 0, ``(1 + cos(pi done)) / 2`` for ``done`` in [0, 1] (SGDR, arXiv:1608.03983).

    Example:
        >>> cosine(0), round(cosine(0.25), 3), round(cosine(0.5), 3), cosine(1)
        (1.0, 0.854, 0.5, 0.0)
    """
    return (1 + math.cos(math.pi * done)) / 2


def warming(elapsed: float, warmup: float) -> float:
    """Factor of the learning rate when ``elapsed`` epochs are done: along a line to 1 (arXiv:1706.02677).

    Example:
        >>> warming(0.5, 2), warming(3, 2), warming(0, 0)
        (0.25, 1.0, 1.0)
    """
    return min(1.0, elapsed / warmup) if warmup else 1.0


def rate_at(epoch: int, share: float, train: ResolvedTraining) -> float:
    """The learning rate when a ``share`` of ``epoch`` is done.

    ``steps`` is :func:`learning_rate`. ``cosine`` and ``linear`` fall from the end of the warm-up to the end of the
    last epoch: ``base * (final + (1 - final) f)``, with ``f`` from 1 to 0 along :func:`cosine` or a line. All are
    multiplied by :func:`warming`.

    Args:
        epoch: 1 to ``train.epochs``.
        share: in [0, 1]; a training step takes the rate at its middle, so that no step has a rate of 0.
        train: the section of a resolved configuration.

    Example:
        >>> from ramify.config.rules import Config, TrainConfig, resolve
        >>> keys = TrainConfig(epochs=10, learning_rate=0.4, schedule="cosine", warmup=2, final_rate=0.1)
        >>> train = resolve(Config(train=keys)).train
        >>> [round(rate_at(epoch, share, train), 3) for epoch, share in ((1, 0.0), (2, 1.0), (7, 0.0), (10, 1.0))]
        [0.0, 0.4, 0.22, 0.04]
    """
    elapsed = epoch - 1 + share
    if train.schedule == "steps":
        rate = learning_rate(epoch, train.learning_rate, train.milestones, train.gammas)
    else:
        done = min(1.0, max(0.0, (elapsed - train.warmup) / (train.epochs - train.warmup)))
        falling = cosine(done) if train.schedule == "cosine" else 1 - done
        rate = train.learning_rate * (train.final_rate + (1 - train.final_rate) * falling)
    return rate * warming(elapsed, train.warmup)


def mixing_at(epoch: int, share: float, epochs: int, ramp: float) -> float:
    """Probability that a batch is mixed when a ``share`` of ``epoch`` is done: from 0 to 1 over ``ramp * epochs``.

    Example:
        >>> mixing_at(1, 0.0, 10, 0.5), mixing_at(3, 0.5, 10, 0.5), mixing_at(9, 0.0, 10, 0.5), mixing_at(1, 0.0, 10, 0)
        (0.0, 0.5, 1.0, 1.0)
    """
    return min(1.0, (epoch - 1 + share) / (ramp * epochs)) if ramp else 1.0


def side_at(epoch: int, sizes: Sequence[tuple[int, int]] | None) -> int | None:
    """The shorter side of the training pictures in ``epoch``: that of the last entry reached; None is full size.

    Example:
        >>> [side_at(epoch, ((1, 16), (10, 24), (20, 32))) for epoch in (1, 9, 10, 30)]
        [16, 16, 24, 32]
    """
    reached = [side for first, side in sizes or () if first <= epoch]
    return reached[-1] if reached else None


@dataclass(frozen=True)
class LossRule:
    """The rule of :func:`growth_by_loss`; the keys of ``growth`` of the same names, ``until`` as an epoch."""

    patience: int
    min_improvement: float
    min_epochs: int
    max_epochs: int | None
    until: int


@dataclass(frozen=True)
class GrowthVerdict:
    """What to do before the next epoch, and why."""

    action: Literal["wait", "grow", "stop"]
    reason: str


def growth_by_loss(losses: Sequence[float], growths: Sequence[int], rule: LossRule) -> GrowthVerdict:
    """Whether to grow before the next epoch, or never again.

    The validation loss *stalls* when for ``patience`` epochs since the last growth it has not fallen below
    ``(1 - min_improvement)`` times the lowest that counted before. The network grows when the loss stalls, or after
    ``max_epochs``, but not within ``min_epochs`` of the last growth. A growth has *paid* if the lowest loss since is
    below ``(1 - min_improvement)`` times the lowest before it; when a growth is due and the last one has not paid,
    growth stops. It also stops when the next epoch is later than ``until``.

    Args:
        losses: validation loss of the deepest exit after each epoch so far.
        growths: the epochs before which the network has grown, rising.
        rule: when to grow.

    Example:
        >>> rule = LossRule(patience=2, min_improvement=0.01, min_epochs=2, max_epochs=None, until=20)
        >>> growth_by_loss([2.0, 1.0, 0.5], (), rule).action
        'wait'
        >>> growth_by_loss([2.0, 1.0, 0.999, 0.998], (), rule)
        GrowthVerdict(action='grow', reason='no improvement by 1 % on the loss 1 of epoch 2 for 2 epochs')
        >>> growth_by_loss([2.0, 1.0, 0.999, 0.998, 1.2, 0.997, 0.996], (5,), rule).action
        'wait'
        >>> growth_by_loss([2.0, 1.0, 0.999, 0.998, 1.2, 0.997, 0.996, 0.995], (5,), rule)
        GrowthVerdict(action='stop', reason='growth no longer pays: loss 0.998 before the last growth, 0.995 since')
    """
    if len(losses) >= rule.until:
        return GrowthVerdict("stop", f"after epoch {rule.until} the network does not grow any more")
    first = growths[-1] if growths else 1
    since = losses[first - 1 :]
    if len(since) < rule.min_epochs:
        return GrowthVerdict("wait", f"{len(since)} epochs since the last growth")
    counted, at = since[0], first
    for epoch, loss in enumerate(since[1:], start=first + 1):
        if loss < (1 - rule.min_improvement) * counted:
            counted, at = loss, epoch
    stale = len(losses) - at
    if stale >= rule.patience:
        percent = f"{100 * rule.min_improvement:.3g} %"
        reason = f"no improvement by {percent} on the loss {counted:.3g} of epoch {at} for {stale} epochs"
    elif rule.max_epochs is not None and len(since) >= rule.max_epochs:
        reason = f"{len(since)} epochs have passed since the last growth"
    else:
        return GrowthVerdict("wait", f"the loss {counted:.3g} of epoch {at} is {stale} epochs old")
    if growths:
        before = min(losses[(growths[-2] if len(growths) > 1 else 1) - 1 : first - 1])
        best = min(since)
        if best >= (1 - rule.min_improvement) * before:
            return GrowthVerdict(
                "stop", f"growth no longer pays: loss {before:.3g} before the last growth, {best:.3g} since"
            )
    return GrowthVerdict("grow", reason)


TAU_START = 0.01


def exit_weights(epoch: int, epochs: int, exits: int, tau_max: Sequence[float]) -> tuple[float, ...]:
    """Weight of each existing exit's cross-entropy in the loss of ``epoch``.

    The deepest exit weighs 1. Every other one weighs ``tau_i``, which rises linearly over the epochs from 0.01 to
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


def regrowth_interval(total: int) -> int:
    """Steps between two regrowths in a run of ``total`` steps: a hundredth of them, at least 10 and at most 100.

    Example:
        >>> regrowth_interval(270), regrowth_interval(3000), regrowth_interval(97_750)
        (10, 30, 100)
    """
    return min(100, max(10, total // 100))


def regrowth(step: int, start: int, end: int, interval: int, fraction: float) -> float:
    """The share of each layer's connections that is dropped and regrown at ``step``; 0 where none is due.

    One is due every ``interval`` steps after ``start`` and before ``end``, and the share falls as a cosine from
    ``fraction`` to 0: ``fraction / 2 * (1 + cos(pi * (step - start) / (end - start)))`` (RigL, arXiv:1911.11134).

    Args:
        step: of the run, from 1.
        start: steps before the masks were drawn.
        end: the step from which the masks stay.

    Example:
        >>> [round(regrowth(step, 0, 100, 25, 0.4), 3) for step in (24, 25, 50, 75, 100)]
        [0.0, 0.341, 0.2, 0.059, 0.0]
    """
    since = step - start
    if since <= 0 or step >= end or since % interval:
        return 0.0
    return fraction / 2 * (1 + math.cos(math.pi * since / (end - start)))


def trunk_alone(epoch: int, trunk_first: int, growths: Sequence[int], growing: bool) -> bool:
    """Whether the deepest exit trains alone in ``epoch``: the first half of mixed training (arXiv:2407.14320).

    It does while the network grows, and for ``trunk_first`` epochs from the last growth, without one from epoch 1.

    Args:
        epoch: from 1.
        trunk_first: the key of that name; 0: never.
        growths: the epochs before which the network has grown so far, rising.
        growing: whether another growth may come.

    Example:
        >>> [epoch for epoch in range(1, 9) if trunk_alone(epoch, 3, (), False)]
        [1, 2, 3]
        >>> trunk_alone(6, 3, (2,), True), trunk_alone(7, 3, (2, 6), False), trunk_alone(9, 3, (2, 6), False)
        (True, True, False)
    """
    if trunk_first == 0:
        return False
    return growing or epoch < (growths[-1] if growths else 1) + trunk_first


def last_alone(exits: int) -> tuple[float, ...]:
    """Loss weights with which the deepest of ``exits`` trains alone.

    Example:
        >>> last_alone(3)
        (0.0, 0.0, 1.0)
    """
    return (*(0.0,) * (exits - 1), 1.0)


def prune_targets(
    policy: str,
    epoch: int,
    prune_epochs: Sequence[int],
    births: Sequence[int],
    keep_ratio: float | Sequence[float],
    min_ratio: float | Sequence[float] | None = None,
) -> float | dict[int, float]:
    """The keep ratio of the pruning due at ``epoch``: one for the whole network, or one for each stage that it prunes.

    Args:
        policy: a name in :data:`ramify.ops.pruning.policies.POLICIES`.
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
    keeps, floors = (_for_each_stage(ratio, len(births)) for ratio in (keep_ratio, min_ratio or 0.0))
    return POLICIES[policy].targets(Due(epoch, tuple(prune_epochs), tuple(births), keeps, floors))


def _for_each_stage(value: float | Sequence[float], stages: int) -> tuple[float, ...]:
    if isinstance(value, int | float):
        return (value,) * stages
    return tuple(value[min(stage, len(value) - 1)] for stage in range(stages))


def ready_for_best(epoch: int, growth_epochs: Sequence[int], prune_epochs: Sequence[int]) -> bool:
    """Whether ``epoch`` may be the best one: all growth and pruning is done."""
    return epoch >= max((*growth_epochs, *prune_epochs), default=1)
