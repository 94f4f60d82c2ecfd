"""Decoded pictures gathered into one array, in memory or, where it would be too large, in a file."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from ramify.data.decode import DIGEST_BYTES, VANISHED, WIDE, Decoded, Pixels, channels_first
from ramify.data.store import Store
from ramify.errors import DataError

_Shape = tuple[int, int, int, int]
NewFile = Callable[[int], AbstractContextManager[Path]]
"""Opens a new file for a number of bytes, which is removed if its block ends with an error."""

ON_OPPOSITE = "cannot be seen on data.background and are laid on the opposite color"

DULL = 16
"""Range of the values of a set, of 256, below which it is reported as nearly constant."""


@dataclass
class Gathered:
    """The pictures so far, by row.

    Attributes:
        digests: of the files, uint8 ``[N, 16]``.
        done: whether a row has its picture, bool ``[N]``.
        problems: errors, by row.
        range: the least and the largest value of all deep pictures.
        deep: rows whose pictures wait for the range.
        sizes: number of pictures and first row, by (height, width).
        low, high: the least and the largest value.
        flat: rows of pictures of one value.
        odd: rows of :data:`~ramify.data.decode.WIDE` and of :data:`~ramify.data.decode.VANISHED` pictures.
    """

    digests: npt.NDArray[np.uint8]
    done: npt.NDArray[np.bool_]
    problems: dict[int, str] = field(default_factory=dict)
    range: tuple[float, float] | None = None
    deep: list[int] = field(default_factory=list)
    sizes: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    low: int = 255
    high: int = 0
    flat: list[int] = field(default_factory=list)
    odd: dict[str, list[int]] = field(default_factory=dict)


class Gatherer:
    """Puts ``count`` pictures into rows of one array, uint8 ``[N, C, H, W]``: C is 1 while all are gray, else 3.

    An array of more than ``memory`` bytes goes into a file of ``new_file``, which ``stack`` holds until the set is
    kept.
    """

    def __init__(self, count: int, memory: float, new_file: NewFile, stack: ExitStack) -> None:
        self.gathered = Gathered(np.zeros((count, DIGEST_BYTES), np.uint8), np.zeros(count, np.bool_))
        self._memory, self._new_file, self._stack = memory, new_file, stack
        self._shape: _Shape = (count, 0, 0, 0)
        self._array: npt.NDArray[np.uint8] | None = None
        self._file: BinaryIO | None = None

    def put(self, rows: Sequence[int], decoded: Decoded | DataError) -> None:
        """Put a decoded file into ``rows``: one, or several where the file has several names."""
        gathered, pixels = self.gathered, None if isinstance(decoded, DataError) else decoded.pixels
        if isinstance(decoded, DataError):
            gathered.problems.update((row, decoded.problems[0]) for row in rows)
            return
        gathered.digests[list(rows)] = np.frombuffer(decoded.digest, np.uint8)
        if decoded.range is not None and pixels is None:
            low, high = decoded.range
            known = gathered.range or decoded.range
            gathered.range = min(low, known[0]), max(high, known[1])
            gathered.deep.extend(rows)
            return
        assert pixels is not None
        if decoded.range is not None and gathered.range is None:
            gathered.range = decoded.range
        if decoded.odd:
            gathered.odd.setdefault(decoded.odd, []).extend(rows)
        darkest, brightest = int(pixels.min()), int(pixels.max())
        gathered.low, gathered.high = min(gathered.low, darkest), max(gathered.high, brightest)
        if darkest == brightest:
            gathered.flat.extend(rows)
        size = (pixels.shape[0], pixels.shape[1])
        count, first = gathered.sizes.get(size, (0, rows[0]))
        gathered.sizes[size] = (count + len(rows), min(first, *rows))
        for row in rows:
            self._write(row, pixels)

    def _write(self, row: int, pixels: Pixels) -> None:
        channels = 1 if pixels.ndim == 2 else 3
        if self._shape[1] == 0:
            self._open((self._shape[0], channels, *pixels.shape[:2]))
        if pixels.shape[:2] != self._shape[2:]:
            return  # all sizes are reported in the end
        if channels > self._shape[1]:
            self._to_color()
        whole = channels_first(pixels)
        if self._array is not None:
            self._array[row] = whole
        else:
            assert self._file is not None
            self._file.seek(row * self._stride)
            self._file.write(np.ascontiguousarray(np.broadcast_to(whole, self._shape[1:])).tobytes())
        self.gathered.done[row] = True

    @property
    def _stride(self) -> int:
        return self._shape[1] * self._shape[2] * self._shape[3]

    def _open(self, shape: _Shape) -> None:
        self._shape = shape
        size = shape[0] * self._stride
        if size <= self._memory:
            self._array = np.zeros(shape, np.uint8)
        else:
            path = self._stack.enter_context(self._new_file(size))
            self._file = self._stack.enter_context(path.open("r+b"))
            self._file.truncate(size)

    def _to_color(self) -> None:
        """Give all pictures three channels."""
        count, _, height, width = self._shape
        gray, old, stride = self._array, self._file, self._stride
        self._array = self._file = None
        self._open((count, 3, height, width))
        for row in np.flatnonzero(self.gathered.done).tolist():
            if gray is not None:
                self._write(row, gray[row, 0])
            elif old is not None:
                old.seek(row * stride)
                self._write(row, np.frombuffer(old.read(stride), np.uint8).reshape(height, width))
        if old is not None:
            Path(old.name).unlink()

    def finish(self) -> torch.Tensor | Store:
        """The array; rows without a picture are zeros."""
        if self._array is not None:
            return torch.from_numpy(self._array)
        assert self._file is not None
        self._file.flush()
        return Store(Path(self._file.name), self._shape)


def check_sizes(gathered: Gathered, names: Sequence[str], where: str) -> None:
    """Check that all pictures have one size.

    Raises:
        DataError: they do not; each size is named with its number of pictures and the first one.
    """
    if len(gathered.sizes) < 2:
        return
    ordered = sorted(gathered.sizes.items(), key=lambda item: -item[1][0])
    first = [f"{width}x{height} ({count:,}: {names[row]})" for (height, width), (count, row) in ordered[:4]]
    more = f" and {len(ordered) - 4:,} more" if len(ordered) > 4 else ""
    raise DataError(
        f"{where}: got pictures of {len(ordered):,} sizes, width x height: {', '.join(first)}{more}; accepted: "
        "pictures of one size, or data.size=<pixels> to scale them to one"
    )


def oddities(gathered: Gathered, names: Sequence[str], where: str) -> list[str]:
    """Sentences about values that look like a mistake."""
    notes = []
    count, low, high = int(gathered.done.sum()), gathered.low, gathered.high
    if count and high - low < DULL:
        notes.append(f"{where}: all values lie between {low} and {high} of 0 to 255: nearly constant pictures")
    elif gathered.flat and count:
        example = names[min(gathered.flat)]
        notes.append(
            f"{where}: {len(gathered.flat):,} of {count:,} pictures have one value throughout, such as {example}"
        )
    for odd, sentence in ((WIDE, "have colors of 16 bits, of which the upper 8 are read"), (VANISHED, ON_OPPOSITE)):
        if rows := gathered.odd.get(odd):
            notes.append(f"{where}: {len(rows):,} pictures {sentence}, such as {names[min(rows)]}")
    if gathered.range is not None:
        low_value, high_value = gathered.range
        notes.append(f"{where}: pictures of 16 or 32 bits: {low_value:g} became 0, {high_value:g} became 255")
    return notes
