"""Picture files to one uint8 tensor."""

import io
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from ramify.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
SMALLEST_SIDE = 8

# What a file holds is told by its content, and Pillow knows formats that start other programs.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

Size = tuple[int, int]
Pixels = npt.NDArray[np.uint8]

_CHUNK = 16  # pictures a thread takes at a time: many enough for small ones, few enough for photographs
_THREADS = min(8, os.cpu_count() or 1)

# What Pillow's decoders raise on damaged files; most are OSError.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    NotImplementedError,
    struct.error,
    zlib.error,
    MemoryError,
    Image.DecompressionBombError,
    Warning,  # where the user has made warnings errors
)


def is_picture(name: str) -> bool:
    """Whether a file's name ends as a picture's.

    Example:
        >>> is_picture("cat/1.JPG"), is_picture("cat/notes.txt")
        (True, False)
    """
    return Path(name).suffix.lower() in SUFFIXES


def decode(content: bytes, name: str, size: Size | None = None) -> Pixels:
    """One picture: ``[H, W]`` if it is gray, else ``[H, W, 3]``, turned upright as its EXIF data say.

    Transparency is dropped, 16-bit grays keep their upper 8 bits, and of an animation the first frame counts.

    Args:
        content: the file.
        name: what to call it in an error.
        size: (H, W) to scale and centre-crop it to, with antialiasing; None keeps its own.

    Raises:
        DataError: the file is not a picture or is damaged, or the picture has a side below 8 pixels.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as file:
            ImageOps.exif_transpose(file, in_place=True)
            upright = _eight_bits(file)
            if size is not None and (upright.height, upright.width) != size:
                upright = ImageOps.fit(upright, (size[1], size[0]), Image.Resampling.BICUBIC)
            pixels = np.array(upright, dtype=np.uint8)
    except DAMAGE as error:
        reason = " ".join(str(error).split()) if not isinstance(error, UnidentifiedImageError) else ""
        raise DataError(
            f"{name}: cannot be decoded ({reason or 'not a picture'}); accepted: a whole picture file"
        ) from error
    if min(pixels.shape[:2]) < SMALLEST_SIDE:
        raise DataError(
            f"{name}: got a picture of {_show_size(pixels)} pixels; accepted: sides of at least {SMALLEST_SIDE}"
        )
    return pixels


@contextmanager
def decoding(
    files: Iterable[tuple[str, bytes | Path]], size: Size | None
) -> Iterator[Iterator[tuple[str, Pixels | DataError]]]:
    """Decode named files (their content, or where it lies) in threads; gives them in the same order.

    A picture that cannot be decoded gives its error instead, which is the caller's to raise. The threads end
    with the ``with`` block: left to the garbage collector, they could wait for a lock that its thread holds.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        yield _in_order(pool, files, size)


def _in_order(
    pool: ThreadPoolExecutor, files: Iterable[tuple[str, bytes | Path]], size: Size | None
) -> Iterator[tuple[str, Pixels | DataError]]:
    todo = iter(files)
    # A window of few chunks: memory stays bounded whatever the files are.
    waiting: deque[Future[list[tuple[str, Pixels | DataError]]]] = deque()
    while chunk := list(islice(todo, _CHUNK)):
        waiting.append(pool.submit(_decode_chunk, chunk, size))
        if len(waiting) > 2 * _THREADS:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def stack(pictures: Iterable[tuple[str, Pixels | DataError]]) -> torch.Tensor:
    """Decoded pictures as uint8 ``[N, C, H, W]``: C is 1 if all are gray, else 3.

    Raises:
        DataError: the first picture's error, or the first picture that has another size than those before.
    """
    decoded: list[Pixels] = []
    first = ""
    for name, picture in pictures:
        if isinstance(picture, DataError):
            raise picture
        if not decoded:
            first = name
        elif picture.shape[:2] != decoded[0].shape[:2]:
            raise odd_size(name, picture, first, decoded[0])
        decoded.append(picture)
    if not decoded:
        return torch.empty(0, 1, SMALLEST_SIDE, SMALLEST_SIDE, dtype=torch.uint8)
    channels = 1 if all(picture.ndim == 2 for picture in decoded) else 3
    whole = np.empty((len(decoded), channels, *decoded[0].shape[:2]), dtype=np.uint8)
    for i in range(len(decoded)):
        picture, decoded[i] = decoded[i], decoded[0][:0]  # lets go of it, so that memory holds the set about once
        whole[i] = picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)
    return torch.from_numpy(whole)


def odd_size(name: str, picture: Pixels, other_name: str, other: Pixels) -> DataError:
    """The sentence for two pictures whose sizes differ."""
    return DataError(
        f"{name}: got a picture of {_show_size(picture)} pixels (height x width) where {other_name} has "
        f"{_show_size(other)}; accepted: pictures of one size, or data.size=<pixels> to scale them to one"
    )


def _decode_chunk(chunk: list[tuple[str, bytes | Path]], size: Size | None) -> list[tuple[str, Pixels | DataError]]:
    return [(name, _decode_or_error(name, content, size)) for name, content in chunk]


def _decode_or_error(name: str, content: bytes | Path, size: Size | None) -> Pixels | DataError:
    try:
        return decode(content.read_bytes() if isinstance(content, Path) else content, name, size)
    except DataError as error:
        return error
    except OSError as error:
        return DataError(f"{name}: cannot be read ({error.strerror or error})")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """``picture`` in mode L if it is gray, else RGB."""
    if picture.mode in ("L", "RGB"):
        return picture
    if picture.mode in ("1", "LA", "La"):
        return picture.convert("L")
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        # Pillow would clip at 255; both modes hold 16-bit grays of PNG, TIFF and PGM files.
        return Image.fromarray((np.asarray(picture).clip(0, 65535) // 256).astype(np.uint8))
    if picture.mode == "F":
        raise ValueError("its pixels are fractions; accepted: 8 or 16 bits")
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # Pillow warns about the short way
    return picture.convert("RGB")


def _show_size(pixels: Pixels) -> str:
    return f"{pixels.shape[0]}x{pixels.shape[1]}"
