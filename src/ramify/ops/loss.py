"""The loss of a network with several exits."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ramify.errors import InputError


def exit_losses(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """The cross-entropy of each exit, ``logits [E, B, C], labels [B] -> [E]``, mean over the batch.

    One call serves every exit, and it is computed in float32 whatever the logits are.

    Args:
        logits: of every exit.
        labels: int64 ``[B]``; or the share of each class in each picture, float ``[B, C]`` with rows that sum to 1, as
            :mod:`ramify.data.mix` leaves them.
        smoothing: in [0, 1), the share of each label that is spread evenly over all classes (arXiv:1512.00567).

    Raises:
        InputError: the logits are not those of every exit, or there is not one label for each picture.
    """
    _check(logits, labels)
    exits, batch, classes = logits.shape
    repeated = labels.repeat(exits) if labels.dim() == 1 else labels.repeat(exits, 1)
    flat = F.cross_entropy(logits.float().reshape(-1, classes), repeated, reduction="none", label_smoothing=smoothing)
    return flat.view(exits, batch).mean(dim=1)


def _check(logits: Tensor, labels: Tensor) -> None:
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


def distillation_losses(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """How far each exit is from what another network, or another exit, answers: ``[E, B, C], [B, C] -> [E]``.

    ``T^2 KL(softmax(target / T) || softmax(logits / T))``, mean over the batch (Hinton et al. 2015, arXiv:1503.02531).
    The factor keeps the size of the gradients as it is at other temperatures. No gradient goes into ``target``. It is
    computed in float32 whatever the logits are, or in float64 if they are that.

    Args:
        logits: of every exit.
        target: logits to learn from.
        temperature: T > 0; the higher, the more the unlikely classes count.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[2.0, 0.0]], [[0.0, 2.0]]])
        >>> [round(loss, 3) for loss in distillation_losses(logits, logits[0], 1.0).tolist()]
        [0.0, 1.523]
    """
    known, found = (
        F.log_softmax((each if each.dtype == torch.float64 else each.float()) / temperature, dim=-1)
        for each in (target.detach(), logits)
    )
    return (known.exp() * (known - found)).sum(dim=2).mean(dim=1) * temperature**2


def self_distillation_losses(logits: Tensor, temperature: float) -> Tensor:
    """:func:`distillation_losses` of each exit from the last one, ``[E, B, C] -> [E]``; that of the last is 0.

    The last exit teaches the others and learns nothing from them (Zhang et al. 2019, arXiv:1905.08094).
    """
    return F.pad(distillation_losses(logits[:-1], logits[-1], temperature), (0, 1))


def weighted_loss(losses: Tensor, weights: Sequence[float] | Tensor) -> Tensor:
    """``sum_i weights[i] * losses[i]``, ``[E] -> []``: what a training step minimises.

    With the weights of :func:`ramify.schedule.exit_weights` this is the loss of Shallow-Deep Networks
    (arXiv:1810.07052), CE(final) + sum over internal classifiers of tau_i CE(IC_i). A tensor of weights that lies
    where the losses do is not sent there in each step.
    """
    return losses @ torch.as_tensor(weights, dtype=losses.dtype, device=losses.device)
