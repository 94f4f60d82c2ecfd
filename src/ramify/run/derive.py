"""Configurations made from another one: of a child run, of a converted network, and completed by the pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

import torch

from ramify.config.keys import keys
from ramify.config.network import EXITS_AT
from ramify.config.read import read_config
from ramify.config.rules import Config, NetworkConfig, TrainConfig
from ramify.config.yamltext import to_text
from ramify.data.pictures import PictureSet
from ramify.errors import ConfigError, InputError
from ramify.nn.network import Network, architecture
from ramify.ops.cost import place_exits
from ramify.ops.growing.convert import bare_config, cut_config
from ramify.run.device import SMALL
from ramify.run.folder import CONFIG
from ramify.run.pictures import Parts
from ramify.run.saved import read_saved

NO_GROWTH = {
    "growth.mode": "scheduled",
    "growth.epochs": None,
    "growth.every": None,
    "growth.plan": None,
    "growth.learning_rate": "shared",
}
"""A run with a parent does not grow."""

UNTIMED = {"train.milestones": None, "train.warmup": 0, "data.sizes": None}
"""Keys in epochs, which a run with other epochs than its parent's does not inherit."""

OF_THE_PLACE = frozenset({"name", "seed", "runs_dir", "train.device", "train.threads"})
"""Keys of the place of a run, not of its task."""

TEACHER = "teacher"
"""The folder of a run that holds its teacher."""

EVERY_CELL = 8
"""A converted network of at most so many cells gets an internal classifier at each but the last by default."""

_NO_PRUNING = {key: field.get_default() for key, field in keys() if key.startswith("prune.")}


def child_config(parent: Path, overrides: Sequence[str], compact: bool = False) -> Config:
    """The configuration of a run that prunes the network of ``parent`` and fine-tunes it.

    It is the parent's with ``prune.*`` at the defaults and one pruning of the whole network before the first of 5
    epochs, at half the learning rate; ``overrides`` come last. With ``compact`` its dead channels are removed at the
    end; without overrides of ``prune`` or ``train``, nothing else happens.

    Raises:
        ConfigError: an override is not accepted.
    """
    train = read_config([parent / CONFIG]).train
    changes = {
        **_of_child(parent),
        "convert": None,
        **_NO_PRUNING,
        "prune.enabled": True,
        "prune.epochs": (1,),
        "train.epochs": 5,
        "train.exits_only": False,
        "train.learning_rate": train.learning_rate / 2,
        "train.gammas": 0.2,
        **_same_teacher(parent, train),
    }
    if compact:
        changes["prune.compact"] = True
        asked = {text.partition("=")[0] for text in overrides} - OF_THE_PLACE
        only = not any(key.startswith(("prune.", "train.")) for key in asked)
        if only:
            changes |= {"prune.enabled": False, "prune.epochs": (), "train.epochs": 0}
    return read_config([parent / CONFIG], overrides, changes)


def _of_child(parent: Path) -> dict[str, object]:
    """What every run with a parent changes."""
    own = {"name": None, "runs_dir": str(parent.parent), "parent": str(parent)}
    return {**own, **NO_GROWTH, **UNTIMED, "train.trunk_first": 0, "train.freeze_epochs": 0}


def _same_teacher(parent: Path, train: TrainConfig) -> dict[str, object]:
    """The teacher of the parent, from the copy in the parent's folder."""
    kept = parent / TEACHER
    return {"train.teacher": str(kept)} if train.teacher is not None and kept.exists() else {}


ConfigT = TypeVar("ConfigT", bound=Config)


def fit_to(config: ConfigT, pictures: PictureSet | Parts) -> ConfigT:
    """Fill in the shape, classes and range of ``pictures``, and the threads that suit them.

    Raises:
        ConfigError: the configuration says otherwise.
    """
    shape = pictures.train.shape
    actual = {"input_shape": shape, "classes": len(pictures.classes)}
    problems = [
        f"network.{key}: got {asked}; accepted: {value}, as {config.data.source} has it"
        for key, value in actual.items()
        if (asked := getattr(config.network, key)) is not None and asked != value
    ]
    problems += too_large_or_small(config, min(shape[1:]))
    weights = config.train.class_weights
    if isinstance(weights, tuple) and (len(weights) != len(pictures.classes) or not any(weights)):
        many = f"{len(pictures.classes)} numbers, one for each of {', '.join(pictures.classes[:5])}, and not all 0"
        problems.append(f"train.class_weights: got {to_text(weights)}; accepted: {many}")
    if problems:
        raise ConfigError(*problems)
    threads = config.train.threads
    if threads is None:
        # Steps on tiny pictures gain little by a second thread, and wait for it whenever a core is busy.
        _, height, width = shape
        threads = 1 if height * width <= SMALL else torch.get_num_threads()
    return config.model_copy(
        update={
            "network": place_exits(config.network.model_copy(update=actual)),
            "train": config.train.model_copy(update={"threads": threads}),
            "data": config.data.model_copy(update={"range": config.data.range or pictures.files.range}),
        }
    )


