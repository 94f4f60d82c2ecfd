"""What the exits learn from besides the labels: the deepest exit, and a teacher."""

import zlib

import torch
from torch import Tensor

from ramify.config.rules import DataConfig
from ramify.data.augment import augmentation
from ramify.data.cache import digest
from ramify.data.pictures import Part
from ramify.ops.loss import distillation_losses, exit_distillation_losses, self_distillation_losses
from ramify.run.evaluate import all_logits
from ramify.training.answers import keep_answers, read_answers, rounded
from ramify.training.state import State
from ramify.training.teacher import Teacher

STILL = frozenset(
    (
        *("source", "batch_size", "valid_fraction", "test_fraction", "augment", "limit", "size", "mirror"),
        *(
            "trigger",
            "trigger_class",
            "trigger_size",
            "labels",
            "group",
            "fold",
            "sampler",
            "background",
            "range",
            "broken",
        ),
        *("memory_gb", "max_pixels", "max_file_mb", "max_archive_gb", "max_depth", "max_entries"),
    )
)
"""Keys of ``data`` that, with ``augment`` none, leave a picture the same in every epoch."""


class Guidance:
    """The losses of a training step with what else there is to learn from.

    A teacher sees the very pictures that the exits see. Where these are the same in every epoch it is asked once for
    each, else in every step; its answers are kept on disk either way (:mod:`ramify.training.answers`), and serve any
    run that has the same seed and deals out the same pictures.

    Args:
        state: the run.
        part: its training pictures.
        teacher: None, or a network to learn from.
    """

    def __init__(self, state: State, part: Part, teacher: Teacher | None) -> None:
        train = state.config.train
        self._temperature, self._own = train.distill_temperature, train.distill
        self._weight = train.teacher_weight or 0.0
        self._teacher = teacher if self._weight else None
        self._exits = train.teacher_exits
        self._epoch = self._at = 0
        self._kept: Tensor | None = None
        self._asked: list[Tensor] = []
        self._still: Tensor | None = None
        self._identity = ""
        if self._teacher is None:
            return
        self._identity = _identity(state, part, self._teacher)
        if pictures_stay(state.config.data):
            found = read_answers(self._identity, 0)
            if found is None:
                found = all_logits(self._teacher.network, part, state.where.precision)
                found = rounded(found.transpose(0, 1).contiguous() if self._exits else found[-1])
                keep_answers(self._identity, 0, found)
            self._still = found.to(state.where.device)

    def begin(self, state: State, epoch: int) -> None:
        """Get ready for the steps of ``epoch``."""
        if self._teacher is None or self._still is not None:
            return
        kept = read_answers(self._identity, epoch)
        self._kept = None if kept is None else kept.to(state.where.device)
        self._epoch, self._at = epoch, 0
        self._asked.clear()

    def losses(self, losses: Tensor, logits: Tensor, images: Tensor, index: Tensor, labels: Tensor) -> Tensor:
        """What each exit is to minimise, ``[E]``: :math:`(1 - w) CE_i + w KD_i + d SD_i`.

        ``CE`` are the ``losses`` by the labels, ``KD`` and ``SD`` the divergences from the teacher and from the
        deepest exit, both times ``T^2``; ``w`` is ``train.teacher_weight``, ``d`` ``train.distill``.

        Args:
            losses: ``[E]``.
            logits: ``[E, B, C]``.
            images: what the network has read, ``[B, channels, H, W]``.
            index: which of the training pictures they were, ``[B]``.
            labels: int64 ``[B]``.
        """
        if self._teacher is not None:
            said = self._answers(self._teacher, images, index)
            if self._exits:
                taught = exit_distillation_losses(logits, said.transpose(0, 1), labels, self._temperature)
            else:
                taught = distillation_losses(logits, said, self._temperature)
            losses = (1 - self._weight) * losses + self._weight * taught
        if self._own and len(logits) > 1:
            losses = losses + self._own * self_distillation_losses(logits, self._temperature)
        return losses

    def end(self) -> None:
        """Keep what the teacher has answered in this epoch."""
        if self._asked:
            keep_answers(self._identity, self._epoch, torch.cat(self._asked))
            self._asked.clear()

    def _answers(self, teacher: Teacher, images: Tensor, index: Tensor) -> Tensor:
        """Of the teacher, to the next pictures of the epoch: float16 ``[B, C]``, or ``[B, E, C]`` of all its exits."""
        if self._still is not None:
            return self._still[index.to(self._still.device)]
        if self._kept is not None:
            self._at += len(images)
            return self._kept[self._at - len(images) : self._at]
        self._asked.append(teacher.ask(images, self._exits))
        return self._asked[-1]


def pictures_stay(data: DataConfig) -> bool:
    """Whether a training picture is the same in every epoch.

    Example:
        >>> pictures_stay(DataConfig()), pictures_stay(DataConfig(augment="none"))
        (False, True)
    """
    others = [key for key in DataConfig.model_fields if key not in STILL]
    plain = all(getattr(data, key) == DataConfig.model_fields[key].get_default() for key in others)
    return plain and augmentation(data.augment, data.source) == "none"


def _identity(state: State, part: Part, teacher: Teacher) -> str:
    """Of a teacher, and of all that decides which pictures it sees in which order; the student is no part of it.

    The one thing taken from the student is the mean colour, with which ``data.cutout`` blanks.
    """
    config, team = state.config, state.where.team
    pictures = [0, zlib.crc32(part.labels.cpu().contiguous().numpy().data)]
    for some in part.split(4096):
        pictures[0] = zlib.crc32(some.images.cpu().contiguous().numpy().data, pictures[0])
    dealt = config.data.model_dump(mode="json"), config.seed, config.train.epochs, team.rank, team.size
    exits = ("exits",) if config.train.teacher_exits else ()
    return digest("teacher", teacher.identity, pictures, state.network.mean.tolist(), *dealt, *exits)
