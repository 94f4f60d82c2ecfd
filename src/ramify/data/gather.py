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
"""Gives a new file for so many bytes, which is removed if its block ends with an error."""

ON_OPPOSITE = "cannot be seen on data.background and are laid on the opposite color"

DULL = 16
"""Levels of 256 below which all values of a set lie close together."""


@dataclass
class Gathered:
    """What was decoded so far, by row.

    Attributes:
        digests: of the files, uint8 ``[N, 16]``.
        done: whether a row has its picture, bool ``[N]``.
        problems: why a row has none.
        range: the least and the largest value of all deep pictures.
        deep: rows whose pictures wait for the range.
        sizes: how many pictures have a size (height, width), and the first such row.
        low, high: the least and the largest value.
        flat: rows of pictures of one value throughout.
        odd: rows of pictures that are :data:`~ramify.data.decode.WIDE` or have
            :data:`~ramify.data.decode.VANISHED`.
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
    """Puts pictures into rows of one array, uint8 ``[N, C, H, W]``: C is 1 while all are gray, else 3.

    Args:
        count: N.
        memory: bytes that may be in memory; a larger array goes into a file.
        new_file: makes that file.
        stack: holds the file until the whole set is kept.
    """

    def __init__(self, count: int, memory: float, new_file: NewFile, stack: ExitStack) -> None:
        self.found = Gathered(np.zeros((count, DIGEST_BYTES), np.uint8), np.zeros(count, np.bool_))
        self._memory, self._new_file, self._stack = memory, new_file, stack
        self._shape: _Shape = (count, 0, 0, 0)
        self._array: npt.NDArray[np.uint8] | None = None
        self._path: Path | None = None
        self._file: BinaryIO | None = None

    def put(self, rows: Sequence[int], decoded: Decoded | DataError) -> None:
        """Take what a file gave for ``rows``: one, or several where the file has several names."""
        found = self.found
        if isinstance(decoded, DataError):
            found.problems.update((row, decoded.problems[0]) for row in rows)
            return
        for row in rows:
            found.digests[row] = np.frombuffer(decoded.digest, np.uint8)
        if decoded.range is not None and decoded.pixels is None:
            low, high = decoded.range
            known = found.range or decoded.range
            found.range = min(low, known[0]), max(high, known[1])
            found.deep.extend(rows)
            return
        assert decoded.pixels is not None
        if decoded.range is not None and found.range is None:
            found.range = decoded.range
        if decoded.odd:
            found.odd.setdefault(decoded.odd, []).extend(rows)
        self._measure(rows, decoded.pixels)
        for row in rows:
            self._write(row, decoded.pixels)

    def _measure(self, rows: Sequence[int], pixels: Pixels) -> None:
        found = self.found
        low, high = int(pixels.min()), int(pixels.max())
        found.low, found.high = min(found.low, low), max(found.high, high)
        if low == high:
            found.flat.extend(rows)
        size = (pixels.shape[0], pixels.shape[1])
        count, first = found.sizes.get(size, (0, rows[0]))
        found.sizes[size] = (count + len(rows), min(first, *rows))

    def _write(self, row: int, pixels: Pixels) -> None:
        channels = 1 if pixels.ndim == 2 else 3
        if self._shape[1] == 0:
            self._open((self._shape[0], channels, *pixels.shape[:2]))
        if pixels.shape[:2] != self._shape[2:]:
            return  # all sizes are told in the end
        if channels > self._shape[1]:
            self._color()
        whole = channels_first(pixels)
        if self._array is not None:
            self._array[row] = whole
        else:
            assert self._file is not None
            self._file.seek(row * self._stride)
            self._file.write(np.ascontiguousarray(np.broadcast_to(whole, self._shape[1:])).tobytes())
        self.found.done[row] = True

    @property
    def _stride(self) -> int:
        return self._shape[1] * self._shape[2] * self._shape[3]

    def _open(self, shape: _Shape) -> None:
        self._shape = shape
        size = shape[0] * self._stride
        if size <= self._memory:
            self._array = np.zeros(shape, np.uint8)
        else:
            self._path = self._stack.enter_context(self._new_file(size))
            self._file = self._stack.enter_context(self._path.open("r+b"))
            self._file.truncate(size)

    def _color(self) -> None:
        """The first picture in color has come: those before it get three channels."""
        count, _, height, width = self._shape
        if self._array is not None:
            gray, self._array = self._array, None
            self._open((count, 3, height, width))
            self._copy(lambda row: gray[row])
            return
        assert self._file is not None
        assert self._path is not None
        old, old_path, stride = self._file, self._path, self._stride
        self._file = None
        self._open((count, 3, height, width))

        def read(row: int) -> npt.NDArray[np.uint8]:
            old.seek(row * stride)
            return np.frombuffer(old.read(stride), np.uint8).reshape(1, height, width)

        self._copy(read)
        old_path.unlink()

    def _copy(self, read: Callable[[int], npt.NDArray[np.uint8]]) -> None:
        for row in np.flatnonzero(self.found.done).tolist():
            self._write(row, read(row)[0])

    def finish(self) -> torch.Tensor | Store:
        """The array as it is now; rows without a picture are zeros."""
        if self._array is not None:
            return torch.from_numpy(self._array)
        assert self._file is not None
        assert self._path is not None
        self._file.flush()
        return Store(self._path, self._shape)


def check_sizes(found: Gathered, name_of: Callable[[int], str], where: str) -> None:
    """Refuse pictures of several sizes.

    Raises:
        DataError: there are some; each size is named with its number of pictures and the first one.
    """
    if len(found.sizes) < 2:
        return
    ordered = sorted(found.sizes.items(), key=lambda item: -item[1][0])
    some = [f"{width}x{height} ({count:,}: {name_of(row)})" for (height, width), (count, row) in ordered[:4]]
    more = f" and {len(ordered) - 4:,} more" if len(ordered) > 4 else ""
    raise DataError(
        f"{where}: got pictures of {len(ordered):,} sizes, width x height: {', '.join(some)}{more}; accepted: pictures "
        "of one size, or data.size=<pixels> to scale them to one"
    )


def oddities(found: Gathered, name_of: Callable[[int], str], where: str) -> list[str]:
    """Sentences about values that are most likely not what was meant."""
    notes = []
    count = int(found.done.sum())
    if count and found.high - found.low < DULL:
        notes.append(
            f"{where}: all values lie between {found.low} and {found.high} of 0 to 255: nearly constant pictures"
        )
    elif found.flat and count:
        notes.append(
            f"{where}: {len(found.flat):,} of {count:,} pictures have one value throughout, such as "
            f"{name_of(min(found.flat))}"
        )
    for odd, said in ((WIDE, "have colors of 16 bits, of which the upper 8 are read"), (VANISHED, ON_OPPOSITE)):
        if rows := found.odd.get(odd):
            notes.append(f"{where}: {len(rows):,} pictures {said}, such as {name_of(min(rows))}")
    if found.range is not None:
        notes.append(f"{where}: pictures of 16 or 32 bits: {found.range[0]:g} became 0, {found.range[1]:g} became 255")
    return notes
