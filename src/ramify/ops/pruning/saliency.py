"""Saliencies: a score for each weight, by which pruning decides what to keep.

Each criterion is a function ``(network, batches, seed) -> scores`` in :data:`SALIENCIES`, for a network in any stage of
growth. It computes on copies: weights, batch norm statistics, gradients, modes and PyTorch's random state stay.

Higher scores are kept first; scores are finite and lie on the network's device (float64 ones on the CPU beside MPS,
which has no float64); a masked weight scores 0.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ramify.errors import InputError, RunError
from ramify.nn.branching import Branching
from ramify.nn.masked import masked_layers
from ramify.nn.modes import keeping_modes
from ramify.seeds import generator

ScoringBatch = tuple[Tensor, Tensor]
"""Images ``[B, C, H, W]`` in [0, 1] and labels, int64 ``[B]``."""

Scores = dict[str, Tensor]
"""A float tensor for each masked layer, by its name and in the shape of its weight; higher is kept first."""

Saliency = Callable[[Branching, Sequence[ScoringBatch], int], Scores]
"""``(network, batches, seed) -> scores``; most criteria use one of batches and seed, or neither."""

GRASP_TEMPERATURE = 200.0
"""GraSP divides the logits by this, as its authors do."""


def snip(network: Branching, batches: Sequence[ScoringBatch], seed: int) -> Scores:
    """Connection sensitivity (SNIP, arXiv:1810.02340): ``|w * dL/dw|``, in [0, inf), mean over the batches.

    It equals ``|dL/dm|`` for a mask ``m`` of ones on the weights. ``L`` is the cross-entropy, mean over the pictures
    and over the exits that exist. Batch norm uses the statistics of the batch, as in training.

    Raises:
        InputError: there are no pictures.
        RunError: a score is not finite.

    Example:
        >>> from ramify.config.rules import NetworkConfig
        >>> from ramify.nn.network import Network
        >>> network = Network(NetworkConfig(structure=(1,), input_shape=(1, 8, 8), classes=2))
        >>> scores = snip(network, [(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]))], 0)
        >>> scores["stem.conv"].shape
        torch.Size([16, 1, 3, 3])
    """

    def score(weights: list[Tensor], loss: Tensor) -> list[Tensor]:
        return [(w * g).abs() for w, g in zip(weights, torch.autograd.grad(loss, weights), strict=True)]

    return _mean_over_batches("snip", network, batches, score, temperature=1.0)


def grasp(network: Branching, batches: Sequence[ScoringBatch], seed: int) -> Scores:
    """Gradient signal preservation (GraSP, arXiv:2002.07376): ``w * (H g)``, of either sign, mean over the batches.

    ``g`` and ``H`` are gradient and Hessian of the loss ``L`` of :func:`snip` in the convolution and linear weights,
    with the logits divided by :data:`GRASP_TEMPERATURE`. Removing a weight changes ``|g|^2`` by ``-2 w H g`` to first
    order. (The paper scores ``-w * (H g)`` and removes the highest: the same order.)

    Raises:
        InputError: there are no pictures.
        RunError: a score is not finite.
    """

    def score(weights: list[Tensor], loss: Tensor) -> list[Tensor]:
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        # The derivative of <g, g held fixed> is H g: no Hessian is ever formed.
        product = torch.stack([(g * g.detach()).sum() for g in gradients]).sum()
        return [w * hg for w, hg in zip(weights, torch.autograd.grad(product, weights), strict=True)]

    return _mean_over_batches("grasp", network, batches, score, temperature=GRASP_TEMPERATURE)


def synflow(network: Branching, batches: Sequence[ScoringBatch], seed: int) -> Scores:
    """Synaptic flow (SynFlow, arXiv:2006.05467): ``|w| * dR/d|w|``, in [0, inf), without pictures, in float64.

    ``R`` is the sum of the logits of all exits for one picture of ones, in the network with every weight in absolute
    value and linear along each path: batch norm only scales, by ``|gamma| / sqrt(running_var + eps)``, no bias or mean
    is added, a learned share of max pooling is clamped to [0, 1] and pictures are not normalized. So the scores of the
    first layer sum to ``R``, and so do those of all heads; gates of squeeze-and-excitation are not linear and break
    this. Weights before a batch norm scale of zero score 0.

    Raises:
        RunError: the flow is too large for float64, or a weight is not finite.
    """
    with _isolated(network, training=False):
        tensors: dict[str, Tensor] = {}
        for name, value in _copies(network, torch.float64).items():
            kind = name.rpartition(".")[2]
            if kind in ("bias", "running_mean") or name == "mean":
                tensors[name] = torch.zeros_like(value)
            elif name == "std":
                tensors[name] = torch.ones_like(value)
            elif kind == "share":
                tensors[name] = value.clamp(0, 1)
            else:
                tensors[name] = value.abs() if value.is_floating_point() else value
        names = list(masked_layers(network))
        weights = [tensors[f"{name}.weight"].requires_grad_() for name in names]
        ones = torch.ones(1, *network.input_shape, dtype=torch.float64, device=double_device(network))
        flow = functional_call(network, tensors, (ones,), strict=True).sum()
        if not flow.isfinite():
            raise RunError(
                f"prune.criterion: 'synflow' got a flow through {len(names)} layers that is not finite in float64; "
                "accepted: finite weights, and a network less deep or with smaller batch norm scales"
            )
        gradients = torch.autograd.grad(flow, weights)
        return _finite("synflow", names, [(w * g).detach() for w, g in zip(weights, gradients, strict=True)])


def magnitude(network: Branching, batches: Sequence[ScoringBatch], seed: int) -> Scores:
    """``|w|``, in [0, inf). ``batches`` and ``seed`` are not used.

    Raises:
        RunError: a weight is not finite.
    """
    layers = masked_layers(network)
    with torch.no_grad():
        return _finite("magnitude", list(layers), [(layer.weight * layer.mask).abs() for layer in layers.values()])


def random(network: Branching, batches: Sequence[ScoringBatch], seed: int) -> Scores:
    """Uniform in [0, 1), in float64, from ``seed`` and the layer's name alone, on every device."""
    device = double_device(network)
    return {
        name: torch.rand(layer.weight.shape, dtype=torch.float64, generator=generator(seed, "random", name)).to(device)
        * layer.mask.to(device)
        for name, layer in masked_layers(network).items()
    }


