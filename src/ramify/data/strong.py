"""Strong augmentation: one change of shape or colour for each picture, all pictures of a batch at once.

As in TrivialAugment (arXiv:2103.10158), each picture gets one of 14 changes, each as likely, with a strength drawn
evenly; the ranges are those of RandAugment (arXiv:1909.13719). Numbers are drawn on the CPU and all arithmetic is in
integers, so a seed gives the same pictures on every device.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SHEAR, TURN, SHIFT, COLOUR = 0.3, math.radians(30), 0.3, 0.9
"""Strongest shear, turn in radians, shift as a share of the side, and change of a factor of colour or contrast."""

BITS = 4
"""Bits of eight that posterising takes at most."""

_DIGITS = 14
UNIT = 2**_DIGITS
"""A matrix entry of 1, in the fixed-point numbers in which places are computed."""

FACTOR = 2**8
"""A factor of 1, in the fixed-point numbers in which colours are computed."""

_MOVES = ("shear_x", "shear_y", "shift_x", "shift_y", "turn")
_CURVES = ("brightness", "contrast", "posterise", "solarise", "autocontrast", "equalise")
STRONG_CHANGES = ("nothing", *_MOVES, *_CURVES, "colour", "sharpness")
"""What may happen to a picture."""


def strong(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change each picture of a batch by its own numbers.

    Args:
        images: uint8 ``[B, C, H, W]``, on any device; left as it is.
        generator: on the CPU.

    Returns:
        uint8 ``[B, C, H, W]``, on the same device. What a move leaves open is black.

    Example:
        >>> pictures = torch.full((2, 3, 8, 8), 200, dtype=torch.uint8)
        >>> strong(pictures, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 8, 8])
    """
    return changed(images, *draw_strong(len(images), generator))


def draw_strong(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`changed` is told of ``count`` pictures, drawn on the CPU."""
    what = torch.randint(len(STRONG_CHANGES), (count,), generator=generator)
    strength = torch.rand(count, generator=generator)
    sign = torch.randint(2, (count,), generator=generator) * 2 - 1
    return what, strength, sign


def strong_batches(images: Tensor, sizes: Sequence[int], generator: torch.Generator) -> Tensor:
    """Change uint8 ``[N, C, H, W]`` of several batches, of ``sizes`` pictures each; drawn batch by batch.

    Example:
        >>> strong_batches(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), [2, 1], torch.Generator()).shape
        torch.Size([3, 1, 8, 8])
    """
    drawn = [draw_strong(size, generator) for size in sizes]
    return changed(images, *(torch.cat(each) for each in zip(*drawn, strict=True)))


def changed(images: Tensor, what: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Change each picture as told: ``what`` is an index into :data:`STRONG_CHANGES`, ``strength`` in [0, 1], ``sign``
    +-1.

    All three are ``[B]`` on the CPU. Changes without a direction pass over ``sign``, autocontrast and equalise over
    ``strength`` too.
    """
    found = images.clone()
    families: tuple[tuple[tuple[str, ...], Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]], ...] = (
        (_MOVES, _moved),
        (_CURVES, _curved),
        (("colour",), _coloured),
        (("sharpness",), _sharpened),
    )
    for names, change in families:
        first = STRONG_CHANGES.index(names[0])
        chosen = ((what >= first) & (what < first + len(names))).nonzero()[:, 0]
        if len(chosen):
            there = chosen.to(images.device, non_blocking=True)
            told = change(images[there], what[chosen], strength[chosen], sign[chosen])
            found.index_copy_(0, there, told)
    return found


