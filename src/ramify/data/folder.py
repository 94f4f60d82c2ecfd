"""Labeled pictures from a folder, or from an archive of one."""

import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from ramify.config.rules import DataConfig
from ramify.data.archive import list_archive, members, read_archive
from ramify.data.cache import cached, digest, pixel_file
from ramify.data.decode import File, PictureSize, Reading, content_digest, decoding
from ramify.data.fetch import Progress
from ramify.data.gather import Gathered, Gatherer, check_sizes, oddities
from ramify.data.layout import Layout, arrange
from ramify.data.listing import BROKEN, Listing, Skipped, SourceLimits, list_folder
from ramify.data.pictures import Files, Part, PictureSet
from ramify.data.store import Rows, Store
from ramify.data.table import arrange_table, read_table
from ramify.errors import DataError


def load_path(
    path: Path, size: PictureSize | None = None, config: DataConfig | None = None, progress: Progress | None = None
) -> PictureSet:
    """The pictures of an image folder, or of a .tar, .tar.gz, .tgz, .tar.xz or .zip of one, through the cache.

    A folder holds ``train/<class>/*`` and perhaps ``test/<class>/*`` and ``valid/<class>/*``, or just ``<class>/*``;
    see :func:`ramify.data.layout.arrange`. With ``data.labels`` a table says what is what. Classes, and the pictures of
    each, are in the order of their names, so nothing depends on the file system.

    Args:
        path: the folder or archive.
        size: (H, W) that every picture is scaled and center-cropped to; None keeps their own.
        config: how they are read: of the section ``data`` all keys that are not said here.
        progress: sees how many pictures are decoded.

    Raises:
        DataError: nothing is there, the archive or a picture is damaged, a picture's size differs or is below
            8 pixels, the classes are not as they must be, or a limit is passed.
    """
    config = config or DataConfig()
    limits = limits_of(config)
    asked = (size, config.background, config.range, config.broken, config.labels, config.group, config.memory_gb)
    identity = digest(str(path.resolve()), *asked, config.max_pixels)
    try:
        table = _table(path, config)
        stamp = path.stat()
        if path.is_dir():
            listing = list_folder(path, limits)
            stamps = [(name, *listing.entries[name].stamp) for name in sorted(listing.entries)]
            state = digest(stamps, sorted(listing.folders), [(each.name, each.reason) for each in listing.skipped])
        elif stat.S_ISREG(stamp.st_mode):
            listing = None
            state = digest(stamp.st_size, stamp.st_mtime_ns, stamp.st_ino, stamp.st_ctime_ns)
        else:
            raise DataError(f"{path}: is no folder and no regular file; accepted: a folder, .tar or .zip of pictures")
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: cannot be read ({reason}); accepted: a folder, .tar or .zip of pictures") from error
    if table is not None:
        state = digest(state, content_digest(table).hex())

    def build() -> PictureSet:
        there = listing or list_archive(path, limits)
        source = _Source(path, there, config, replace(reading_of(config), size=size), identity, progress)
        return source.load(table)

    return cached(identity, state, build)


def limits_of(config: DataConfig) -> SourceLimits:
    """What a source may hold."""
    return SourceLimits(
        config.max_pixels, config.max_file_mb, config.max_archive_gb, config.max_depth, config.max_entries
    )


def reading_of(config: DataConfig) -> Reading:
    """How pictures are made into pixels, but for their size."""
    return Reading(None, config.background_color, config.range, config.max_pixels)


def _table(path: Path, config: DataConfig) -> bytes | None:
    """The content of ``data.labels``: in the source, or else where the path leads from here."""
    if config.labels is None:
        return None
    if path.is_dir():
        if (path / config.labels).is_file():
            return (path / config.labels).read_bytes()
    elif path.is_file():
        for _, content in members(path, lambda name: f"/{name}".endswith(f"/{config.labels}"), limits_of(config)):
            return content
    if Path(config.labels).is_file():
        return Path(config.labels).read_bytes()
    raise DataError(
        f"data.labels: got {config.labels!r}, which is neither in {path} nor a file here; accepted: a CSV file"
    )


