"""The files of a folder or archive, before anything is decoded: the pictures, and what is skipped and why."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from ramify.data.names import is_hidden, is_system, shown
from ramify.errors import DataError

NOT_A_PICTURE = "not a picture"
HIDDEN = "hidden"
THUMBNAIL = "thumbnails and files of the system"
LINK = "a link that leads nowhere, in a circle or out of the archive"
OUTWARD = "its name leads out of the archive"
REPLACED = "a later member of the archive has its name"
OUTSIDE = "outside any class"
OTHER_PART = "in a folder that is neither part nor class"
DEEPER = "deeper than the pictures of its class"
UNLISTED = "not in the table of labels"
BROKEN = "broken"
HEIC = 'HEIC, which needs: pip install "ramify[heic]"'
AVIF = "AVIF, which needs a Pillow that reads it"

SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp"),
        *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
    }
)
HEIC_SUFFIXES, AVIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"}), frozenset({".avif", ".avifs"})

SNIFFED = 32
"""Bytes of a file by which its kind is known."""


class ListingLimits(Protocol):
    """The keys ``max_...`` of the section ``data``."""

    @property
    def max_entries(self) -> float: ...

    @property
    def max_depth(self) -> float: ...

    @property
    def max_file_mb(self) -> float: ...

    @property
    def max_archive_gb(self) -> float: ...


@dataclass(frozen=True)
class Skipped:
    """A skipped file: its name in the source, and one of the reasons above."""

    name: str
    reason: str


@dataclass(frozen=True)
class Entry:
    """A picture file of a source; its name is unique, printable, and relative to the source, with ``/``.

    ``place`` is the path below the folder, or the number of the archive's member; ``stamp`` has size, times of change
    and inode, and is empty in an archive.
    """

    name: str
    place: str | int
    stamp: tuple[int, ...] = ()


@dataclass
class Listing:
    """The files of a folder or archive, within ``limits``.

    ``selects`` says whether a file of a name is listed; without it, pictures are. ``folders`` are those that are not
    hidden; ``notes`` are sentences for the user.
    """

    where: str
    limits: ListingLimits
    selects: Callable[[str], bool] | None = None
    entries: dict[str, Entry] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seen: int = 0

    def count(self, name: str) -> None:
        """Count a file or folder.

        Raises:
            DataError: it lies too deep, or there are too many.
        """
        self.seen += 1
        if self.seen > self.limits.max_entries:
            raise DataError(
                f"{self.where}: got more than {self.limits.max_entries:,} files and folders; accepted: up to "
                "data.max_entries"
            )
        depth = name.count("/")
        if depth > self.limits.max_depth:
            raise DataError(
                f"{self.where}: got a file {depth:,} folders deep ({shown(name[:40])}...); accepted: up to "
                f"data.max_depth = {self.limits.max_depth}"
            )

    def skip(self, name: str, reason: str) -> None:
        self.skipped.append(Skipped(name, reason))

    def skip_hidden(self, name: str) -> None:
        """Skip a hidden file; inside hidden folders only those named as pictures are mentioned."""
        parts = name.split("/")
        if not any(map(is_hidden, parts[:-1])) or is_picture(name) or known_by_name(name) is not None:
            self.skip(name, THUMBNAIL if any(map(is_system, parts)) else HIDDEN)

    def offer(self, name: str, place: str | int, start: Callable[[], bytes], stamp: tuple[int, ...] = ()) -> None:
        """Add a regular file if it is a picture, else skip it; ``start`` reads its first :data:`SNIFFED` bytes."""
        reason = known_by_name(name)
        if self.selects is not None:
            reason = "" if self.selects(name) else NOT_A_PICTURE
        elif reason is None and not is_picture(name):
            reason = known_by_content(start())
        if reason:
            self.skip(name, reason)
        else:
            self.add(Entry(name, place, stamp))

    def add(self, entry: Entry) -> None:
        """Add a picture; it replaces an earlier one of its name."""
        if entry.name in self.entries:
            self.skip(entry.name, REPLACED)
        self.entries[entry.name] = entry


def is_picture(name: str) -> bool:
    """Whether a file's name has the ending of a picture.

    Example:
        >>> is_picture("cat/1.JPG"), is_picture("cat/1.jfif"), is_picture("cat/notes.txt")
        (True, True, False)
    """
    return _suffix(name) in SUFFIXES


def known_by_name(name: str) -> str | None:
    """Why a file named as HEIC or AVIF is skipped; ``""`` where it can be read, None for other names."""
    suffix = _suffix(name)
    if suffix in HEIC_SUFFIXES:
        return "" if reads_heic() else HEIC
    if suffix in AVIF_SUFFIXES:
        return "" if reads_avif() else AVIF
    return None


def known_by_content(start: bytes) -> str:
    """Why a file that starts so is skipped; ``""`` if it is a picture that can be read.

    Example:
        >>> known_by_content(bytes([0xFF, 0xD8, 0xFF, 0xE0])), known_by_content(b"Dear reader")
        ('', 'not a picture')
    """
    if start[4:8] == b"ftyp":
        if start[8:12] in (b"avif", b"avis"):
            return "" if reads_avif() else AVIF
        if start[8:12] in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"):
            return "" if reads_heic() else HEIC
    known = (
        start.startswith(
            (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
        )
        or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")
        or (start[:2] == b"BM" and start[6:10] == bytes(4) and start[15:18] == bytes(3))
        or re.match(rb"P[1-6]\s+[0-9#]", start)
    )
    return "" if known else NOT_A_PICTURE


def reads_heic() -> bool:
    """Whether the optional package for HEIC is installed."""
    return find_spec("pillow_heif") is not None


def reads_avif() -> bool:
    """Whether Pillow was built with AVIF."""
    from PIL import features

    return bool(features.check("avif"))


def list_folder(root: Path, limits: ListingLimits) -> Listing:
    """Everything below ``root``; links are followed, and a folder inside itself is not entered again.

    Raises:
        DataError: more than ``limits`` allow.
        OSError: a folder or file cannot be read.
    """
    listing = Listing(str(root), limits)
    todo = [("", False, frozenset({os.path.realpath(root)}))]
    while todo:
        folder, hidden, above = todo.pop()
        with os.scandir(root / folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                raw = f"{folder}/{entry.name}" if folder else entry.name
                name = shown(raw)
                listing.count(raw)
                below = hidden or is_hidden(entry.name)
                if _is(entry.is_dir):
                    real = os.path.realpath(entry.path)
                    if real in above:
                        listing.skip(f"{name}/", LINK)
                        continue
                    if not below:
                        listing.folders.add(name)
                    todo.append((raw, below, above | {real}))
                elif below:
                    listing.skip_hidden(name)
                elif _is(entry.is_file):
                    stat = entry.stat()
                    stamp = (stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_ctime_ns)
                    if stat.st_size > limits.max_file_mb * 1e6 and is_picture(name):
                        raise too_large(f"{root / folder / entry.name}", stat.st_size, limits)
                    listing.offer(name, raw, partial(_start, Path(entry.path)), stamp)
                else:
                    listing.skip(name, LINK if entry.is_symlink() else NOT_A_PICTURE)
    return listing


def _is(kind: Callable[[], bool]) -> bool:
    """Whether an entry is of a ``kind``; a link to itself is of none."""
    try:
        return kind()
    except OSError:
        return False


def too_large(name: str, size: int, limits: ListingLimits) -> DataError:
    """The error for a file that is, or says that it is, too large."""
    return DataError(
        f"{name}: got a file of {size:,} bytes; accepted: up to data.max_file_mb = {limits.max_file_mb:g} MB"
    )


def first_problems(problems: Sequence[str], most: int) -> DataError:
    """An error with up to ``most`` of ``problems``, and the number of the others."""
    more = [f"and {len(problems) - most:,} more like these"] if len(problems) > most else []
    return DataError(*problems[:most], *more)


def counts(skipped: Iterable[Skipped]) -> dict[str, int]:
    """How many files are skipped for each reason, the most frequent first; for broken ones it is "broken"."""
    reasons = (BROKEN if file.reason.startswith(BROKEN) else file.reason for file in skipped)
    return dict(Counter(reasons).most_common())


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(SNIFFED)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a name is no path, and this is called for each file
