"""Configurations made from another one: of a child run, of a converted network, and with what the pictures decide."""

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
from ramify.run.device import Place as Place
from ramify.run.device import place as place
from ramify.run.folder import CONFIG
from ramify.run.pictures import Parts as Parts
from ramify.run.pictures import deal as deal
from ramify.run.saved import read_saved

NO_GROWTH = (
    "growth.mode=scheduled",
    "growth.epochs=null",
    "growth.every=null",
    "growth.plan=null",
    "growth.learning_rate=shared",
)
"""A run with a parent does not grow."""

UNTIMED = ("train.milestones=null", "train.warmup=0", "data.sizes=null")
"""What a run with other epochs than its parent's does not take over."""
TEACHER = "teacher"
"""The folder in a run that keeps its teacher."""

EVERY_CELL = 8
"""Up to so many cells, each but the last is given an internal classifier where the user does not say which."""


def child_config(parent: Path, overrides: Sequence[str], compact: bool = False) -> Config:
    """The configuration of a run that prunes the network of ``parent`` and fine-tunes it.

    It is the parent's, but ``prune.*`` starts from the defaults, with one pruning of the whole network before the
    first of 5 epochs, at half the parent's learning rate; ``overrides`` come last. With ``compact`` its dead channels
    are taken out at the end; without overrides of ``prune`` or ``train``, that is all that happens.

    Raises:
        ConfigError: an override is not accepted.
    """
    known = read_config([parent / CONFIG]).train
    rate = known.learning_rate / 2
    fresh = [f"{key}={to_text(field.get_default())}" for key, field in keys() if key.startswith("prune.")]
    changes = [
        "name=null",
        f"runs_dir={parent.parent}",
        f"parent={parent}",
        "convert=null",
        *NO_GROWTH,
        *fresh,
        "prune.enabled=true",
        "prune.epochs=[1]",
        "train.epochs=5",
        "train.exits_only=false",
        "train.trunk_first=0",
        "train.freeze_epochs=0",
        f"train.learning_rate={rate!r}",
        *UNTIMED,
        "train.gammas=0.2",
        *_same_teacher(parent, known),
    ]
    if compact:
        changes.append("prune.compact=true")
        only = not any(text.startswith(("prune.", "train.")) for text in overrides)
        if only:
            changes += ["prune.enabled=false", "prune.epochs=[]", "train.epochs=0"]
    return read_config([parent / CONFIG], [*changes, *overrides])


def _same_teacher(parent: Path, train: TrainConfig) -> list[str]:
    """For a run that learns from its parent's teacher: from the copy that the parent has kept."""
    kept = parent / TEACHER
    return [f"train.teacher={to_text(str(kept))}"] if train.teacher is not None and kept.exists() else []


ConfigT = TypeVar("ConfigT", bound=Config)


def fit_to(config: ConfigT, pictures: PictureSet | Parts) -> ConfigT:
    """Fill in the shape, the number of classes and the range that ``pictures`` have, and the threads that suit them.

    Raises:
        ConfigError: the configuration says otherwise.
    """
    shape = pictures.train.shape
    found = {"input_shape": shape, "classes": len(pictures.classes)}
    problems = [
        f"network.{key}: got {said}; accepted: {value}, as {config.data.source} has it"
        for key, value in found.items()
        if (said := getattr(config.network, key)) is not None and said != value
    ]
    problems += _too_large_or_small(config, min(shape[1:]))
    weights = config.train.class_weights
    if isinstance(weights, tuple) and (len(weights) != len(pictures.classes) or not any(weights)):
        many = f"{len(pictures.classes)} numbers, one for each of {', '.join(pictures.classes[:5])}, and not all 0"
        problems.append(f"train.class_weights: got {to_text(weights)}; accepted: {many}")
    if problems:
        raise ConfigError(*problems)
    threads = config.train.threads
    if threads is None:
        # Steps on tiny pictures gain little from a second thread, and wait for it whenever a core is taken.
        _, height, width = shape
        threads = 1 if height * width <= SMALL else torch.get_num_threads()
    return config.model_copy(
        update={
            "network": place_exits(config.network.model_copy(update=found)),
            "train": config.train.model_copy(update={"threads": threads}),
            "data": config.data.model_copy(update={"range": config.data.range or pictures.files.range}),
        }
    )


