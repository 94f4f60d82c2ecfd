"""The trunk of dense wiring, which every cell reads and adds to, with few passes over memory."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ramify.nn.masked import MaskedConv2d


class _Context(Protocol):
    width: int


class _Join(torch.autograd.Function):
    """Concatenation of channels, whose second input gets a gradient of its own, not a view of the whole one.

    Reading such a view in bfloat16 is several times slower than a copy.
    """

    @staticmethod
    def forward(trunk: Tensor, output: Tensor) -> Tensor:
        return torch.cat((trunk, output), dim=1)

    @staticmethod
    def setup_context(ctx: _Context, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.width = inputs[0].shape[1]

    @staticmethod
    def backward(ctx: _Context, gradient: Tensor) -> tuple[Tensor, Tensor]:
        onto_new = gradient[:, ctx.width :].contiguous(memory_format=torch.channels_last)
        return gradient[:, : ctx.width], onto_new


def join(trunk: Tensor, output: Tensor) -> Tensor:
    """``[B, trunk, H, W], [B, out, H, W] -> [B, trunk + out, H, W]``.

    Example:
        >>> join(torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 4, 8, 8])
    """
    # Compilers fuse it themselves, and torch.fx traces with symbols that are no tensors.
    if isinstance(output, Tensor) and output.requires_grad and not torch.compiler.is_compiling():
        joined: Tensor = _Join.apply(trunk, output)  # type: ignore[no-untyped-call]
        return joined
    return torch.cat((trunk, output), dim=1)


def read_at_once(x: Tensor, conv: MaskedConv2d, projection: MaskedConv2d) -> tuple[Tensor, Tensor]:
    """A 3x3 and a 1x1 convolution of one input ``[B, in, H, W]`` with one stride: their outputs, computed as one.

    The 1x1 weights stand in the middle of 3x3 ones: more multiplications, but ``x`` is read, and its gradient written,
    once. In bfloat16 on a processor that is faster.

    Example:
        >>> conv, projection = MaskedConv2d(4, 3, 3), MaskedConv2d(4, 2, 1)
        >>> x = torch.rand(2, 4, 8, 8)
        >>> inner, outer = read_at_once(x, conv, projection)
        >>> torch.allclose(inner, conv(x), atol=1e-5), torch.allclose(outer, projection(x), atol=1e-5)
        (True, True)
    """
    middle = F.pad(projection.weight * projection.mask, (1, 1, 1, 1))
    weight = torch.cat((conv.weight * conv.mask, middle))
    both = F.conv2d(x, weight, None, conv.stride, conv.padding)
    inner, outer = both.split([len(conv.weight), len(projection.weight)], dim=1)
    layout = torch.channels_last
    return inner.contiguous(memory_format=layout), outer.contiguous(memory_format=layout)
