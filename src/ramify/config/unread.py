"""Keys that somebody set and that a run with this configuration does not read."""

from collections.abc import Collection, Iterator

from ramify.config.prune import WITHOUT_PICTURES
from ramify.config.rules import Config
from ramify.ops.pruning.policies import DYNAMIC

Reasons = Iterator[tuple[str, Collection[str], str]]
"""A section, keys of it, and why they are not read."""


def unread(config: Config) -> tuple[str, ...]:
    """A sentence for each reason why keys that are not at their defaults are not read.

    They are no errors, so that a sweep may compare values of the keys on which they depend. Keys that ramify fills in
    or moves by itself, such as ``growth.patience``, are not among them.

    Example:
        >>> from ramify.config.read import read_config
        >>> unread(read_config(overrides=["train.optimizer=adamw", "train.momentum=0.5"]))
        ('train.momentum: not read, as train.optimizer is adamw',)
    """
    notes = []
    for name, keys, why in (*_of_training(config), *_of_data(config), *_of_growth(config), *_of_pruning(config)):
        section, defaults = getattr(config, name), Config.model_fields[name].default
        changed = [f"{name}.{key}" for key in keys if getattr(section, key) not in (getattr(defaults, key), ())]
        if changed:
            notes.append(f"{', '.join(changed)}: not read, as {why}")
    return tuple(notes)


def _of_training(config: Config) -> Reasons:
    train = config.train
    if train.epochs == 0:
        return
    if train.optimizer in ("adam", "adamw"):
        yield "train", ("momentum",), f"train.optimizer is {train.optimizer}"
    if train.schedule != "steps":
        yield "train", ("gammas",), f"train.schedule is {train.schedule}"
    if train.weight_decay == 0:
        yield "train", ("decay",), "train.weight_decay is 0"
    if train.distill == 0 and train.teacher is None:
        yield "train", ("distill_temperature",), "train.distill is 0 and train.teacher null"
    if config.network.exits == 1:
        yield "train", ("exit_focus",), "the network has one exit"


def _of_data(config: Config) -> Reasons:
    if config.data.mixup == config.data.cutmix == 0:
        yield "data", ("mix_ramp",), "data.mixup and data.cutmix are 0"


def _of_growth(config: Config) -> Reasons:
    if config.parent is not None:
        return  # its configuration came from there
    if config.growths == 0:
        yield "growth", ("init", "freeze", "min_improvement", "until"), "the network does not grow"
    elif config.growth.mode == "scheduled":
        yield "growth", ("min_improvement", "until"), "growth.mode is scheduled"


def _of_pruning(config: Config) -> Reasons:
    prune = config.prune
    if not prune.enabled:
        others = [key for key in type(prune).model_fields if key not in ("criterion", "compact")]
        yield "prune", others, "prune.enabled is false"
        return
    policy = f"prune.policy is {prune.policy}"
    if prune.policy != "iterative":
        yield "prune", ("min_ratio",), policy
    if prune.policy in DYNAMIC:
        yield "prune", ("batch_size", "batches"), policy
    else:
        yield "prune", ("interval", "fraction", "until"), policy
        if prune.criterion in WITHOUT_PICTURES:
            yield "prune", ("batch_size", "batches"), f"prune.criterion is {prune.criterion}"
