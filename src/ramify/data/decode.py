"""Picture files to arrays of uint8; without torch, as the runtime for small devices reads pictures too."""

import hashlib
import io
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ramify.data.listing import AVIF, HEIC, SNIFFED, known_by_content, reads_avif, reads_heic
from ramify.errors import DataError

SMALLEST_SIDE = 8

# Pillow goes by the content, and has formats that start other programs.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

PictureSize = tuple[int, int]
Pixels = npt.NDArray[np.uint8]
Deep = npt.NDArray[np.float64] | npt.NDArray[np.int32] | npt.NDArray[np.uint16]
Color = tuple[int, int, int]
File = tuple[int, str, bytes | Path]
"""A number, a name for errors, and the content or its path."""

WHITE: Color = (255, 255, 255)
LUMA = (19595, 38470, 7471)
"""Of red, green and blue in gray, in 1 / 65536."""
DIGEST_BYTES = 16

_CHUNK = 16  # pictures a thread takes at a time: many enough for small ones, ...
_CHUNK_BYTES = 1_000_000  # ... and few enough for photographs, by their files
_CHUNK_DECODED = 8_000_000  # ... and by their pixels
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


@dataclass(frozen=True)
class Reading:
    """How picture files are decoded.

    Attributes:
        size: (H, W) to scale and center-crop to, with antialiasing; None keeps their own.
        background: behind transparent pictures.
        range: the values of 16- and 32-bit pictures that become 0 and 255; None for those of the whole set.
        max_pixels: of one picture.
    """

    size: PictureSize | None = None
    background: Color = WHITE
    range: tuple[float, float] | None = None
    max_pixels: int = 89_000_000


WIDE = "wide"
"""A picture with colors of 16 bits, of which 8 are used."""

VANISHED = "vanished"
"""A transparent picture that cannot be seen on the background, and gets the opposite one."""


@dataclass(frozen=True)
class Decoded:
    """A picture file, decoded.

    Attributes:
        pixels: ``[H, W]`` if it is gray, else ``[H, W, 3]``; None of a deep picture while the range is not known.
        digest: of the file's content, :data:`DIGEST_BYTES` bytes.
        range: the least and the largest value of a deep picture.
        odd: :data:`WIDE`, :data:`VANISHED`, or nothing.
    """

    pixels: Pixels | None
    digest: bytes
    range: tuple[float, float] | None = None
    odd: str = ""


def decode(content: bytes, name: str, reading: Reading) -> Pixels:
    """One picture: ``[H, W]`` if it is gray, else ``[H, W, 3]``, upright by its EXIF data.

    Of an animation the first frame counts. Pictures of 16 or 32 bits are scaled by the range, without one by their own.

    Raises:
        DataError: the file is not a picture or is damaged, or the picture has a side below 8 pixels.
    """
    pixels, own, _ = _decode(content, name, reading)
    if pixels is None and own is not None:
        pixels, _, _ = _decode(content, name, replace(reading, range=own))
    assert pixels is not None
    return pixels


def content_digest(content: bytes) -> bytes:
    """BLAKE2b of a file's content."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def _decode(content: bytes, name: str, reading: Reading) -> tuple[Pixels | None, tuple[float, float] | None, str]:
    odd = WIDE if _is_wide(content) else ""
    try:
        with open_picture(content) as stored:
            if stored.width * stored.height > reading.max_pixels:
                raise ValueError(
                    f"{stored.width}x{stored.height} = {stored.width * stored.height:,} pixels, more than "
                    "data.max_pixels"
                )
            stored.load()
            turn = _TURNS.get(orientation(stored))
            file = stored if turn is None else stored.transpose(turn)
            own = None
            if _is_deep(file):
                values = _deep_values(file)
                own = float(values.min()), float(values.max())
                if reading.range is None:
                    _check_sides(name, file.width, file.height)
                    return None, own, odd
                upright = Image.fromarray(_scaled(values, reading.range))
            else:
                upright, vanished = _eight_bits(file, reading.background)
                odd = VANISHED if vanished else odd
            if reading.size is not None and (upright.height, upright.width) != reading.size:
                upright = ImageOps.fit(upright, (reading.size[1], reading.size[0]), Image.Resampling.BICUBIC)
            pixels = np.array(upright, dtype=np.uint8)
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: cannot be decoded (more pixels than data.max_pixels); accepted: fewer") from error
    except DAMAGE as error:
        reason = (
            " ".join(str(error).split()) if not isinstance(error, UnidentifiedImageError) else why_unreadable(content)
        )
        raise DataError(
            f"{name}: cannot be decoded ({reason or 'not a picture'}); accepted: a whole picture file"
        ) from error
    _check_sides(name, pixels.shape[1], pixels.shape[0])
    return pixels, own, odd


def open_picture(content: bytes) -> Image.Image:
    """A picture file in Pillow, of the accepted formats alone; HEIC and AVIF where they can be read."""
    formats: tuple[str, ...] = FORMATS
    if content[4:8] == b"ftyp":
        if reads_heic():
            import pillow_heif

            pillow_heif.register_heif_opener()
        formats = (*FORMATS, *(["HEIF"] if reads_heic() else []), *(["AVIF"] if reads_avif() else []))
    return Image.open(io.BytesIO(content), formats=formats)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its orientation; Pillow's own ``exif_transpose`` fails on odd EXIF data."""


def orientation(file: Image.Image) -> int:
    """That of its EXIF data, from 1, which is upright, to 8; 1 where they are damaged: it is then read as it lies."""
    try:
        return int(file.getexif().get(ExifTags.Base.Orientation, 1))
    except DAMAGE:
        return 1


