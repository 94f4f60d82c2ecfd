"""The same run in more or fewer epochs, with every key in epochs moved in proportion."""

import contextlib
from collections.abc import Sequence

from ramify.config.keys import growth_epochs, longest_trunk_first, scored_later
from ramify.config.rules import Config
from ramify.errors import ConfigError
from ramify.ops.pruning.policies import POLICIES


def rescale(config: Config, epochs: int) -> Config:
    """``config`` with ``train.epochs = epochs``, and all other keys in epochs in proportion.

    An epoch ``e`` of ``E`` becomes ``1 + (e - 1) * epochs / E``, rounded. Growths and prunings keep their order, and
    different epochs stay different. Prunings by ``normal`` and ``gradual`` may meet: those of one epoch become one,
    and it may be the epoch of a growth, unless its stage starts as an identity. What is pruned after training
    never comes before it. ``train.trunk_first`` shrinks to fit. Null keys stay null, but ``growth.epochs`` where there
    are prunings.

    Args:
        config: not yet resolved.
        epochs: 1 or more.

    Raises:
        ConfigError: there are too few epochs for all growths and prunings.

    Example:
        >>> from ramify import Config, GrowthConfig, TrainConfig
        >>> long = Config(growth=GrowthConfig(epochs=(25, 50, 75)), train=TrainConfig(epochs=250, milestones=(120,)))
        >>> short = rescale(long, 10)
        >>> short.growth.epochs, short.train.milestones
        ((2, 3, 4), (6,))
    """
    if epochs < 1:
        raise ConfigError(f"train.epochs: got {epochs}; accepted: a whole number >= 1")
    if epochs == config.train.epochs:
        return config
    if config.prune.enabled and config.prune.epochs and config.growths and config.growth.mode == "scheduled":
        known = config.growth.model_copy(update={"epochs": growth_epochs(config), "every": None})
        config = config.model_copy(update={"growth": known})
    growth, prune, train = config.growth, config.prune, config.train
    grown, pruned = growth.epochs or (), prune.epochs if prune.enabled else ()
    # However often the whole network is pruned, it ends with prune.keep_ratio.
    merged = not POLICIES[prune.policy].by_stage
    apart = {"growth.epochs": grown, "prune.epochs": () if merged else pruned}
    events = sorted({epoch for own in apart.values() for epoch in own})
    share = epochs / max(train.epochs, 1)
    names = " and ".join(key for key, own in apart.items() if own)
    moved = dict(zip(events, _moved(events, share, epochs, names), strict=True))
    if merged:
        if epochs == 1 < min(pruned, default=1):
            raise ConfigError("train.epochs: got 1; accepted: at least 2, as prune.epochs are after the first epoch")
        after = int(scored_later(config))
        for epoch in pruned:
            first = max((moved[grew] + after for grew in grown if grew <= epoch), default=min(epoch, 2))
            last = min((moved[grew] - after for grew in grown if grew > epoch), default=epochs)
            if last < first:
                raise ConfigError(f"train.epochs: got {epochs}; accepted: more, for the prunings between growths")
            moved.setdefault(epoch, min(max(_at_share(epoch, share), first), last))

    def span(length: int | None) -> int | None:
        return None if length is None else max(1, round(length * share))

    changes: dict[str, dict[str, object]] = {
        "growth": {
            "epochs": None if growth.epochs is None else [moved[epoch] for epoch in growth.epochs],
            "every": span(growth.every),
            "patience": span(growth.patience),
            "min_epochs": span(growth.min_epochs),
            "max_epochs": span(growth.max_epochs),
        },
        "prune": {"epochs": sorted({moved[epoch] for epoch in pruned})},
        "train": {
            "epochs": epochs,
            "milestones": None,
            "warmup": train.warmup * share,
            "trunk_first": 0,
            "freeze_epochs": round(train.freeze_epochs * share),
            "patience": span(train.patience),
        },
    }
    if config.data.sizes is not None:
        sides = [side for _, side in config.data.sizes]
        at = _moved([epoch for epoch, _ in config.data.sizes], share, epochs, "data.sizes")
        changes["data"] = {"sizes": list(zip(at, sides, strict=True))}
    if train.milestones is not None:
        changes["train"]["milestones"] = _moved(train.milestones, share, epochs, "train.milestones")
    keys = config.model_dump()
    scaled = Config.model_validate({**keys, **{name: {**keys[name], **changed} for name, changed in changes.items()}})
    trunk_first = min(round(train.trunk_first * share), longest_trunk_first(scaled))
    return scaled.model_copy(update={"train": scaled.train.model_copy(update={"trunk_first": trunk_first})})


def fewest_epochs(config: Config) -> int:
    """The fewest epochs to which :func:`rescale` can move ``config``.

    Example:
        >>> from ramify import Config, GrowthConfig, TrainConfig
        >>> fewest_epochs(Config(growth=GrowthConfig(epochs=(25, 50, 75)), train=TrainConfig(epochs=250)))
        4
    """
    for epochs in range(1, config.train.epochs):
        with contextlib.suppress(ConfigError):
            return rescale(config, epochs).train.epochs
    return config.train.epochs


def _moved(old: Sequence[int], share: float, epochs: int, name: str) -> tuple[int, ...]:
    """Rising epochs at ``share`` of the ``old`` ones; epoch 1 stays for what was there alone."""
    first = min(old[0], 2) if old else 1
    least = first + len(old) - 1
    if epochs < least:
        raise ConfigError(f"train.epochs: got {epochs}; accepted: at least {least}, for the {len(old)} of {name}")
    return rising([_at_share(epoch, share) for epoch in old], first, epochs)


def _at_share(epoch: int, share: float) -> int:
    return 1 + round((epoch - 1) * share)


def rising(epochs: Sequence[int], first: int, last: int) -> tuple[int, ...]:
    """Strictly rising epochs from ``first`` to ``last``, near ``epochs``, which rise or stay.

    More than fit run over ``last``, which the configuration then refuses.

    Example:
        >>> rising([1, 3, 3, 12], 2, 12), rising([12, 12], 2, 12)
        ((2, 3, 4, 12), (11, 12))
    """
    moved: list[int] = []
    for i, epoch in enumerate(epochs):
        latest = last - (len(epochs) - 1 - i)
        moved.append(max(min(epoch, latest), moved[-1] + 1 if moved else first))
    return tuple(moved)
