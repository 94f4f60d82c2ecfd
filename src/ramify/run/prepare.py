"""What a run needs before its first epoch: a place to compute, its pictures dealt out, nothing left open."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ramify.config import Config, keys, resolve
from ramify.configfile import read_config
from ramify.data.fetch import Progress
from ramify.data.pictures import Part, PictureSet
from ramify.data.sources import load_pictures
from ramify.data.split import split
from ramify.errors import ConfigError
from ramify.run.folder import CONFIG
from ramify.yamltext import to_text

SMALL = 16 * 16
"""Pictures of up to so many pixels are computed with one thread, unless ``train.threads`` says otherwise."""


@dataclass(frozen=True)
class Place:
    """Where and how precisely a run computes."""

    device: torch.device
    precision: str


@dataclass(frozen=True)
class Parts:
    """The pictures of a run as they were dealt out, and the names of their classes."""

    train: Part
    valid: Part
    test: Part
    classes: tuple[str, ...]

    @property
    def counts(self) -> tuple[int, int, int]:
        return len(self.train), len(self.valid), len(self.test)


def prepare(config: Config, progress: Progress | None = None) -> tuple[Config, Place, Parts]:
    """The configuration with nothing left open, where the run computes, and its pictures.

    Raises:
        InputError: the machine lacks the device, or the pictures cannot be read or do not fit the configuration.
        RunError: the pictures cannot be fetched.
    """
    config = resolve(config)
    where = place(config)
    pictures = load_pictures(config.data, progress)
    config = fit_to(config, pictures)
    return config, where, deal(config, pictures)


def child_config(parent: Path, overrides: Sequence[str], compact: bool = False) -> Config:
    """The configuration of a run that prunes the network of ``parent`` and fine-tunes it.

    It is the parent's, but ``prune.*`` starts from the defaults, with one pruning of the whole network before the
    first of 5 epochs, at half the parent's learning rate; ``overrides`` come last. With ``compact`` its dead channels
    are taken out at the end; without overrides of ``prune`` or ``train``, that is all that happens.

    Raises:
        ConfigError: an override is not accepted.
    """
    rate = read_config([parent / CONFIG]).train.learning_rate / 2
    fresh = [f"{key}={to_text(field.get_default())}" for key, field in keys() if key.startswith("prune.")]
    changes = [
        "name=null",
        f"runs_dir={parent.parent}",
        f"parent={parent}",
        "growth.epochs=null",
        *fresh,
        "prune.enabled=true",
        "prune.epochs=[1]",
        "train.epochs=5",
        f"train.learning_rate={rate!r}",
        "train.milestones=null",
        "train.gammas=0.2",
    ]
    if compact:
        changes.append("prune.compact=true")
        only = not any(text.startswith(("prune.", "train.")) for text in overrides)
        if only:
            changes += ["prune.enabled=false", "prune.epochs=[]", "train.epochs=0"]
    return read_config([parent / CONFIG], [*changes, *overrides])


def place(config: Config) -> Place:
    """The device and precision that ``train.device`` and ``train.precision`` ask for.

    Raises:
        ConfigError: this machine has no such device.
    """
    wanted = config.train.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(wanted)
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there[device.type]:
        here = ", ".join(name for name, found in there.items() if found)
        raise ConfigError(f"train.device: got '{wanted}'; accepted: auto, {here} on this machine")
    precision = config.train.precision
    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return Place(device, precision)


def fit_to(config: Config, pictures: PictureSet) -> Config:
    """Fill in the shape and the number of classes that ``pictures`` have, and the threads that suit them.

    Raises:
        ConfigError: the configuration says otherwise.
    """
    found = {"input_shape": pictures.shape, "classes": len(pictures.classes)}
    problems = [
        f"network.{key}: got {said}; accepted: {value}, as {config.data.source} has it"
        for key, value in found.items()
        if (said := getattr(config.network, key)) is not None and said != value
    ]
    if problems:
        raise ConfigError(*problems)
    threads = config.train.threads
    if threads is None:
        # Steps on tiny pictures gain little from a second thread, and wait for it whenever a core is taken.
        _, height, width = pictures.shape
        threads = 1 if height * width <= SMALL else torch.get_num_threads()
    return config.model_copy(
        update={
            "network": config.network.model_copy(update=found),
            "train": config.train.model_copy(update={"threads": threads}),
        }
    )


@contextlib.contextmanager
def computing_with(config: Config) -> Iterator[None]:
    """Compute with ``train.threads`` processor threads inside the block, and with as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(config.train.threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def deal(config: Config, pictures: PictureSet) -> Parts:
    """The seeded split of a run: the same for training, for pruning and after a resumption."""
    rest, held_out = split(pictures.train, config.data.valid_fraction, config.seed, classes=pictures.classes)
    return Parts(rest, held_out, pictures.test, pictures.classes)