def too_large_or_small(config: Config, side: int) -> list[str]:
    """Keys that do not suit pictures whose shorter side is ``side``."""
    data, problems = config.data, list[str]()
    for key, length in (("cutout", data.cutout), ("shift", data.shift)):
        if length is not None and length >= side:
            problems.append(f"data.{key}: got {length}; accepted: less than {side}, the side of the pictures")
    if data.sizes is None:
        return problems
    got = f"data.sizes: got {to_text(data.sizes)}"
    if config.network.has_backbone:
        return [*problems, f"{got}; accepted: null, as a backbone reads pictures of one size"]
    cells = config.network.cells
    built = architecture(config.network)
    if any(spec.type == "linear" for spec in built.cells[: len(config.network.structure)]):
        problems.append(f"{got}; accepted: null, as the linear cells of {cells} read pictures of one size")
    if data.sizes[-1][1] != side:
        problems.append(f"{got}; accepted: {side} in the end, the side of the pictures")
    if data.sizes[0][1] < built.smallest:
        problems.append(f"{got}; accepted: sides of {built.smallest} or more for network.cells={cells}")
    return problems


def converted_config(parent: Path, to: Literal["sdn", "cnn", "extend"] | int, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a run that converts the network of ``parent``.

    - ``sdn``: with internal classifiers, which train alone: 25 epochs of Adam at 0.001, a tenth of it from epoch 15
      (Shallow-Deep Networks, arXiv:1810.07052). Without ``network.structure`` or ``network.exits_at`` in
      ``overrides``, they stand at the fractions of the paper, or behind every cell of a network of up to 8 cells.
    - ``cnn``: without internal classifiers, and without training.
    - ``extend``: a deeper network, whose ``network.structure`` is in ``overrides``, that begins as the parent's and
      trains as the parent did. Its final classifier pools as its internal classifiers do, so that it can begin as one.
    - a number: up to that exit, counted from 1, and without training.

    Args:
        parent: the folder of the run.
        to: what to convert to.
        overrides: ``key=value``, which come last.

    Raises:
        ConfigError: an override is not accepted.
        InputError: there is no such exit.
    """
    config = read_config([parent / CONFIG])
    changes = {
        **_of_child(parent),
        "convert": "cut" if isinstance(to, int) else to,
        **_NO_PRUNING,
        "train.tau_max": None,
        "train.gammas": 0.2,
    }
    if to != "extend":
        # The trunk does not learn, and one exit may be left.
        changes |= {"train.exit_gradients": "sum", "train.distill": 0, "train.distill_temperature": 4.0}
        changes |= {"train.teacher": None, "train.teacher_weight": None, "train.teacher_exits": False}
    network = config.network
    if to in ("sdn", "extend") and network.kind == "full":
        changes["network.kind"] = "full_ic"
    if to == "sdn":
        cells = len(network.structure)
        placed = any(text.startswith(("network.structure=", "network.exits_at=")) for text in overrides)
        if not placed and cells > EVERY_CELL:
            changes["network.exits_at"] = EXITS_AT
        else:
            changes |= {"network.exits_at": None, "network.structure": (1,) * (cells - 1) + (0,)}
        recipe = {"optimizer": "adam", "learning_rate": 0.001, "epochs": 25, "exits_only": True}
        recipe |= {"schedule": "steps", "gammas": 0.1, "final_rate": 0, "momentum": 0.9, "nesterov": False}
        if not any(text.startswith("train.epochs=") for text in overrides):
            recipe["milestones"] = (15,)
        changes |= {f"train.{key}": value for key, value in recipe.items()}
    elif to == "extend":
        changes |= {"network.final": network.exit, "train.exits_only": False}
        changes |= _same_teacher(parent, config.train)
    else:
        built = read_saved(parent)[0]
        exits = len(built.stages)
        if isinstance(built, Network):
            fewer = bare_config(built.config) if to == "cnn" else cut_config(built.config, to, exits)
            changed = ("kind", "structure", "exits_at", "channels", "strides")
            changes |= {f"network.{key}": getattr(fewer, key) for key in changed}
        else:
            changes |= _fewer_exits(network, 1 if to == "cnn" else to, exits)
        changes |= {"train.epochs": 0, "train.exits_only": False}
    return read_config([parent / CONFIG], overrides, changes)


def _fewer_exits(network: NetworkConfig, exits: int, count: int) -> dict[str, object]:
    """The keys of a backbone that is cut to the first ``exits`` of ``count``."""
    if not 1 <= exits <= count:
        raise InputError(f"exit: got {exits}; accepted: 1 to {count}, the exits that there are")
    kept = (network.exits_at or ())[: exits - 1]
    return {"network.exits_at": kept} if kept else {"network.kind": "full", "network.exits_at": None}
