"""Convolution and linear layers with a mask as a buffer.

The mask multiplies the weight in the forward pass, so a masked weight gets no gradient; its stored value is zero too.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LEAST = 1e-8
"""Least range that is divided by."""
_REGISTER = 16
"""The most float32 numbers of a vector register: that of AVX-512."""


class MaskedConv2d(nn.Conv2d):
    """A square convolution, ``[B, in, H, W] -> [B, out, H / stride, W / stride]``.

    By default it has "same" padding and no bias. The weights start He normal over the fan out (arXiv:1502.01852), with
    standard deviation ``sqrt(2 / (out_channels * kernel_size ** 2 / groups))``, and biases at zero.

    Attributes:
        mask: bool, shape of ``weight``; False where a weight is pruned.
        int8: whether training steps round as the int8 export does, see :func:`round_to_int8`.
    """

    mask: Tensor
    int8 = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        padding: int | None = None,
        bias: bool = False,
    ) -> None:
        padding = kernel_size // 2 if padding is None else padding
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias)
        self.register_buffer("mask", torch.ones(self.weight.shape, dtype=torch.bool))

    def reset_parameters(self) -> None:
        # The fan out of PyTorch counts every output channel; a weight only feeds those of its group.
        fan_out = self.out_channels * self.kernel_size[0] * self.kernel_size[1] / self.groups
        _draw(self, (2 / fan_out) ** 0.5)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Conv2d gave it
        weight = self.weight * self.mask
        if self.int8 and self.training:
            input, weight = round_to_int8(input, weight)  # noqa: A001
        if torch.is_grad_enabled() and self._is_narrow_and_strided():
            rows, columns = self.stride
            return F.conv2d(input[:, :, ::rows, ::columns], weight, self.bias)
        output: Tensor = self._conv_forward(input, weight, self.bias)
        return output

    def _is_narrow_and_strided(self) -> bool:
        """Whether oneDNN would write the gradient of the weight past its memory (uxlfoundation/oneDNN#6035).

        It does for maps in channels-last layout, with fewer channels than a vector register holds numbers.
        """
        one_pixel = self.kernel_size == (1, 1) and self.padding in ((0, 0), "valid") and self.groups == 1
        return one_pixel and self.stride != (1, 1) and self.in_channels < _REGISTER


class MaskedLinear(nn.Linear):
    """A linear layer with bias, ``[B, in] -> [B, out]``.

    The weights start normal with standard deviation ``1 / sqrt(in_features)``, as the fan out of a head would make its
    logits far too large, and the biases at zero.

    Attributes:
        mask: bool, shape of ``weight``; False where a weight is pruned.
        int8: as of :class:`MaskedConv2d`.
    """

    mask: Tensor
    int8 = False

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.register_buffer("mask", torch.ones(self.weight.shape, dtype=torch.bool))

    def reset_parameters(self) -> None:
        _draw(self, self.in_features**-0.5)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Linear gave it
        weight = self.weight * self.mask
        if self.int8 and self.training:
            input, weight = round_to_int8(input, weight)  # noqa: A001
        return F.linear(input, weight, self.bias)


def round_to_int8(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's input and weight, rounded as by the int8 export; gradients pass straight through.

    Both have 7 bits: the weight a scale for each output channel, symmetric, so that folding batch norm changes nothing
    in it; ``x`` one scale and zero point, from the least and the greatest value of the batch (arXiv:1712.05877).

    Example:
        >>> x, weight = round_to_int8(torch.tensor([[0.0, 0.1, 127.0]]), torch.tensor([[1.0, 0.01, -0.3]]))
        >>> x.tolist(), (64 * weight).tolist()
        ([[0.0, 0.0, 127.0]], [[64.0, 1.0, -19.0]])
    """
    with torch.no_grad():
        scales = weight.flatten(1).abs().amax(dim=1).clamp(min=_LEAST) / 64
        low, high = x.amin().clamp(max=0).float(), x.amax().clamp(min=0).float()
        scale = (high - low).clamp(min=_LEAST) / 127
        zero = (-low / scale).round().int()
    weight = torch.fake_quantize_per_channel_affine(
        weight.float(), scales.float(), torch.zeros_like(scales, dtype=torch.int32), 0, -64, 64
    )
    return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, 0, 127), weight


Masked = MaskedConv2d | MaskedLinear


def _draw(layer: nn.Conv2d | nn.Linear, std: float) -> None:
    if layer.weight.is_meta:  # nothing to draw; PyTorch would load its compiler for it, which takes seconds
        return
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def masked_layers(module: nn.Module) -> dict[str, Masked]:
    """The masked layers inside ``module`` by name, in the order in which they were registered."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, MaskedConv2d | MaskedLinear)}


def with_mask(layer: nn.Conv2d | nn.Linear) -> Masked:
    """A masked layer that shares the parameters of ``layer`` and computes the same.

    Example:
        >>> layer = nn.Conv2d(4, 4, 3, padding="same", padding_mode="circular")
        >>> masked, x = with_mask(layer), torch.rand(2, 4, 8, 8)
        >>> torch.equal(masked(x), layer(x)), masked.weight is layer.weight
        (True, True)
    """
    kind: type[MaskedConv2d] | type[MaskedLinear] = MaskedConv2d if isinstance(layer, nn.Conv2d) else MaskedLinear
    masked = kind.__new__(kind)
    masked.__dict__ = {key: copy.copy(value) if key.startswith("_") else value for key, value in layer.__dict__.items()}
    masked.register_buffer("mask", torch.ones_like(layer.weight, dtype=torch.bool))
    return masked
