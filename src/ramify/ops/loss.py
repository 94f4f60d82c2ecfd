"""The loss of a network with several exits."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def exit_losses(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """The cross-entropy of each exit, ``logits [E, B, C], labels [B] -> [E]``, mean over the batch.

    One call serves every exit, and it is computed in float32 whatever the logits are.

    Args:
        logits: of every exit.
        labels: int64 ``[B]``; or the share of each class in each picture, float ``[B, C]`` with rows that sum to 1, as
            :mod:`ramify.data.mix` leaves them.
        smoothing: in [0, 1), the share of each label that is spread evenly over all classes (arXiv:1512.00567).
    """
    exits, batch, classes = logits.shape
    repeated = labels.repeat(exits) if labels.dim() == 1 else labels.repeat(exits, 1)
    flat = F.cross_entropy(logits.float().reshape(-1, classes), repeated, reduction="none", label_smoothing=smoothing)
    return flat.view(exits, batch).mean(dim=1)


def weighted_loss(losses: Tensor, weights: Sequence[float]) -> Tensor:
    """``sum_i weights[i] * losses[i]``, ``[E] -> []``: what a training step minimises.

    With the weights of :func:`ramify.schedule.exit_weights` this is the loss of Shallow-Deep Networks
    (arXiv:1810.07052), CE(final) + sum over internal classifiers of tau_i CE(IC_i).
    """
    return losses @ losses.new_tensor(weights)
