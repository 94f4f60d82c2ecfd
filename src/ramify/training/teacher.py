"""The teacher of a run: a saved network whose copy is kept with the run."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ramify.config.rules import Config
from ramify.errors import ConfigError, InputError
from ramify.files import readable_folder, replace_folder
from ramify.nn.branching import Branching
from ramify.run.checkpoint import Card, pack_model, read_model
from ramify.run.derive import TEACHER, too_large_or_small
from ramify.run.device import Place
from ramify.run.evaluate import computing
from ramify.run.pictures import Parts
from ramify.run.saved import find_checkpoint
from ramify.training.state import to_channels_last


@dataclass(frozen=True)
class Teacher:
    """A network in evaluation mode with fixed weights, its card, and where it computes."""

    network: Branching
    card: Card
    where: Place

    def ask(self, images: Tensor, exits: bool = False) -> Tensor:
        """The logits of its last exit, float16 ``[B, C]``, for ``images`` in [0, 1], ``[B, channels, H, W]``.

        With ``exits`` those of all of them, ``[B, E, C]``.
        """
        with torch.inference_mode(), computing(self.where.device, self.where.precision):
            logits = self.network(images)
            logits = (logits.transpose(0, 1) if exits else logits[-1]).float()
        return to_float16(logits.clone())  # autograd refuses tensors of inference mode


def to_float16(logits: Tensor) -> Tensor:
    """Logits as a run uses them, float16.

    Example:
        >>> to_float16(torch.tensor([1.0001, 1e9])).tolist()
        [1.0, 65504.0]
    """
    largest = torch.finfo(torch.float16).max
    return logits.clamp(-largest, largest).to(torch.float16)


def find_teacher(config: Config, where: Place, parts: Parts, folder: Path | None = None) -> Teacher | None:
    """The network that ``train.teacher`` names, None without one; the copy kept in ``folder`` is preferred.

    Raises:
        ConfigError: there is no such network, it cannot be read, or it is for other pictures or classes.
    """
    named = config.train.teacher
    if named is None or config.train.epochs == 0:
        return None
    kept = None if folder is None else readable_folder(folder / TEACHER)
    try:
        network, card = read_model(
            kept if kept is not None and kept.exists() else find_checkpoint(named, config.runs_dir)
        )
    except InputError as error:
        raise ConfigError(*(f"train.teacher: {problem}" for problem in error.problems)) from error
    if card.network.input_shape != config.network.input_shape:
        theirs, ours = (list(network.input_shape or ()) for network in (card.network, config.network))
        raise ConfigError(
            f"train.teacher: got {named}, which takes pictures of {theirs}; accepted: a network for {ours}, as "
            f"{config.data.source} has them"
        )
    small = too_large_or_small(config.model_copy(update={"network": card.network}), min(parts.train.shape[1:]))
    if config.data.sizes is not None and small:
        raise ConfigError(*(f"train.teacher: {named}: {problem}" for problem in small))
    if card.classes != parts.classes:
        raise ConfigError(
            f"train.teacher: got {named}, which knows {_listed(card.classes)}; accepted: a network of the same "
            f"classes, {_listed(parts.classes)}"
        )
    network.requires_grad_(False)
    return Teacher(to_channels_last(network, where.device), card, where)


def keep_teacher(teacher: Teacher | None, folder: Path) -> None:
    """Keep a copy in the run's ``folder``, so that the run can be resumed without the original."""
    if teacher is not None and teacher.where.team.first:
        replace_folder(folder / TEACHER, pack_model(teacher.network, teacher.card))


def _listed(classes: tuple[str, ...]) -> str:
    named = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
    return f"{len(classes)} classes ({named})"
