"""Gradient equilibrium: the gradient of the trunk is the mean of those of the exits behind it, not the sum.

Of E exits, counted from 0, exit i gives the trunk ``1 / (E - i)`` of its gradient, and the gradient from behind it is
multiplied by ``(E - i - 1) / (E - i)`` (Li et al. 2019, arXiv:1908.06294). So at stage i each of the E - i exits that
read it has a share of ``1 / (E - i)``. The exits themselves learn from their whole gradients, and the forward pass
does not change.

In a cascade E - i losses come back through the logits of exit i, and its factor is divided by E - i once more.
"""

from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from ramify.nn.branching import Branching

Sharing = Literal["equilibrium", "last"]
"""Which exits teach the trunk: all, each with an equal share, or the deepest alone."""


class _Context(Protocol):
    factor: float


class _Scale(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(x: Tensor, factor: float) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: _Context, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: _Context, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """``x``, whose gradient is multiplied by ``factor``.

    Example:
        >>> x = torch.ones(2, requires_grad=True)
        >>> scale_gradient(x, 0.25).sum().backward()
        >>> x.grad
        tensor([0.2500, 0.2500])
    """
    if factor == 1 or not x.requires_grad:
        return x
    if factor == 0:
        return x.detach()
    if torch.compiler.is_compiling():
        # Compilers warn of a function of one's own, and fuse this one: finite numbers less themselves are 0.
        known = x.detach()
        return known + (x - known) * factor
    scaled: Tensor = _Scale.apply(x, factor)  # type: ignore[no-untyped-call]
    return scaled


def shares(exits: int, index: int) -> tuple[float, float]:
    """The factors at exit ``index`` of ``exits``: of the exit's own gradient, and of the one from behind it.

    Example:
        >>> shares(4, 0), shares(4, 2), shares(4, 3)
        ((0.25, 0.75), (0.5, 0.5), (1.0, 0.0))
    """
    left = exits - index
    return 1 / left, (left - 1) / left


def balanced_logits(network: Branching, images: Tensor, sharing: Sharing = "equilibrium") -> Tensor:
    """``network(images)``, ``[E, B, C]``, with gradients in equilibrium.

    With ``last``, only the deepest exit's gradient reaches the trunk.

    Example:
        >>> import ramify
        >>> network = ramify.Network(ramify.NetworkConfig(kind="full_ic", input_shape=(1, 8, 8), classes=10), seed=0)
        >>> images = torch.rand(4, 1, 8, 8)
        >>> torch.equal(balanced_logits(network, images), network(images))
        True
    """
    trunk, exits = network.enter(images), len(network.stages)
    logits: list[Tensor] = []
    for index in range(exits):
        own, behind = shares(exits, index)
        if sharing == "last":
            own, behind = float(index == exits - 1), 1.0
        if network.cascade:
            own /= exits - index
        trunk, its_logits = network.run_stage(index, trunk, logits[-1] if logits else None, own)
        trunk = scale_gradient(trunk, behind)
        logits.append(its_logits)
    return torch.stack(logits)


class Balanced(nn.Module):
    """:func:`balanced_logits` of ``network`` as a module, for what takes a module: compilers, and many processes."""

    def __init__(self, network: Branching, sharing: Sharing = "equilibrium") -> None:
        super().__init__()
        self.network, self.sharing = network, sharing

    def forward(self, images: Tensor) -> Tensor:
        return balanced_logits(self.network, images, self.sharing)