@dataclass
class _Source:
    """A folder or archive whose files are known, on the way to pictures."""

    path: Path
    listing: Listing
    config: DataConfig
    reading: Reading
    identity: str
    progress: Progress | None

    def load(self, table: bytes | None) -> PictureSet:
        """Decode what is used, once; pictures that cannot be are all named."""
        where = str(self.path)
        layout, groups = self._layout(table)
        parts = (layout.train, layout.valid, layout.test)
        names = [name for part in parts for name, _ in part]
        with ExitStack() as stack:
            gatherer = Gatherer(len(names), self.config.memory_gb * 1e9, partial(pixel_file, self.identity), stack)
            found = gatherer.found
            self._decode(names, range(len(names)), self.reading, gatherer)
            if found.deep:
                self._decode(names, list(found.deep), replace(self.reading, range=found.range), gatherer)
            broken = self._broken(names, found)
            check_sizes(found, lambda row: names[row], where)
            pixels = gatherer.finish()
        kept = torch.from_numpy(found.done)
        files = Files(
            names=tuple(name for row, name in enumerate(names) if found.done[row]),
            digests=torch.from_numpy(found.digests)[kept],
            labels=torch.tensor([label for part in parts for _, label in part], dtype=torch.int64)[kept],
            groups=self._groups(names, kept.tolist(), groups),
            skipped=(*(each for each in self.listing.skipped if not self._is_table(each)), *layout.skipped, *broken),
            notes=(*self.listing.notes, *layout.notes, *oddities(found, lambda row: names[row], where)),
            range=found.range,
            by_content=not layout.test,
        )
        made = _parts(parts, pixels, kept)
        empty = set(range(len(layout.classes))) - set(made[0].labels.tolist())
        if empty:
            raise DataError(f"{where}: class {layout.classes[min(empty)]} has no training pictures that can be read")
        return PictureSet(made[0], made[2], layout.classes, made[1], files)

    def _is_table(self, skipped: Skipped) -> bool:
        """Whether a file that is no picture is the table of labels."""
        return self.config.labels is not None and f"/{skipped.name}".endswith(f"/{self.config.labels}")

    def _layout(self, table: bytes | None) -> tuple[Layout, dict[str, str]]:
        entries, where = self.listing.entries, str(self.path)
        if table is None:
            return arrange(entries, self.listing.folders, where), {}
        name = str(self.config.labels)
        return arrange_table(read_table(table, name, self.config.group), list(entries), name, where)

    def _decode(self, names: Sequence[str], rows: Sequence[int], reading: Reading, gatherer: Gatherer) -> None:
        """Decode the pictures of some rows into their places."""
        entries = self.listing.entries
        wanted: dict[str | int, list[int]] = {}
        for row in rows:
            wanted.setdefault(entries[names[row]].place, []).append(row)
        done = 0
        with decoding(self._contents(names, wanted), reading) as decoded:
            for first, each in decoded:
                same = wanted[entries[names[first]].place]
                gatherer.put(same, each)
                if self.progress is not None and (done % 250 == 0 or done + len(same) == len(rows)):
                    self.progress(self.path.name, done + len(same), len(rows), "pictures")
                done += len(same)

    def _contents(self, names: Sequence[str], wanted: Mapping[str | int, Sequence[int]]) -> Iterator[File]:
        if self.path.is_dir():
            for place, rows in wanted.items():
                yield rows[0], str(self.path / names[rows[0]]), self.path / str(place)
            return
        numbers = {place for place in wanted if isinstance(place, int)}
        for number, content in read_archive(self.path, numbers):
            row = wanted[number][0]
            yield row, f"{self.path}: {names[row]}", content

    def _broken(self, names: Sequence[str], found: Gathered) -> list[Skipped]:
        """The pictures that cannot be read, if they are to be passed over.

        Raises:
            DataError: they are not.
        """
        if found.problems and self.config.broken == "stop":
            # To go on without them is a way for each of them.
            sentences = [f"{found.problems[row]}, or data.broken=skip" for row in sorted(found.problems)]
            more = [f"and {len(sentences) - _NAMED:,} more like these"] if len(sentences) > _NAMED else []
            raise DataError(*sentences[:_NAMED], *more)
        return [Skipped(names[row], f"{BROKEN}: {_reason(found.problems[row])}") for row in sorted(found.problems)]

    def _groups(self, names: Sequence[str], kept: Sequence[bool], listed: Mapping[str, str]) -> tuple[str, ...] | None:
        """What no two parts may share, of each picture: from the table, or found in its name by ``data.group``."""
        wanted = self.config.group
        chosen = [name for name, keep in zip(names, kept, strict=True) if keep]
        if wanted is not None and "(" in wanted:
            found = [re.search(wanted, name) for name in chosen]
            without = [name for name, match in zip(chosen, found, strict=True) if match is None]
            if without:
                raise DataError(
                    f"data.group: got {wanted!r}, which finds no group in {len(without):,} pictures, such as "
                    f"{without[0]}; accepted: an expression that finds one in each"
                )
            return tuple(str(match[1]) for match in found if match is not None)
        if wanted is not None and not listed:
            raise DataError(
                f"data.group: got {wanted!r}; accepted: a column of data.labels, or a regular expression with one "
                "(group) that finds it in the names of the pictures"
            )
        # A picture without a group is a group of its own.
        return tuple(listed.get(name, f"/{name}") for name in chosen) if listed else None


_NAMED = 1000
"""Broken pictures that an error names."""


def _reason(sentence: str) -> str:
    """What is wrong, of a sentence ``name: what is wrong; accepted: ...``."""
    return sentence.partition("; accepted")[0].rpartition(": ")[2]


def _parts(parts: Sequence[Sequence[tuple[str, int]]], pixels: torch.Tensor | Store, kept: torch.Tensor) -> list[Part]:
    """The training, validation and test part of the pictures that are ``kept``."""
    labels = torch.tensor([label for part in parts for _, label in part], dtype=torch.int64)[kept]
    rows = kept.nonzero()[:, 0]
    whole: torch.Tensor | Rows
    whole = Rows(pixels, rows) if isinstance(pixels, Store) else pixels if bool(kept.all()) else pixels[kept]
    made, start, end = [], 0, 0
    for part in parts:
        end += len(part)
        stop = int(kept[:end].sum())
        some = slice(start, stop)
        inside = whole[some] if isinstance(whole, torch.Tensor) else whole.pick(some)
        made.append(Part(inside, labels[some], torch.arange(start, stop)))
        start = stop
    return made