def erk(network: Branching, batches: Sequence[ScoringBatch], seed: int) -> Scores:
    """Random weights at Erdős-Rényi-kernel densities (RigL, arXiv:1911.11134), in (0, inf), in float64.

    RigL keeps ``min(1, eps * p)`` of a layer, with one ``eps`` for all layers that makes up the keep ratio; ``p`` is
    the sum over the product of the weight's dimensions (``(in + out) / (in * out)`` for a linear layer,
    ``(in / groups + out + kh + kw) / (in / groups * out * kh * kw)`` for a convolution). The ``K`` weights that a layer
    of ``N`` still keeps get the ranks ``u = (0.5, 1.5, ..., K - 0.5) / N`` in random order and the score ``p / u``. A
    score reaches the threshold ``1 / eps`` where ``u <= eps * p``: the layer keeps ``min(1, eps * p) * N`` weights to
    within one, for any ``eps``.
    """
    return _at_densities("erk", network, seed)


def uniform(network: Branching, batches: Sequence[ScoringBatch], seed: int) -> Scores:
    """Random weights at the same density in every layer (RigL, arXiv:1911.11134), in (0, inf), in float64.

    As :func:`erk` with ``p = 1``.
    """
    return _at_densities("uniform", network, seed)


DISTRIBUTIONS: dict[str, Callable[[Sequence[int]], float]] = {"erk": sum, "uniform": math.prod}
"""``p * N`` of a layer from the shape of its weight; see :func:`erk`."""


