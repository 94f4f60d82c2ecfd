"""The loss of a network with several exits."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def exit_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of each exit, ``logits [E, B, C], labels [B] -> [E]``, mean over the batch.

    One call serves every exit, and it is computed in float32 whatever the logits are.
    """
    exits, batch, classes = logits.shape
    flat = F.cross_entropy(logits.float().reshape(-1, classes), labels.repeat(exits), reduction="none")
    return flat.view(exits, batch).mean(dim=1)


def weighted_loss(losses: Tensor, weights: Sequence[float] | Tensor) -> Tensor:
    """``sum_i weights[i] * losses[i]``, ``[E] -> []``: what a training step minimises.

    With the weights of :func:`ramify.schedule.exit_weights` this is the loss of Shallow-Deep Networks
    (arXiv:1810.07052), CE(final) + sum over internal classifiers of tau_i CE(IC_i). A tensor of weights that lies
    where the losses do is not sent there in each step.
    """
    return losses @ torch.as_tensor(weights, dtype=losses.dtype, device=losses.device)
