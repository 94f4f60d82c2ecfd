"""What the exits learn from besides the labels: the deepest exit, and a teacher."""

from torch import Tensor

from ramify.config.rules import DataConfig
from ramify.data.augment import augmentation
from ramify.data.pictures import Part
from ramify.ops.loss import distillation_losses, exit_distillation_losses, self_distillation_losses
from ramify.run.evaluate import all_logits
from ramify.training.state import State
from ramify.training.teacher import Teacher, to_float16

_FIXED_KEYS = frozenset(
    (
        *("source", "batch_size", "valid_fraction", "test_fraction", "augment", "limit", "size", "mirror", "labels"),
        *("trigger", "trigger_class", "trigger_size", "group", "fold", "sampler", "background", "range", "broken"),
        *("memory_gb", "max_pixels", "max_file_mb", "max_archive_gb", "max_depth", "max_entries"),
    )
)
"""Keys of ``data`` that, with ``augment`` none, leave a picture the same in every epoch."""


class Guidance:
    """The loss of each exit in a training step, with what it learns from the teacher and from the deepest exit.

    The teacher sees the same pictures as the exits. It answers once for each picture where that is the same in every
    epoch, else in every step.

    Args:
        state: the run.
        part: its training pictures.
        teacher: the network to learn from, if any.
    """

    def __init__(self, state: State, part: Part, teacher: Teacher | None) -> None:
        train = state.config.train
        self._temperature, self._own = train.distill_temperature, train.distill
        self._weight = train.teacher_weight or 0.0
        self._teacher = teacher if self._weight else None
        self._exits = train.teacher_exits
        self._fixed: Tensor | None = None  # of every training picture
        if self._teacher is not None and pictures_stay(state.config.data):
            logits = all_logits(self._teacher.network, part, state.where.precision)
            fixed = to_float16(logits.transpose(0, 1).contiguous() if self._exits else logits[-1])
            self._fixed = fixed.to(state.where.device)

    def losses(self, losses: Tensor, logits: Tensor, images: Tensor, index: Tensor, labels: Tensor) -> Tensor:
        """The loss of each exit, ``[E]``: :math:`(1 - w) CE_i + w KD_i + d SD_i`.

        ``CE`` are the ``losses`` by the labels, ``KD`` and ``SD`` the divergences from the teacher and from the
        deepest exit, both times ``T^2``; ``w`` is ``train.teacher_weight``, ``d`` ``train.distill``.

        Args:
            losses: ``[E]``.
            logits: ``[E, B, C]``.
            images: ``[B, channels, H, W]``.
            index: of the training pictures that they show, ``[B]``.
            labels: int64 ``[B]``.
        """
        if self._teacher is not None:
            answers = self._answers(self._teacher, images, index)
            if self._exits:
                divergences = exit_distillation_losses(logits, answers.transpose(0, 1), labels, self._temperature)
            else:
                divergences = distillation_losses(logits, answers, self._temperature)
            losses = (1 - self._weight) * losses + self._weight * divergences
        if self._own and len(logits) > 1:
            losses = losses + self._own * self_distillation_losses(logits, self._temperature)
        return losses

    def _answers(self, teacher: Teacher, images: Tensor, index: Tensor) -> Tensor:
        """The teacher's logits, float16 ``[B, C]``, or ``[B, E, C]`` of all its exits."""
        return teacher.ask(images, self._exits) if self._fixed is None else self._fixed[index.to(self._fixed.device)]


def pictures_stay(data: DataConfig) -> bool:
    """Whether a training picture is the same in every epoch.

    Example:
        >>> pictures_stay(DataConfig()), pictures_stay(DataConfig(augment="none"))
        (False, True)
    """
    drawn = [key for key in DataConfig.model_fields if key not in _FIXED_KEYS]
    plain = all(getattr(data, key) == DataConfig.model_fields[key].get_default() for key in drawn)
    return plain and augmentation(data.augment, data.source) == "none"
