"""A picture file that somebody hands over, made into what a network reads; without torch, as the runtime needs it."""

import io
import threading
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from ramify.data.decode import DAMAGE, FORMATS, Reading, channels_first, decode, with_channels
from ramify.data.listing import is_picture
from ramify.data.names import is_hidden
from ramify.errors import DataError

MAX_PIXELS = 50_000_000
"""The largest picture that is decoded; a larger one is refused by what its header says."""

MAX_BYTES = 200_000_000
"""The largest file that is read: it holds a picture of :data:`MAX_PIXELS`, even one that is not compressed."""

Pictures = npt.NDArray[np.float32]

_ORIENTATION = 0x0112  # of EXIF
_LYING = (5, 6, 7, 8)  # its values for pictures that are turned by a quarter
_GRAY = ("1", "L", "LA", "La", "I", "F")
# Pillow tells of a large picture by a warning, and Python's filters of warnings are shared by all threads.
_FILTERS = threading.Lock()


@dataclass(frozen=True)
class Header:
    """What a picture file says of itself.

    Attributes:
        height, width: pixels, turned upright.
        colour: whether it is gray.
        transparent: whether some of it may be seen through.
    """

    height: int
    width: int
    colour: Literal["gray", "RGB"]
    transparent: bool


def read_header(content: bytes, name: str) -> Header:
    """What the file says of itself; its pixels are not decoded.

    Args:
        content: the file.
        name: what to call it in an error.

    Raises:
        DataError: it is not a picture, its header is damaged, or it has more than :data:`MAX_PIXELS`.
    """
    try:
        with _FILTERS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as file:
                width, height = file.size
                gray = file.mode in _GRAY or file.mode.startswith("I;16")
                transparent = file.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in file.info
                turned = width * height <= MAX_PIXELS and file.getexif().get(_ORIENTATION) in _LYING
    except Image.DecompressionBombError:
        raise DataError(f"{name}: got a picture of too many pixels; accepted: up to {MAX_PIXELS:,}") from None
    except DAMAGE:
        raise DataError(f"{name}: is not a picture, or its start is damaged; accepted: a whole picture file") from None
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
    """One picture as a network reads it: float32 ``[C, H, W]`` in [0, 1].

    Another size or mode is converted as it was for training: turned upright, made 8 bits gray or RGB, scaled to cover
    the size and cropped to it at the centre, antialiased, and only then made gray or RGB as the network takes it.

    Args:
        content: the file.
        name: what to call it in an error.
        input_shape: (C, H, W) of the network.
        reading: how transparent and 16-bit pictures are read, see :attr:`ramify.answer.answerer.Answerer.reading`.

    Raises:
        DataError: it is not a picture, is damaged or cut short, or has more than :data:`MAX_PIXELS`, which is seen
            before it is decoded.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (40, 20), "white").save(file, "PNG")
        >>> picture = read_picture(file.getvalue(), "white.png", (1, 8, 8))
        >>> picture.shape, float(picture.min())
        ((1, 8, 8), 1.0)
    """
    read_header(content, name)
    how = replace(reading or Reading(), size=input_shape[1:], max_pixels=MAX_PIXELS)
    pixels = decode(content, name, reading=how)
    found: Pictures = with_channels(channels_first(pixels), input_shape[0]).astype(np.float32)
    found /= 255
    return found


def conversion(header: Header, input_shape: tuple[int, int, int]) -> str | None:
    """How a picture differs from what the network reads, in words; None where it does not.

    Example:
        >>> conversion(Header(20, 40, "RGB", False), (1, 8, 8))
        '40x20 RGB made 8x8 gray'
    """
    channels, height, width = input_shape
    colour = "gray" if channels == 1 else "RGB"
    seen_through = " with transparency" if header.transparent else ""
    if (header.height, header.width, header.colour) == (height, width, colour) and not seen_through:
        return None
    return f"{header.width}x{header.height} {header.colour}{seen_through} made {width}x{height} {colour}"


def read_file(path: Path) -> bytes:
    """The content of a file that may be a picture.

    Raises:
        DataError: it is no regular file, has more than :data:`MAX_BYTES`, or cannot be read.
    """
    try:
        if not path.is_file():
            there = "is no regular file" if path.exists() else "there is no such file"
            raise DataError(f"{path}: {there}; accepted: a picture file, or a folder of them")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DataError(f"{path}: got a file of {size:,} bytes; accepted: up to {MAX_BYTES:,}")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a ValueError is a name that no system takes
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """The files of ``paths``, and of the folders among them every picture inside, by name; hidden ones are passed over.

    Raises:
        DataError: a folder holds no picture.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(each for each in path.rglob("*") if is_picture(each.name) and each.is_file())
        inside = [each for each in inside if not any(map(is_hidden, each.relative_to(path).parts))]
        if not inside:
            raise DataError(f"{path}: got a folder without pictures; accepted: picture files, or folders of them")
        found += inside
    return found