def _at_densities(distribution: str, network: Branching, seed: int) -> Scores:
    """``p / u`` for the weights that are kept, ``u`` their ranks in random order; 0 for the others."""
    scores: Scores = {}
    device = double_device(network)
    for name, layer in masked_layers(network).items():
        shape, total = layer.weight.shape, layer.weight.numel()
        kept = layer.mask.flatten().nonzero().flatten().cpu()
        ranks = torch.randperm(len(kept), generator=generator(seed, distribution, name))
        score = torch.zeros(total, dtype=torch.float64)
        # The N of p and u cancel.
        score[kept] = DISTRIBUTIONS[distribution](shape) / (ranks.double() + 0.5)
        scores[name] = score.view(shape).to(device)
    return scores


SALIENCIES: dict[str, Saliency] = {
    "snip": snip,
    "grasp": grasp,
    "synflow": synflow,
    "magnitude": magnitude,
    "random": random,
    "erk": erk,
    "uniform": uniform,
}
"""Every criterion by the name that ``prune.criterion`` takes."""

NEEDS_DATA: frozenset[str] = frozenset({"snip", "grasp"})
"""Criteria that need pictures."""


def _mean_over_batches(
    criterion: str,
    network: Branching,
    batches: Sequence[ScoringBatch],
    score: Callable[[list[Tensor], Tensor], list[Tensor]],
    temperature: float,
) -> Scores:
    """The mean over ``batches`` of ``score(weights, loss)``, one tensor for each masked layer."""
    if not batches or any(len(labels) == 0 for _, labels in batches):
        others = ", ".join(name for name in SALIENCIES if name not in NEEDS_DATA)
        raise InputError(
            f"prune.criterion: got '{criterion}' without pictures; "
            f"accepted: a batch of labeled pictures, or one of {others}"
        )
    names = list(masked_layers(network))
    device = network.mean.device
    totals: list[Tensor] = []
    with _isolated(network, training=True):
        for images, labels in batches:
            tensors = _copies(network, torch.float32)
            weights = [tensors[f"{name}.weight"].requires_grad_() for name in names]
            # A copy, as a tensor made under inference_mode cannot be saved for the backward pass.
            pictures = images.to(device, tensors["mean"].dtype, copy=True)
            logits = functional_call(network, tensors, (pictures,), strict=True) / temperature  # [E, B, C]
            # The mean of ops.loss.exit_losses, but in the network's own precision.
            loss = F.cross_entropy(logits.flatten(0, 1), labels.to(device).repeat(len(logits)))
            scores = [tensor.detach() for tensor in score(weights, loss)]
            totals = [total + tensor for total, tensor in zip(totals, scores, strict=True)] if totals else scores
    return _finite(criterion, names, [total / len(batches) for total in totals])


@contextlib.contextmanager
def _isolated(network: Branching, training: bool) -> Iterator[None]:
    """Gradients on, autocast off and every module in one mode inside the block."""
    with keeping_modes(network):
        network.train(training)
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(network.mean.device.type, enabled=False):
            yield


def _copies(network: nn.Module, at_least: torch.dtype) -> dict[str, Tensor]:
    """Fresh copies of all parameters and buffers, floats in at least the precision ``at_least``."""
    copies: dict[str, Tensor] = {}
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        dtype = torch.promote_types(value.dtype, at_least) if value.is_floating_point() else value.dtype
        device = torch.device("cpu") if dtype is torch.float64 and value.device.type == "mps" else value.device
        copies[name] = value.detach().to(device, dtype, copy=True)
    return copies


def double_device(network: Branching) -> torch.device:
    """The network's device, or the CPU beside MPS, which has no float64."""
    device = network.mean.device
    return torch.device("cpu") if device.type == "mps" else device


def _finite(criterion: str, names: Sequence[str], scores: Sequence[Tensor]) -> Scores:
    """``scores`` by name, or an error where one is not finite."""
    bad = [name for name, score in zip(names, scores, strict=True) if not score.isfinite().all()]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise RunError(
            f"prune.criterion: '{criterion}' gave scores that are not finite in layer '{bad[0]}'{more}; "
            "accepted: a network whose weights and loss are finite"
        )
    return dict(zip(names, scores, strict=True))
