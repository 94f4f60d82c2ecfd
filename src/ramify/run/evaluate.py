"""Evaluating a network."""

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ramify.data.pictures import Part
from ramify.nn.branching import Branching
from ramify.nn.modes import keeping_modes
from ramify.ops.loss import exit_losses
from ramify.run.distributed import ALONE, Team

_BATCH = 512
"""Pictures in a batch of an evaluation."""


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy and accuracies in [0, 1] of one exit; ``top3`` is None where it was not measured."""

    loss: float
    top1: float
    top3: float | None = None


def computing(device: torch.device, precision: str) -> contextlib.AbstractContextManager[None]:
    """The context in which a network computes: autocast for ``bfloat16``, nothing for ``float32``."""
    if precision == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def to_float(images: Tensor) -> Tensor:
    """Pictures uint8 0 to 255 as float32 in [0, 1], the input of a network; a batch is channels last."""
    layout = torch.channels_last if images.dim() == 4 else torch.preserve_format
    return images.to(torch.float32, memory_format=layout).div_(255)


def evaluation_logits(network: nn.Module, images: Tensor, flip: bool) -> Tensor:
    """The logits of pictures ``[B, C, H, W]`` in [0, 1]; with ``flip`` the mean of theirs and of their mirrors'.

    Example:
        >>> network = nn.Flatten()
        >>> evaluation_logits(network, torch.tensor([[[[1.0, 3.0]]]]), flip=True)
        tensor([[2., 2.]])
    """
    logits: Tensor = network(images)
    return (logits + network(images.flip(-1))) / 2 if flip else logits


def all_logits(network: Branching, images: Tensor | Part, precision: str = "float32") -> Tensor:
    """The logits of every exit, float32 ``[E, N, C]`` on the CPU, for ``images`` uint8 ``[N, C, H, W]``, or a part's.

    The network computes in evaluation mode on its device, and is left in its mode.
    """
    device = next(network.parameters()).device
    with keeping_modes(network), torch.inference_mode(), computing(device, precision):
        network.eval()
        batches = (chunk if isinstance(chunk, Tensor) else chunk.images for chunk in images.split(_BATCH))
        logits = [network(to_float(batch.to(device))).float().cpu() for batch in batches]
    return torch.cat(logits, dim=1)


def evaluate(
    network: Branching, part: Part, precision: str = "float32", team: Team = ALONE, flip: bool = False
) -> list[Score]:
    """The score of every exit on ``part``, shallowest first.

    The network computes in evaluation mode on its device, and is left in its mode. The processes of ``team`` share the
    pictures; each gets the whole score. With ``flip`` the logits are the mean of those of each picture and its mirror.

    Example:
        >>> from ramify.config.rules import NetworkConfig
        >>> from ramify.nn.network import Network
        >>> network = Network(NetworkConfig(structure=(1,), input_shape=(1, 8, 8), classes=2), stages=2)
        >>> part = Part(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
        >>> [score.top1 for score in evaluate(network, part)]
        [0.5, 0.5]
    """
    device = network.mean.device
    exits, count = len(network.stages), len(part)
    total = torch.zeros(3, exits, dtype=torch.float64, device="cpu" if device.type == "mps" else device)
    with keeping_modes(network), torch.inference_mode(), computing(device, precision):
        network.eval()
        at_once = _BATCH if device.type == "cpu" else 4 * _BATCH
        for start in range(0, count, at_once):
            batch = part[start : min(start + at_once, count)][team.share(at_once)]
            images, labels = batch.images, batch.labels.to(device)
            if len(labels):
                total += _sums(evaluation_logits(network, to_float(images.to(device)), flip).float(), labels).to(total)
    total = team.summed(total)
    return [Score(loss, top1, top3) for loss, top1, top3 in (total / count).T.tolist()]


def score_exits(logits: Tensor, labels: Tensor) -> list[Score]:
    """The score of every exit from its ``logits [E, N, C]`` and ``labels [N]``.

    Example:
        >>> score_exits(torch.tensor([[[2.0, 0.0], [2.0, 0.0]]]), torch.tensor([0, 1]))[0].top1
        0.5
    """
    batches = zip(logits.split(_BATCH, dim=1), labels.split(_BATCH), strict=True)
    total = torch.stack([_sums(*batch).double() for batch in batches]).sum(dim=0)
    return [Score(loss, top1, top3) for loss, top1, top3 in (total / len(labels)).T.tolist()]


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Sums ``[3, E]`` of the losses, and of the right answers among the first one and three."""
    ranked = logits.topk(min(3, logits.shape[2]), dim=2).indices == labels[:, None]  # [E, B, 3]
    losses = exit_losses(logits, labels) * len(labels)
    return torch.stack((losses, ranked[:, :, 0].sum(dim=1).to(losses), ranked.sum(dim=(1, 2)).to(losses)))