def _moved(images: Tensor, what: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Shear, shift and turn: where each pixel is read from, to the nearest pixel."""
    count, channels, height, width = images.shape
    amount = (strength * sign).double()

    def where(name: str, value: Tensor) -> Tensor:
        return torch.where(what == STRONG_CHANGES.index(name), value, 0.0)

    angle = where("turn", amount * TURN)
    # From the centre of the picture, in units of half a pixel.
    matrix = torch.stack(
        (
            angle.cos(),
            angle.sin() + where("shear_y", amount * SHEAR),
            where("shift_y", amount * (SHIFT * 2 * height)),
            where("shear_x", amount * SHEAR) - angle.sin(),
            angle.cos(),
            where("shift_x", amount * (SHIFT * 2 * width)),
        )
    )
    fixed = (matrix * UNIT).round().int().to(images.device, non_blocking=True)[:, :, None, None]
    rows = torch.arange(1 - height, height, 2, dtype=torch.int32, device=images.device)[:, None]
    columns = torch.arange(1 - width, width, 2, dtype=torch.int32, device=images.device)
    # To the nearest pixel: floor((place + size) / 2), as places are twice their distance from the centre.
    down = (fixed[0] * rows + fixed[1] * columns + (fixed[2] + height * UNIT)) >> (_DIGITS + 1)
    right = (fixed[3] * rows + fixed[4] * columns + (fixed[5] + width * UNIT)) >> (_DIGITS + 1)
    inside = (down >= 0) & (down < height) & (right >= 0) & (right < width)
    places = (down.clamp(0, height - 1) * width + right.clamp(0, width - 1)).long().view(count, 1, -1)
    read = images.flatten(2).gather(2, places.expand(-1, channels, -1)).view(images.shape)
    return read.masked_fill_(~inside[:, None], 0)


def _factors(strength: Tensor, sign: Tensor, device: torch.device) -> Tensor:
    """Factors in [0.1, 1.9], fixed-point, ``[B] -> [B, 1, 1]``."""
    return ((1 + strength * sign * COLOUR) * FACTOR).round().int().to(device, non_blocking=True)[:, None, None]


def _away(base: Tensor, values: Tensor, factors: Tensor) -> Tensor:
    """``base + factor * (values - base)``, rounded down, in [0, 255]."""
    return (base + ((values - base) * factors >> 8)).clamp(0, 255)


def _grey(images: Tensor) -> Tensor:
    """Luminance, ``[B, C, ...] -> int32 [B, 1, ...]``; of other than three channels the first one."""
    if images.shape[1] != 3:
        return images[:, :1].int()
    red, green, blue = images.int().unbind(1)
    return ((77 * red + 150 * green + 29 * blue) >> 8)[:, None]


def _curved(images: Tensor, what: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """What changes each value by itself: a curve of 256 values for each picture and channel, looked up."""
    flat = images.flatten(2)
    device, channels = images.device, images.shape[1]
    values = torch.arange(256, dtype=torch.int32, device=device)
    curves = values.expand(len(images), channels, 256).contiguous()

    def put(name: str, make: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        """Set the curves of the pictures that get this change, from their values, strengths and factors."""
        chosen = (what == STRONG_CHANGES.index(name)).nonzero()[:, 0]
        if len(chosen):
            there = chosen.to(device, non_blocking=True)
            factors = _factors(strength[chosen], sign[chosen], device)
            made = make(flat[there], strength[chosen], factors)
            curves.index_copy_(0, there, made.int().expand(-1, channels, -1))

    def whole(read: Tensor) -> Tensor:
        return read.int().to(device, non_blocking=True)[:, None, None]

    def fewer(bits: Tensor) -> Tensor:
        return values >> bits << bits

    zero = torch.zeros((), dtype=torch.int32, device=device)
    put("brightness", lambda pictures, much, factors: _away(zero, values, factors))
    put("contrast", lambda pictures, much, factors: _away(_mean(_grey(pictures)), values, factors))
    put("posterise", lambda pictures, much, factors: fewer(whole((much * BITS).round())))
    put("solarise", lambda pictures, much, factors: torch.where(values < whole((1 - much) * 256), values, 255 - values))
    put("autocontrast", lambda pictures, much, factors: _stretched(pictures, values))
    put("equalise", lambda pictures, much, factors: _equalised(pictures, values))
    return curves.to(torch.uint8).gather(2, flat.long()).view(images.shape)


def _mean(values: Tensor) -> Tensor:
    """Mean over the last dimension, rounded down, int32."""
    return (values.sum(dim=-1, keepdim=True) // values.shape[-1]).int()


def _stretched(pictures: Tensor, values: Tensor) -> Tensor:
    """The curve from the darkest value to 0 and the brightest to 255; one that is flat stays."""
    low, high = pictures.amin(dim=2, keepdim=True).int(), pictures.amax(dim=2, keepdim=True).int()
    curve = ((values - low) * 255 // (high - low).clamp(min=1)).clamp(0, 255)
    return torch.where(high > low, curve, values)


def _equalised(pictures: Tensor, values: Tensor) -> Tensor:
    """The curve that makes all values as frequent, as far as it can."""
    places = pictures.long()
    counts = torch.zeros(*pictures.shape[:2], 256, dtype=torch.int64, device=pictures.device)
    counts.scatter_add_(2, places, torch.ones_like(places))
    brightest = counts.gather(2, places.amax(dim=2, keepdim=True))
    step = (pictures.shape[2] - brightest) // 255
    before = counts.cumsum(dim=2) - counts
    curve = ((before + step // 2) // step.clamp(min=1)).clamp(0, 255)
    return torch.where(step > 0, curve, values.long())


def _coloured(images: Tensor, what: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Towards grey, or away from it."""
    factors = _factors(strength, sign, images.device)[:, :, None]
    return _away(_grey(images), images.int(), factors).to(torch.uint8)


def _sharpened(images: Tensor, what: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Towards a blurred picture, or away from it; the outermost pixels stay."""
    height, width = images.shape[2:]
    whole = images.int()
    inner = whole[:, :, 1:-1, 1:-1]
    around = [whole[:, :, y : y + height - 2, x : x + width - 2] for y in range(3) for x in range(3)]
    blurred = (torch.stack(around).sum(dim=0, dtype=torch.int32) + 4 * inner) // 13
    found = images.clone()
    found[:, :, 1:-1, 1:-1] = _away(blurred, inner, _factors(strength, sign, images.device)[:, :, None]).to(torch.uint8)
    return found
