"""Dynamic sparse training: connections move in training, and the density stays.

RigL (arXiv:1911.11134) drops the connections of smallest magnitude and regrows as many where the gradient is largest;
SET (arXiv:1707.04780) regrows at random. Masked weights get no gradient, so the training step at which connections move
uses :func:`dense_forward`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ramify.errors import InputError
from ramify.nn.masked import Masked, masked_layers
from ramify.ops.surgery import rewire
from ramify.seeds import generator

How = Literal["gradient", "random"]
"""Where connections regrow: where the gradient is largest (RigL), or anywhere (SET)."""


@dataclass(frozen=True)
class LayerRegrowth:
    """One layer in a regrowth: its weights, how many it keeps, and how many of these are new."""

    weights: int
    kept: int
    moved: int


@dataclass(frozen=True)
class Regrowth:
    """The report of one regrowth: each layer that learns, by name."""

    how: How
    fraction: float
    layers: dict[str, LayerRegrowth]

    @property
    def kept(self) -> int:
        return sum(layer.kept for layer in self.layers.values())

    @property
    def moved(self) -> int:
        return sum(layer.moved for layer in self.layers.values())


def dense_forward(network: nn.Module, images: Tensor) -> Tensor:
    """``network(images)`` to the last bit, but in the backward pass masked weights get their gradient too.

    Every mask is replaced by ones, which changes no answer, as masked weights are zero. ``weight.grad`` becomes the
    gradient of a dense network with these weights. :func:`regrow` reads it and zeroes it where weights are masked then;
    no optimizer may step before that.

    Example:
        >>> from ramify.config.rules import NetworkConfig
        >>> from ramify.nn.network import Network
        >>> from ramify.ops.pruning.prune import prune
        >>> network = Network(NetworkConfig(structure=(1,), input_shape=(1, 8, 8), classes=2), seed=0)
        >>> _ = prune(network, 0.2, "erk")
        >>> images, layer = torch.rand(4, 1, 8, 8), masked_layers(network)["stages.0.cells.0.conv1"]
        >>> for forward in (network, lambda images: dense_forward(network, images)):
        ...     layer.weight.grad = None
        ...     forward(images).square().sum().backward()
        ...     bool((layer.weight.grad[~layer.mask] != 0).any())
        False
        True
    """
    layers = masked_layers(network)
    ones = {f"{name}.mask".removeprefix("."): torch.ones_like(layer.mask) for name, layer in layers.items()}
    logits: Tensor = functional_call(network, ones, (images,))
    return logits


def regrow(
    network: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    fraction: float = 0.3,
    how: How = "gradient",
    *,
    seed: int = 0,
    followers: Sequence[nn.Module] = (),
    dense: bool = False,
) -> Regrowth:
    """Drop connections of small magnitude and regrow as many elsewhere in the same layer, between backward and step.

    Of the ``K`` connections of a layer the ``K - round(fraction * K)`` of largest ``|w|`` stay. Of all others, dropped
    ones included, as many come back as were dropped: those of largest ``|dL/dw|`` (RigL, arXiv:1911.11134), or any
    (SET, arXiv:1707.04780). Ties go to the dropped ones, then to the weight that comes first.

    A connection that is dropped and chosen again stays as it was. A new one starts at zero, without optimizer state.
    The rest of network and optimizer stays as it is, bit for bit. Gradients of masked weights are zero then, so that
    ``optimizer.step()`` may follow. Frozen layers, and those whose gradient is missing or zero, do not change.

    Args:
        network: one with masked layers, after the backward pass of a loss of :func:`dense_forward`.
        optimizer: any ``torch.optim`` optimizer over the parameters of ``network``.
        fraction: the share of each layer's connections that is dropped, in [0, 1]. In the papers it falls as a cosine
            from 0.3, or stays 0.3.
        how: ``gradient`` or ``random``. For ``random`` the gradients may be those of ``network(images)``.
        seed: of random regrowth; use another at each call.
        followers: modules with the same layers, such as an average of the weights, that take the same masks.
        dense: whether the gradients are known to be those of :func:`dense_forward`. Without, gradients that are zero
            for all masked weights are an error, as those of ``network(images)`` are; of few weights they may be so.

    Raises:
        InputError: ``fraction`` or ``how`` is not accepted, or the gradients are missing or not dense.

    Example:
        >>> from ramify.config.rules import NetworkConfig
        >>> from ramify.nn.network import Network
        >>> from ramify.ops.loss import exit_losses
        >>> from ramify.ops.pruning.prune import prune
        >>> network = Network(NetworkConfig(structure=(1, 0), input_shape=(1, 8, 8), classes=10), stages=2, seed=0)
        >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        >>> start = prune(network, {0: 0.1, 1: 0.1}, "erk", optimizer=optimizer)
        >>> images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 10
        >>> for step in range(1, 21):
        ...     now = step % 10 == 0
        ...     logits = dense_forward(network, images) if now else network(images)
        ...     optimizer.zero_grad()
        ...     exit_losses(logits, labels).sum().backward()
        ...     if now:
        ...         report = regrow(network, optimizer, 0.3)
        ...     optimizer.step()
        >>> report.kept == start.after, report.moved > 0
        (True, True)
    """
    if not 0 <= fraction <= 1:
        raise InputError(f"regrow: got fraction {fraction}; accepted: a number in [0, 1]")
    if how not in get_args(How):
        raise InputError(f"regrow: got how={how!r}; accepted: {', '.join(get_args(How))}")
    layers = masked_layers(network)
    learning = {name: layer for name, layer in layers.items() if _learns(layer)}
    if not dense:
        _check_gradients(list(learning.values()), how)
    masks = {name: _moved(name, layer, fraction, how, seed) for name, layer in learning.items()}
    report = Regrowth(
        how,
        fraction,
        {
            name: LayerRegrowth(mask.numel(), int(mask.sum()), int((mask & ~layers[name].mask).sum()))
            for name, mask in masks.items()
        },
    )
    # All layers: an optimizer must not see the gradients of masked weights.
    rewire(network, {name: layer.mask for name, layer in layers.items()} | masks, optimizer)
    for follower in followers:
        rewire(follower, masks)
    return report


def _check_gradients(learning: Sequence[Masked], how: How) -> None:
    if not learning:
        raise InputError(
            "regrow: got a network whose masked layers have no gradients; accepted: one after loss.backward()"
        )
    masked = [layer.weight.grad[~layer.mask] for layer in learning if layer.weight.grad is not None]
    if how == "gradient" and any(map(Tensor.numel, masked)) and not any(bool(gradient.any()) for gradient in masked):
        raise InputError(
            "regrow: got gradients that are zero for all masked weights; accepted: those of a loss of "
            "ramify.dense_forward(network, images), with dense=True if they are all zero; or how='random'"
        )


def _learns(layer: Masked) -> bool:
    gradient = layer.weight.grad
    return layer.weight.requires_grad and gradient is not None and bool(gradient.any())


def _moved(name: str, layer: Masked, fraction: float, how: How, seed: int) -> Tensor:
    """The mask of a layer once ``fraction`` of its connections have moved."""
    mask = layer.mask.flatten()
    kept = int(mask.sum())
    dropped = round(fraction * kept)
    if dropped == 0 or kept == len(mask):
        return layer.mask.clone()
    # Higher is better in both rankings; of equals, the first wins.
    by_size = layer.weight.detach().flatten().abs().masked_fill(~mask, -1).argsort(descending=True, stable=True)
    new = torch.zeros_like(mask)
    new[by_size[: kept - dropped]] = True
    if how == "random":
        score = torch.rand(len(mask), generator=generator(seed, "regrow", name)).to(mask.device)
    else:
        assert layer.weight.grad is not None
        score = layer.weight.grad.flatten().abs()
    order = mask.byte().argsort(descending=True, stable=True)  # of equals, connections first, then by position
    by_score = order[score.masked_fill(new, -1)[order].argsort(descending=True, stable=True)]
    new[by_score[:dropped]] = True
    return new.view_as(layer.mask)
