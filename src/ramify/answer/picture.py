"""Picture files as network inputs, without torch, for the runtime."""

import math
import threading
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from ramify.data.decode import (
    DAMAGE,
    Reading,
    channels_first,
    decode,
    open_picture,
    orientation,
    why_unreadable,
    with_channels,
)
from ramify.data.listing import AVIF, HEIC, list_folder
from ramify.errors import DataError

MAX_PIXELS = Reading.max_pixels
"""The largest picture that is decoded; the header of a larger one is enough to refuse it."""

MAX_BYTES = 300_000_000
"""The largest file that is read: an uncompressed picture of :data:`MAX_PIXELS`."""

Pictures = npt.NDArray[np.float32]

_QUARTER_TURNS = (5, 6, 7, 8)
_GRAY = ("1", "L", "LA", "La", "I", "F")
# Pillow warns of a large picture, and all threads share Python's warning filters.
_FILTERS = threading.Lock()


@dataclass(frozen=True)
class Header:
    """The header of a picture file.

    Attributes:
        height, width: pixels, turned upright.
        color: of its mode.
        transparent: whether it has transparency.
    """

    height: int
    width: int
    color: Literal["gray", "RGB"]
    transparent: bool


def read_header(content: bytes, name: str) -> Header:
    """The header of a file; its pixels are not decoded.

    Args:
        content: the file.
        name: its name in errors.

    Raises:
        DataError: it is not a picture, its header is damaged, or it has more than :data:`MAX_PIXELS`.
    """
    try:
        with _FILTERS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_picture(content) as file:
                width, height = file.size
                gray = file.mode in _GRAY or file.mode.startswith("I;16")
                transparent = file.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in file.info
                turned = width * height <= MAX_PIXELS and orientation(file) in _QUARTER_TURNS
    except Image.DecompressionBombError:
        raise DataError(f"{name}: got a picture of too many pixels; accepted: up to {MAX_PIXELS:,}") from None
    except DAMAGE:
        raise DataError(
            f"{name}: is {why_unreadable(content)}, or its start is damaged; accepted: a whole picture file"
        ) from None
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{name}: got a picture of {width}x{height} = {height * width:,} pixels; accepted: up to {MAX_PIXELS:,}"
        )
    if turned:
        height, width = width, height
    return Header(height, width, "gray" if gray else "RGB", transparent)


def read_picture(
    content: bytes, name: str, input_shape: tuple[int, int, int], reading: Reading | None = None
) -> Pictures:
    """One picture as network input: float32 ``[C, H, W]`` in [0, 1].

    Another size or mode is converted as it was for training: turned upright, made 8 bits gray or RGB, scaled to cover
    the size (antialiased), cropped at the center, and made gray or RGB as the network takes it.

    Args:
        content: the file.
        name: its name in errors.
        input_shape: (C, H, W) of the network.
        reading: how transparent and 16-bit pictures are read, see :attr:`ramify.answer.answerer.TorchAnswerer.reading`.

    Raises:
        DataError: it is not a picture, is damaged or cut short, or has more than :data:`MAX_PIXELS`.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (40, 20), "white").save(file, "PNG")
        >>> picture = read_picture(file.getvalue(), "white.png", (1, 8, 8))
        >>> picture.shape, float(picture.min())
        ((1, 8, 8), 1.0)
    """
    read_header(content, name)
    reading = replace(reading or Reading(), size=input_shape[1:], max_pixels=MAX_PIXELS)
    pixels = channels_first(decode(content, name, reading=reading))
    picture: Pictures = with_channels(pixels, input_shape[0]).astype(np.float32)
    picture /= 255
    return picture


def conversion(header: Header, input_shape: tuple[int, int, int]) -> str | None:
    """How a picture is converted to network input, in words; None where it is not.

    Example:
        >>> conversion(Header(20, 40, "RGB", False), (1, 8, 8))
        '40x20 RGB made 8x8 gray'
    """
    channels, height, width = input_shape
    color: Literal["gray", "RGB"] = "gray" if channels == 1 else "RGB"
    if header == Header(height, width, color, transparent=False):
        return None
    transparency = " with transparency" if header.transparent else ""
    return f"{header.width}x{header.height} {header.color}{transparency} made {width}x{height} {color}"


def read_file(path: Path) -> bytes:
    """The content of a file that may be a picture.

    Raises:
        DataError: it is no regular file, has more than :data:`MAX_BYTES`, or cannot be read.
    """
    try:
        if not path.is_file():
            reason = "is no regular file" if path.exists() else "there is no such file"
            raise DataError(f"{path}: {reason}; accepted: a picture file, or a folder of them")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DataError(f"{path}: got a file of {size:,} bytes; accepted: up to {MAX_BYTES:,}")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a ValueError: no valid file name
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


@dataclass(frozen=True)
class _Unlimited:
    max_entries: float = math.inf
    max_depth: float = math.inf
    max_file_mb: float = math.inf
    max_archive_gb: float = math.inf


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """The files among ``paths``, and the pictures in its folders, as for training: sorted, without hidden ones.

    HEIC and AVIF files that cannot be read here are among them, for an error of their own.

    Raises:
        DataError: a folder holds no picture, or cannot be read.
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        try:
            listing = list_folder(path, _Unlimited())
        except OSError as error:
            raise DataError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from error
        unread = [path / file.name for file in listing.skipped if file.reason in (HEIC, AVIF)]
        inside = sorted([*(path / str(entry.place) for entry in listing.entries.values()), *unread])
        if not inside:
            raise DataError(f"{path}: got a folder without pictures; accepted: picture files, or folders of them")
        files += inside
    return files
