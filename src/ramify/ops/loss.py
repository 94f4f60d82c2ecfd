"""The loss of a network with several exits."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ramify.errors import InputError


def exit_losses(
    logits: Tensor,
    labels: Tensor,
    smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    shares: Tensor | None = None,
) -> Tensor:
    """The cross-entropy of each exit, ``logits [E, B, C], labels [B] -> [E]``, mean over the batch.

    It is computed in float32.

    Args:
        logits: of every exit.
        labels: int64 ``[B]``; or the share of each class in each picture, float ``[B, C]`` with rows that sum to 1, as
            :mod:`ramify.data.mix` gives them.
        smoothing: in [0, 1), the share of each label that is spread evenly over all classes (arXiv:1512.00567).
        class_weights: ``[C]``, of the class, or classes, of a picture; see :func:`class_weights`.
        shares: ``[E, B]``, the weight of each picture at each exit; see :func:`arrival_weights`.

    Raises:
        InputError: the logits are not those of every exit, or there is not one label for each picture.
    """
    if logits.dim() != 3:
        raise InputError(
            f"logits: got {list(logits.shape)}; accepted: [exits, pictures, classes], as a network with exits gives; "
            "for a single exit logits[None]"
        )
    if len(labels) != logits.shape[1]:
        raise InputError(
            f"labels: got {len(labels)} for logits {list(logits.shape)}, which are [exits, pictures, classes]; "
            f"accepted: {logits.shape[1]}, one for each picture"
        )
    exits, batch, classes = logits.shape
    repeated = labels.repeat(exits) if labels.dim() == 1 else labels.repeat(exits, 1)
    flat = F.cross_entropy(logits.float().reshape(-1, classes), repeated, reduction="none", label_smoothing=smoothing)
    losses = flat.view(exits, batch)
    if class_weights is not None:
        losses = losses * (class_weights[labels] if labels.dim() == 1 else labels @ class_weights)
    if shares is not None:
        losses = losses * shares
    return losses.mean(dim=1)


def arrival_weights(logits: Tensor, focus: float) -> Tensor:
    """The weight of each picture at each exit, by how likely it reaches it: ``[E, B, C] -> [E, B]``.

    ``w_i = 1 - f + f r_i / mean(r_i)`` with ``r_i = prod_{j < i} (1 - max softmax(z_j))``: an exit learns mostly from
    the pictures of which the exits before it are not sure (after arXiv:2509.08318, with continuous weights). Their mean
    at an exit is 1, and they have no gradient.

    Args:
        logits: of every exit.
        focus: f in [0, 1]; at 0 all weights are 1.
    """
    unsure = 1 - logits.detach().float().softmax(dim=2).amax(dim=2)  # [E, B]
    arrive = torch.cat((torch.ones_like(unsure[:1]), unsure[:-1].cumprod(dim=0)))
    return 1 - focus + focus * arrive / arrive.mean(dim=1, keepdim=True).clamp(min=1e-12)


def class_weights(
    setting: Literal["none", "balanced"] | Sequence[float], labels: Tensor, classes: int
) -> Tensor | None:
    """The weight of each class in the loss, float32 ``[classes]`` on the device of ``labels [N]``; None for ``none``.

    ``balanced`` is ``N / (C * n)`` for a class of ``n`` of the ``N`` pictures. Weights are scaled so that their mean
    over the pictures is 1.

    Example:
        >>> class_weights("balanced", torch.tensor([0, 0, 0, 1]), 2).tolist()
        [0.6666666865348816, 2.0]
    """
    if setting == "none":
        return None
    counts = labels.bincount(minlength=classes).double()
    if setting == "balanced":
        weights = len(labels) / (int((counts > 0).sum()) * counts.clamp(min=1))
    else:
        weights = torch.tensor([float(weight) for weight in setting], dtype=torch.float64, device=labels.device)
    return (weights * len(labels) / (weights @ counts)).float()


def distillation_losses(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """The distillation loss of each exit: ``[E, B, C], [B, C] -> [E]`` (Hinton et al. 2015, arXiv:1503.02531).

    ``T^2 KL(softmax(target / T) || softmax(logits / T))``, mean over the batch, in float32 or, for logits in float64,
    float64. ``target`` gets no gradient.

    Args:
        logits: of every exit.
        target: logits of another network or exit.
        temperature: T > 0; the higher, the more the unlikely classes count.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[2.0, 0.0]], [[0.0, 2.0]]])
        >>> [round(loss, 3) for loss in distillation_losses(logits, logits[0], 1.0).tolist()]
        [0.0, 1.523]
    """
    teacher, student = (
        F.log_softmax((z if z.dtype == torch.float64 else z.float()) / temperature, dim=-1)
        for z in (target.detach(), logits)
    )
    return (teacher.exp() * (teacher - student)).sum(dim=2).mean(dim=1) * temperature**2


def exit_distillation_losses(logits: Tensor, target: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The distillation loss of each exit from the same exit of a teacher: ``[E, B, C], [E', B, C], [B] -> [E]``.

    As in ERDE (arXiv:2510.04856): where the teacher's exit is right, ``T^2 KL(softmax(t_i / T) || softmax(z_i / T))``;
    where it is wrong, the exit should stay undecided: ``log C - H(softmax(z_i))``. Mean over the batch. Exits beyond
    the teacher's last learn from its last.

    Args:
        logits: of every exit.
        target: logits of every exit of the teacher.
        labels: int64 ``[B]``.
        temperature: T > 0.
    """
    last = len(target) - 1
    teacher = target.detach().float()[[min(at, last) for at in range(len(logits))]]
    z = logits.float()
    log_teacher, log_student = (F.log_softmax(logits / temperature, dim=2) for logits in (teacher, z))
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(dim=2) * temperature**2  # [E, B]
    certainty = math.log(z.shape[2]) + (z.softmax(dim=2) * z.log_softmax(dim=2)).sum(dim=2)
    return torch.where(teacher.argmax(dim=2) == labels, divergence, certainty).mean(dim=1)


def self_distillation_losses(logits: Tensor, temperature: float) -> Tensor:
    """:func:`distillation_losses` of each exit from the last one, ``[E, B, C] -> [E]``; that of the last is 0.

    The last exit learns nothing from the others (Zhang et al. 2019, arXiv:1905.08094).
    """
    return F.pad(distillation_losses(logits[:-1], logits[-1], temperature), (0, 1))


def weighted_loss(losses: Tensor, weights: Sequence[float] | Tensor) -> Tensor:
    """``sum_i weights[i] * losses[i]``, ``[E] -> []``: what a training step minimises.

    With the weights of :func:`ramify.schedule.exit_weights` this is the loss of Shallow-Deep Networks
    (arXiv:1810.07052), CE(final) + sum over internal classifiers of tau_i CE(IC_i).
    """
    return losses @ torch.as_tensor(weights, dtype=losses.dtype, device=losses.device)
