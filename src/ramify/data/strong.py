"""Strong augmentation: one change of shape or color for each picture, all pictures of a batch at once.

As in TrivialAugment (arXiv:2103.10158), each picture gets one of 14 changes with a uniform strength; the ranges are
those of RandAugment (arXiv:1909.13719). Numbers are drawn on the CPU and all arithmetic is in integers, so a seed gives
the same pictures on every device.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SHEAR, TURN, SHIFT, COLOR = 0.3, math.radians(30), 0.3, 0.9
"""Strongest shear, turn in radians, shift as a share of the side, and change of a factor of color or contrast."""

BITS = 4
"""Bits of eight that posterizing removes at most."""

_DIGITS = 14
UNIT = 2**_DIGITS
"""1 as a fixed-point number of a matrix."""

FACTOR = 2**8
"""1 as a fixed-point factor of a color."""

_MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_CURVES = ("brightness", "contrast", "posterize", "solarize", "autocontrast", "equalize")
STRONG_CHANGES = ("nothing", *_MOVES, *_CURVES, "color", "sharpness")
"""The changes of a picture."""


def strong_batches(images: Tensor, sizes: Sequence[int], generator: torch.Generator) -> Tensor:
    """Change uint8 ``[N, C, H, W]`` of several batches, of ``sizes`` pictures each; drawn batch by batch on the CPU.

    Example:
        >>> strong_batches(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), [2, 1], torch.Generator()).shape
        torch.Size([3, 1, 8, 8])
    """
    kinds, strengths, signs = [], [], []
    for size in sizes:
        kinds.append(torch.randint(len(STRONG_CHANGES), (size,), generator=generator))
        strengths.append(torch.rand(size, generator=generator))
        signs.append(torch.randint(2, (size,), generator=generator) * 2 - 1)
    return apply_strong(images, torch.cat(kinds), torch.cat(strengths), torch.cat(signs))


def apply_strong(images: Tensor, kind: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Change each picture of uint8 ``[B, C, H, W]``; what a move leaves open is black.

    Args:
        images: on any device; not changed.
        kind: indices into :data:`STRONG_CHANGES`, ``[B]``, on the CPU like all numbers.
        strength: in [0, 1], ``[B]``; not used by autocontrast and equalize.
        sign: -1 or 1, ``[B]``, for changes with a direction.
    """
    output = images.clone()
    families: tuple[tuple[tuple[str, ...], Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]], ...] = (
        (_MOVES, _move),
        (_CURVES, _apply_curves),
        (("color",), _recolor),
        (("sharpness",), _sharpen),
    )
    for names, change in families:
        first = STRONG_CHANGES.index(names[0])
        chosen = ((kind >= first) & (kind < first + len(names))).nonzero()[:, 0]
        if len(chosen):
            rows = chosen.to(images.device, non_blocking=True)
            output.index_copy_(0, rows, change(images[rows], kind[chosen], strength[chosen], sign[chosen]))
    return output