def _too_large_or_small(config: Config, side: int) -> list[str]:
    """What of the recipe does not suit pictures whose shorter side is ``side``."""
    data, problems = config.data, []
    if data.cutout is not None and data.cutout >= side:
        problems.append(f"data.cutout: got {data.cutout}; accepted: less than {side}, the side of the pictures")
    if data.shift is not None and data.shift >= side:
        problems.append(f"data.shift: got {data.shift}; accepted: less than {side}, the side of the pictures")
    if data.sizes is not None:
        first, last = data.sizes[0][1], data.sizes[-1][1]
        if config.network.has_backbone:
            return [f"data.sizes: got {to_text(data.sizes)}; accepted: null, as a backbone reads pictures of one size"]
        built = architecture(config.network)
        if any(spec.type == "linear" for spec in built.cells[: len(config.network.structure)]):
            told = f"null, as the linear cells of {config.network.cells} read pictures of one size"
            problems.append(f"data.sizes: got {to_text(data.sizes)}; accepted: {told}")
        if last != side:
            told = to_text(data.sizes)
            problems.append(f"data.sizes: got {told}; accepted: {side} in the end, the side of the pictures")
        if first < built.smallest:
            told = f"{built.smallest} or more for network.cells={config.network.cells}"
            problems.append(f"data.sizes: got {to_text(data.sizes)}; accepted: sides of {told}")
    return problems


def converted_config(parent: Path, to: Literal["sdn", "cnn", "extend"] | int, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a run that converts the network of ``parent``.

    - ``sdn``: with internal classifiers, which train alone: 25 epochs of Adam at 0.001, a tenth of it from epoch 15,
      as Shallow-Deep Networks (arXiv:1810.07052) does. Without ``network.structure`` or ``network.exits_at`` in
      ``overrides``, they stand at the fractions of the paper, or behind every cell of a network of up to 8 cells.
    - ``cnn``: without internal classifiers, and without training.
    - ``extend``: a deeper network, whose ``network.structure`` is in ``overrides``, that begins as the parent's; it
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
    known = read_config([parent / CONFIG])
    changes = [
        "name=null",
        f"runs_dir={parent.parent}",
        f"parent={parent}",
        f"convert={'cut' if isinstance(to, int) else to}",
        *NO_GROWTH,
        "prune.enabled=false",
        "prune.epochs=[]",
        "prune.keep_ratio=0.5",
        "prune.min_ratio=null",
        "prune.compact=false",
        "train.tau_max=null",
        "train.trunk_first=0",
        "train.freeze_epochs=0",
        *UNTIMED,
        "train.gammas=0.1",
    ]
    if to != "extend":
        # No trunk learns, and perhaps one exit is left.
        changes += ["train.exit_gradients=sum", "train.distill=0", "train.teacher=null", "train.teacher_weight=null"]
    network = known.network
    if to == "sdn":
        cells = len(network.structure)
        placed = any(text.startswith(("network.structure=", "network.exits_at=")) for text in overrides)
        if not placed and cells > EVERY_CELL:
            changes.append(f"network.exits_at={to_text(EXITS_AT)}")
        else:
            changes += ["network.exits_at=null", f"network.structure={to_text((1,) * (cells - 1) + (0,))}"]
        if network.kind == "full":
            changes.append("network.kind=full_ic")
        recipe = ["optimizer=adam", "learning_rate=0.001", "epochs=25", "exits_only=true", "nesterov=false"]
        recipe += ["schedule=steps", "final_rate=0"]
        if not any(text.startswith("train.epochs=") for text in overrides):
            recipe.append("milestones=[15]")
        changes += [f"train.{text}" for text in recipe]
    elif to == "extend":
        changes += [f"network.final={network.exit}", "train.exits_only=false", "train.gammas=0.2"]
        changes += _same_teacher(parent, known.train)
        if network.kind == "full":
            changes.append("network.kind=full_ic")
    else:
        there = read_saved(parent)[0]
        if isinstance(there, Network):
            told = bare_config(there.config) if to == "cnn" else cut_config(there.config, to, len(there.stages))
            changes += [f"network.{key}={to_text(getattr(told, key))}" for key in ("kind", "structure", "exits_at")]
        else:
            changes += _fewer_exits(network, 1 if to == "cnn" else to, len(there.stages))
        changes += ["train.epochs=0", "train.exits_only=false"]
    return read_config([parent / CONFIG], [*changes, *overrides])


def _fewer_exits(network: NetworkConfig, exits: int, there: int) -> list[str]:
    """What is left of a backbone's exits once it is cut to the first ``exits`` of ``there``."""
    if not 1 <= exits <= there:
        raise InputError(f"exit: got {exits}; accepted: 1 to {there}, the exits that there are")
    kept = (network.exits_at or ())[: exits - 1]
    return [f"network.exits_at={to_text(kept)}"] if kept else ["network.kind=full", "network.exits_at=null"]
