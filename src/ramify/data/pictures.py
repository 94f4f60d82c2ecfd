"""Sets of decoded pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from ramify.data.listing import Skipped
from ramify.data.store import Rows


class Part:
    """Labeled pictures of one size, in memory or in a file that is larger than memory.

    Args:
        images: uint8 ``[N, C, H, W]``, values 0 to 255; or rows of a :class:`~ramify.data.store.Store`.
        labels: int64 ``[N]``, each an index into the class names; on the device of the images.
        ids: int64 ``[N]``, indices of their files (:class:`Files`); None where they are not known.

    Attributes:
        pixels: ``images``.
    """

    __slots__ = ("ids", "labels", "pixels")

    def __init__(self, images: torch.Tensor | Rows, labels: torch.Tensor, ids: torch.Tensor | None = None) -> None:
        self.pixels, self.labels, self.ids = images, labels, ids

    @property
    def images(self) -> torch.Tensor:
        """All pictures in memory, uint8 ``[N, C, H, W]``; of a large set, use ``part[index].images``."""
        return self.pixels if isinstance(self.pixels, torch.Tensor) else self.pixels.read().to(self.device)

    @property
    def in_memory(self) -> bool:
        """Whether the pictures are in memory."""
        return isinstance(self.pixels, torch.Tensor)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one picture."""
        if isinstance(self.pixels, Rows):
            return self.pixels.shape
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    @property
    def device(self) -> torch.device:
        """Where its pictures are once they are read."""
        return self.labels.device

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: torch.Tensor | slice) -> "Part":
        """The pictures at ``index`` (int64 ``[M]``, or a slice), in that order."""
        pixels = self.pixels[index] if isinstance(self.pixels, torch.Tensor) else self.pixels.pick(index)
        ids = None if self.ids is None else self.ids[index if isinstance(index, slice) else index.to(self.ids.device)]
        return Part(pixels, self.labels[index], ids)

    def split(self, size: int) -> Iterator["Part"]:
        """The pictures in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def to(self, device: torch.device) -> "Part":
        """The same pictures on ``device``; those that are not in memory go there when they are read."""
        pixels = self.pixels.to(device) if isinstance(self.pixels, torch.Tensor) else self.pixels
        return Part(pixels, self.labels.to(device), self.ids)


@dataclass(frozen=True)
class Files:
    """The files of the pictures of a set.

    Attributes:
        names: in the source, with ``/``.
        digests: of the contents, uint8 ``[N, 16]``.
        labels: the classes, int64 ``[N]``.
        groups: parts do not share a group; None where there are none.
        skipped: files that are not used, and why.
        notes: sentences for the user.
        range: the values of 16- and 32-bit pictures that became 0 and 255; None without such pictures.
        by_content: whether pictures are held out by their contents, so that a set can grow.
    """

    names: tuple[str, ...] = ()
    digests: torch.Tensor = field(default_factory=lambda: torch.empty(0, 16, dtype=torch.uint8))
    labels: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    groups: tuple[str, ...] | None = None
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    range: tuple[float, float] | None = None
    by_content: bool = False


class PictureSet:
    """The pictures of one source: its parts, the names of the classes, and of the files.

    Attributes:
        train, valid, test: the parts; validation and test are empty where the source does not have them.
        classes: their names.
        files: of the ``ids`` of the parts.
    """

    __slots__ = ("classes", "files", "test", "train", "valid")

    def __init__(
        self, train: Part, test: Part, classes: tuple[str, ...], valid: Part | None = None, files: Files | None = None
    ) -> None:
        self.train, self.test, self.classes = train, test, classes
        self.valid = train[:0] if valid is None else valid
        self.files = files or Files()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one picture."""
        return self.train.shape

    def replaced(self, train: Part, test: Part, valid: Part | None = None) -> "PictureSet":
        """The same set with other parts."""
        return PictureSet(train, test, self.classes, self.valid if valid is None else valid, self.files)

    def pick(self, ids: torch.Tensor) -> Part:
        """The pictures of the files ``ids`` (int64 ``[M]``), in that order."""
        whole = joined([self.train, self.valid, self.test])
        assert whole.ids is not None, "a set whose files are known"
        places = torch.full((len(self.files.names),), -1)
        places[whole.ids] = torch.arange(len(whole))
        return whole[places[ids]]


def joined(parts: Sequence[Part]) -> Part:
    """Pictures of one set, one part after the other."""
    parts = [part for part in parts if len(part)] or parts[:1]
    if len(parts) == 1:
        return parts[0]
    ids = [part.ids for part in parts if part.ids is not None]
    rows = [part.pixels for part in parts if isinstance(part.pixels, Rows)]
    pixels: torch.Tensor | Rows
    if rows:
        pixels = Rows(rows[0].store, torch.cat([part_rows.rows for part_rows in rows]), rows[0].channels)
    else:
        pixels = torch.cat([part.images for part in parts])
    labels = torch.cat([part.labels for part in parts])
    return Part(pixels, labels, torch.cat(ids) if len(ids) == len(parts) else None)
