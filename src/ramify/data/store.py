"""Decoded pictures in a file that is mapped into memory, for sets larger than memory."""

import mmap
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ramify.data.recolor import recolor

RELEASE = 256 * 2**20
"""Bytes that are read before the pages behind them are given back to the system."""


class Store:
    """Pictures in a file, uint8 ``[N, C, H, W]``; those that were read do not stay in the memory of the process.

    The file may be renamed or removed while it is open.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int, int]) -> None:
        self.path, self.shape = path, shape
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            if length != int(np.prod(shape, dtype=np.int64)):
                raise ValueError(f"{path}: got {length} bytes for {shape}")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._pixels: npt.NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8).reshape(shape)
        self._read = 0

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        """The pictures at ``rows``, int64 ``[M]``, copied: uint8 ``[M, C, H, W]``."""
        pictures = torch.empty(len(rows), *self.shape[1:], dtype=torch.uint8)
        if len(rows):
            self._prefetch(rows)
            np.take(self._pixels, rows.numpy(), axis=0, out=pictures.numpy(), mode="clip")
        self._read += pictures.numel()
        if self._read >= RELEASE:
            self.release()
        return pictures

    def _prefetch(self, rows: torch.Tensor) -> None:
        """Let the system read all of the pictures at once, not page by page."""
        size = int(np.prod(self.shape[1:]))
        if size < mmap.PAGESIZE or not hasattr(mmap, "MADV_WILLNEED"):
            return
        for row in rows.tolist():
            start = row * size // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, start, (row + 1) * size - start)

    def release(self) -> None:
        """Give the pages that were read back to the system."""
        self._read = 0
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


class Rows:
    """Pictures of a :class:`Store`: ``rows``, int64 ``[N]`` on the CPU, with ``channels`` (see ``recolor``)."""

    def __init__(self, store: Store, rows: torch.Tensor, channels: int | None = None) -> None:
        self.store, self.rows = store, rows
        self.channels = store.shape[1] if channels is None else channels

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one picture."""
        return self.channels, self.store.shape[2], self.store.shape[3]

    def pick(self, index: torch.Tensor | slice) -> "Rows":
        """The pictures at ``index``, which are not read yet."""
        return Rows(self.store, self.rows[index if isinstance(index, slice) else index.cpu()], self.channels)

    def read(self) -> torch.Tensor:
        """All of them in memory, uint8 ``[N, C, H, W]``."""
        return recolor(self.store.read(self.rows), self.channels)