def why_unreadable(content: bytes) -> str:
    """Why a file has none of the accepted formats."""
    reason = known_by_content(content[:SNIFFED])
    return reason if reason in (HEIC, AVIF) else "not a picture"


def _check_sides(name: str, width: int, height: int) -> None:
    if min(width, height) < SMALLEST_SIDE:
        raise DataError(
            f"{name}: got a picture of {width}x{height} pixels; accepted: sides of at least {SMALLEST_SIDE}"
        )


@contextmanager
def decoding(files: Iterable[File], reading: Reading) -> Iterator[Iterator[tuple[int, Decoded | DataError]]]:
    """Decode files in threads, in their order; a picture that cannot be decoded gives its error."""
    with ThreadPoolExecutor(_THREADS) as pool:
        yield _in_order(pool, files, reading)


def _in_order(
    pool: ThreadPoolExecutor, files: Iterable[File], reading: Reading
) -> Iterator[tuple[int, Decoded | DataError]]:
    todo = iter(files)
    # A window of few chunks, which grow from one picture as far as what was decoded so far is small: memory stays
    # bounded whatever the files are, and however much they unpack to.
    waiting: deque[Future[list[tuple[int, Decoded | DataError]]]] = deque()
    most, largest = 1, 1
    while chunk := _chunk(todo, most):
        waiting.append(pool.submit(_decode_chunk, chunk, reading))
        if len(waiting) > 2 * _THREADS:
            done = waiting.popleft().result()
            largest = max(largest, *(_bytes(picture) for _, picture in done))
            most = max(1, min(_CHUNK, _CHUNK_DECODED // largest))
            yield from done
    while waiting:
        yield from waiting.popleft().result()


def _chunk(files: Iterator[File], most: int) -> list[File]:
    """The next files, up to ``most``, and not many bytes at once."""
    chunk: list[File] = []
    size = 0
    while len(chunk) < most and size < _CHUNK_BYTES and (file := next(files, None)) is not None:
        chunk.append(file)
        size += len(file[2]) if isinstance(file[2], bytes) else _size(file[2])
    return chunk


def _bytes(decoded: Decoded | DataError) -> int:
    return 0 if isinstance(decoded, DataError) or decoded.pixels is None else decoded.pixels.nbytes


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # reported when it is read


def channels_first(pixels: Pixels) -> Pixels:
    """``[H, W]`` or ``[H, W, 3]`` as ``[1, H, W]`` or ``[3, H, W]``."""
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def with_channels(pixels: Pixels, channels: int) -> Pixels:
    """``[C, H, W]`` with 1 or 3 channels: gray repeated, or RGB weighed as the eye does (ITU-R 601).

    Example:
        >>> with_channels(np.full((3, 1, 1), 7, np.uint8), 1).tolist()
        [[[7]]]
    """
    if len(pixels) == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=0)
    luma = np.tensordot(np.array(LUMA, np.int32), pixels.astype(np.int32), axes=1)[None]
    return ((luma + (1 << 15)) >> 16).astype(np.uint8)


def _decode_chunk(chunk: list[File], reading: Reading) -> list[tuple[int, Decoded | DataError]]:
    return [(number, _decode_or_error(name, content, reading)) for number, name, content in chunk]


def _decode_or_error(name: str, content: bytes | Path, reading: Reading) -> Decoded | DataError:
    try:
        read = content.read_bytes() if isinstance(content, Path) else content
        pixels, own, odd = _decode(read, name, reading)
        return Decoded(pixels, content_digest(read), own, odd)
    except DataError as error:
        return error
    except (OSError, MemoryError) as error:
        return DataError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})")


def _is_wide(content: bytes) -> bool:
    return content.startswith(b"\x89PNG") and content[24:25] == b"\x10" and content[25:26] in (b"\x02", b"\x06")


def _is_deep(picture: Image.Image) -> bool:
    """Whether its values have 16 or 32 bits; Pillow reads color of 16 bits as that of 8."""
    return picture.mode in ("I", "F") or picture.mode.startswith("I;16")


def _deep_values(picture: Image.Image) -> Deep:
    values = np.asarray(picture)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("some of its pixels are infinite or not a number")
    return values


def _scaled(values: Deep, limits: tuple[float, float]) -> Pixels:
    """Values from the lower limit to the upper as 0 to 255; as 128 where the two are equal."""
    low, high = limits
    if high <= low:
        return np.full(values.shape, 128, dtype=np.uint8)
    scaled: Pixels = np.rint((values.astype(np.float64) - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)
    return scaled


def _eight_bits(picture: Image.Image, background: Color) -> tuple[Image.Image, bool]:
    """``picture`` in mode L if it is gray, else RGB, on ``background``; and whether it vanished there.

    A picture that vanishes, such as white ink on white, gets the opposite background.
    """
    if picture.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in picture.info:
        gray = picture.mode in ("1", "L", "LA", "La") and len(set(background)) == 1
        over = picture.convert("RGBA")
        flat = _laid(over, background)
        vanished = _is_flat(flat) and not _is_flat(over.getchannel("A"))
        if vanished:
            red, green, blue = background
            flat = _laid(over, (255 - red, 255 - green, 255 - blue))
        return (flat.getchannel("R") if gray else flat), vanished
    if picture.mode in ("L", "RGB"):
        return picture, False
    return picture.convert("L" if picture.mode == "1" else "RGB"), False


def _laid(picture: Image.Image, background: Color) -> Image.Image:
    under = Image.new("RGBA", picture.size, (*background, 255))
    return Image.alpha_composite(under, picture).convert("RGB")


def _is_flat(picture: Image.Image) -> bool:
    """Whether every channel has one value throughout."""
    return all(low == high for low, high in (channel.getextrema() for channel in picture.split()))