def _move(images: Tensor, kind: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Shear, translate and rotate, to the nearest pixel."""
    count, channels, height, width = images.shape
    amount = (strength * sign).double()

    def where(name: str, value: Tensor) -> Tensor:
        return torch.where(kind == STRONG_CHANGES.index(name), value, 0.0)

    angle = where("rotate", amount * TURN)
    # From the center of the picture, in units of half a pixel.
    matrix = torch.stack(
        (
            angle.cos(),
            angle.sin() + where("shear_y", amount * SHEAR),
            where("translate_y", amount * (SHIFT * 2 * height)),
            where("shear_x", amount * SHEAR) - angle.sin(),
            angle.cos(),
            where("translate_x", amount * (SHIFT * 2 * width)),
        )
    )
    fixed = (matrix * UNIT).round().int().to(images.device, non_blocking=True)[:, :, None, None]
    rows = torch.arange(1 - height, height, 2, dtype=torch.int32, device=images.device)[:, None]
    columns = torch.arange(1 - width, width, 2, dtype=torch.int32, device=images.device)
    # To the nearest pixel: floor((place + size) / 2), as places are twice their distance from the center.
    down = (fixed[0] * rows + fixed[1] * columns + (fixed[2] + height * UNIT)) >> (_DIGITS + 1)
    right = (fixed[3] * rows + fixed[4] * columns + (fixed[5] + width * UNIT)) >> (_DIGITS + 1)
    inside = (down >= 0) & (down < height) & (right >= 0) & (right < width)
    places = (down.clamp(0, height - 1) * width + right.clamp(0, width - 1)).long().view(count, 1, -1)
    read = images.flatten(2).gather(2, places.expand(-1, channels, -1)).view(images.shape)
    return read.masked_fill_(~inside[:, None], 0)


def _factors(strength: Tensor, sign: Tensor, device: torch.device) -> Tensor:
    """Factors in [0.1, 1.9], fixed-point, ``[B] -> [B, 1, 1]``."""
    return ((1 + strength * sign * COLOR) * FACTOR).round().int().to(device, non_blocking=True)[:, None, None]


def _away(base: Tensor, values: Tensor, factors: Tensor) -> Tensor:
    """``base + factor * (values - base)``, rounded down, in [0, 255]."""
    return (base + ((values - base) * factors >> 8)).clamp(0, 255)


def _luminance(images: Tensor) -> Tensor:
    """Luminance, ``[B, C, ...] -> int32 [B, 1, ...]``; of other than three channels the first one."""
    if images.shape[1] != 3:
        return images[:, :1].int()
    red, green, blue = images.int().unbind(1)
    return ((77 * red + 150 * green + 29 * blue) >> 8)[:, None]


def _apply_curves(images: Tensor, kind: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Changes of each value by itself: a curve of 256 values for each picture and channel."""
    flat = images.flatten(2)
    device, channels = images.device, images.shape[1]
    values = torch.arange(256, dtype=torch.int32, device=device)
    curves = values.expand(len(images), channels, 256).contiguous()

    def put(name: str, make: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        """Set the curves of the pictures that get this change, from their values, strengths and factors."""
        chosen = (kind == STRONG_CHANGES.index(name)).nonzero()[:, 0]
        if len(chosen):
            rows = chosen.to(device, non_blocking=True)
            factors = _factors(strength[chosen], sign[chosen], device)
            made = make(flat[rows], strength[chosen], factors)
            curves.index_copy_(0, rows, made.int().expand(-1, channels, -1))

    def whole(read: Tensor) -> Tensor:
        return read.int().to(device, non_blocking=True)[:, None, None]

    def fewer(bits: Tensor) -> Tensor:
        return values >> bits << bits

    zero = torch.zeros((), dtype=torch.int32, device=device)
    put("brightness", lambda pictures, much, factors: _away(zero, values, factors))
    put("contrast", lambda pictures, much, factors: _away(_mean(_luminance(pictures)), values, factors))
    put("posterize", lambda pictures, much, factors: fewer(whole((much * BITS).round())))
    put("solarize", lambda pictures, much, factors: torch.where(values < whole((1 - much) * 256), values, 255 - values))
    put("autocontrast", lambda pictures, much, factors: _autocontrast(pictures, values))
    put("equalize", lambda pictures, much, factors: _equalize(pictures, values))
    return curves.to(torch.uint8).gather(2, flat.long()).view(images.shape)


def _mean(values: Tensor) -> Tensor:
    """Mean over the last dimension, rounded down, int32."""
    return (values.sum(dim=-1, keepdim=True) // values.shape[-1]).int()


def _autocontrast(pictures: Tensor, values: Tensor) -> Tensor:
    """The curve from the darkest value to 0 and the brightest to 255."""
    low, high = pictures.amin(dim=2, keepdim=True).int(), pictures.amax(dim=2, keepdim=True).int()
    curve = ((values - low) * 255 // (high - low).clamp(min=1)).clamp(0, 255)
    return torch.where(high > low, curve, values)


def _equalize(pictures: Tensor, values: Tensor) -> Tensor:
    """The curve that equalizes the histogram."""
    places = pictures.long()
    counts = torch.zeros(*pictures.shape[:2], 256, dtype=torch.int64, device=pictures.device)
    counts.scatter_add_(2, places, torch.ones_like(places))
    brightest = counts.gather(2, places.amax(dim=2, keepdim=True))
    step = (pictures.shape[2] - brightest) // 255
    before = counts.cumsum(dim=2) - counts
    curve = ((before + step // 2) // step.clamp(min=1)).clamp(0, 255)
    return torch.where(step > 0, curve, values.long())


def _recolor(images: Tensor, kind: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Towards gray, or away from it."""
    factors = _factors(strength, sign, images.device)[:, :, None]
    return _away(_luminance(images), images.int(), factors).to(torch.uint8)


def _sharpen(images: Tensor, kind: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Towards a blurred picture, or away from it; the outermost pixels stay."""
    height, width = images.shape[2:]
    whole = images.int()
    inner = whole[:, :, 1:-1, 1:-1]
    around = [whole[:, :, y : y + height - 2, x : x + width - 2] for y in range(3) for x in range(3)]
    blurred = (torch.stack(around).sum(dim=0, dtype=torch.int32) + 4 * inner) // 13
    output = images.clone()
    sharpened = _away(blurred, inner, _factors(strength, sign, images.device)[:, :, None])
    output[:, :, 1:-1, 1:-1] = sharpened.to(torch.uint8)
    return output
