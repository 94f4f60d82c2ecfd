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
from ramify.data.listing import BROKEN, Listing, Skipped, first_problems, list_folder, reads_avif, reads_heic
from ramify.data.pictures import Files, Part, PictureSet
from ramify.data.store import Rows, Store
from ramify.data.table import arrange_table, read_table
from ramify.errors import DataError


def load_path(
    path: Path, size: PictureSize | None = None, config: DataConfig | None = None, progress: Progress | None = None
) -> PictureSet:
    """The pictures of an image folder, or of a .tar, .tar.gz, .tgz, .tar.xz or .zip of one, through the cache.

    A folder holds ``train/<class>/*`` and perhaps ``test/<class>/*`` and ``valid/<class>/*``, or just ``<class>/*``
    (:func:`ramify.data.layout.arrange`), or a table of labels (``data.labels``). Classes, and the pictures of each, are
    in the order of their names. Every picture is scaled and center-cropped to ``size`` (H, W); None keeps their own.

    Raises:
        DataError: nothing is there, the archive or a picture is damaged, a picture's size differs or is below
            8 pixels, the classes are not as they must be, or a limit is passed.
    """
    config = config or DataConfig()
    settings = (size, config.background, config.range, config.broken, config.labels, config.group, config.memory_gb)
    identity = digest(str(path.resolve()), *settings, config.max_pixels)
    try:
        table = _table(path, config)
        stamp = path.stat()
        if path.is_dir():
            listing = list_folder(path, config)
            stamps = [(name, *listing.entries[name].stamp) for name in sorted(listing.entries)]
            state = digest(stamps, sorted(listing.folders), [(file.name, file.reason) for file in listing.skipped])
        elif stat.S_ISREG(stamp.st_mode):
            listing = None
            optional = reads_heic(), reads_avif()
            state = digest(stamp.st_size, stamp.st_mtime_ns, stamp.st_ino, stamp.st_ctime_ns, *optional)
        else:
            raise DataError(f"{path}: is no folder and no regular file; accepted: a folder, .tar or .zip of pictures")
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"{error.filename or path}: cannot be read ({reason}); accepted: a folder, .tar or .zip of pictures"
        ) from error
    if table is not None:
        state = digest(state, content_digest(table).hex())

    def build() -> PictureSet:
        files = listing or list_archive(path, config)
        reading = Reading(size, config.background_color, config.range, config.max_pixels)
        return _Source(path, files, config, reading, identity, progress).load(table)

    return cached(identity, state, build)


def _table(path: Path, config: DataConfig) -> bytes | None:
    """The content of ``data.labels``: in the source, or else in the current folder."""
    if config.labels is None:
        return None
    if path.is_dir():
        if (path / config.labels).is_file():
            return (path / config.labels).read_bytes()
    elif path.is_file():
        for _, content in members(path, lambda name: f"/{name}".endswith(f"/{config.labels}"), config):
            return content
    if Path(config.labels).is_file():
        return Path(config.labels).read_bytes()
    raise DataError(
        f"data.labels: got {config.labels!r}, which is neither in {path} nor a file here; accepted: a CSV file"
    )


@dataclass
class _Source:
    """A folder or archive whose files are listed."""

    path: Path
    listing: Listing
    config: DataConfig
    reading: Reading
    identity: str
    progress: Progress | None

    def load(self, table: bytes | None) -> PictureSet:
        """Decode the pictures; all that are broken are named."""
        where = str(self.path)
        layout, groups = self._layout(table)
        parts = (layout.train, layout.valid, layout.test)
        names = [name for part in parts for name, _ in part]
        with ExitStack() as stack:
            gatherer = Gatherer(len(names), self.config.memory_gb * 1e9, partial(pixel_file, self.identity), stack)
            gathered = gatherer.gathered
            self._decode(names, range(len(names)), self.reading, gatherer)
            if gathered.deep:
                self._decode(names, list(gathered.deep), replace(self.reading, range=gathered.range), gatherer)
            broken = self._broken(names, gathered)
            if not gathered.done.any() and not gathered.sizes:
                raise DataError(f"{where}: got no picture that can be read, of {len(names):,}; accepted: at least one")
            check_sizes(gathered, names, where)
            pixels = gatherer.finish()
        kept, table_name = torch.from_numpy(gathered.done), self.config.labels
        labels = torch.tensor([label for part in parts for _, label in part], dtype=torch.int64)[kept]
        skipped = (
            file
            for file in self.listing.skipped
            if table_name is None or not f"/{file.name}".endswith(f"/{table_name}")
        )
        files = Files(
            names=tuple(name for row, name in enumerate(names) if gathered.done[row]),
            digests=torch.from_numpy(gathered.digests)[kept],
            labels=labels,
            groups=self._groups(names, kept.tolist(), groups),
            skipped=(*skipped, *layout.skipped, *broken),
            notes=(*self.listing.notes, *layout.notes, *oddities(gathered, names, where)),
            range=gathered.range,
            by_content=not layout.test,
        )
        train, valid, test = _parts([len(part) for part in parts], labels, pixels, kept)
        empty = set(range(len(layout.classes))) - set(train.labels.tolist())
        if empty:
            raise DataError(f"{where}: class {layout.classes[min(empty)]} has no training pictures that can be read")
        return PictureSet(train, test, layout.classes, valid, files)

    def _layout(self, table: bytes | None) -> tuple[Layout, dict[str, str]]:
        entries, where = self.listing.entries, str(self.path)
        if table is None:
            return arrange(entries, self.listing.folders, where), {}
        name = str(self.config.labels)
        return arrange_table(read_table(table, name, self.config.group), list(entries), name, where)

    def _decode(self, names: Sequence[str], rows: Sequence[int], reading: Reading, gatherer: Gatherer) -> None:
        """Decode the pictures of some rows."""
        entries = self.listing.entries
        rows_at: dict[str | int, list[int]] = {}
        for row in rows:
            rows_at.setdefault(entries[names[row]].place, []).append(row)
        done = 0
        with decoding(self._contents(names, rows_at), reading) as decoded:
            for first, picture in decoded:
                same = rows_at[entries[names[first]].place]
                gatherer.put(same, picture)
                if self.progress is not None and (done % 250 == 0 or done + len(same) == len(rows)):
                    self.progress(self.path.name, done + len(same), len(rows), "pictures")
                done += len(same)

    def _contents(self, names: Sequence[str], rows_at: Mapping[str | int, Sequence[int]]) -> Iterator[File]:
        if self.path.is_dir():
            for place, rows in rows_at.items():
                yield rows[0], str(self.path / names[rows[0]]), self.path / str(place)
            return
        numbers = {place for place in rows_at if isinstance(place, int)}
        for number, content in read_archive(self.path, numbers):
            row = rows_at[number][0]
            yield row, f"{self.path}: {names[row]}", content

    def _broken(self, names: Sequence[str], gathered: Gathered) -> list[Skipped]:
        """The pictures that cannot be read; an error with ``data.broken=stop``."""
        problems = sorted(gathered.problems.items())
        if problems and self.config.broken == "stop":
            raise first_problems([f"{sentence}, or data.broken=skip" for _, sentence in problems], _NAMED)
        return [Skipped(names[row], f"{BROKEN}: {_reason(sentence)}") for row, sentence in problems]

    def _groups(self, names: Sequence[str], kept: Sequence[bool], listed: Mapping[str, str]) -> tuple[str, ...] | None:
        """The group of each picture, from the table, or from its name by ``data.group``."""
        group = self.config.group
        chosen = [name for name, keep in zip(names, kept, strict=True) if keep]
        if group is not None and "(" in group:
            matches = {name: re.search(group, name) for name in chosen}
            without = [name for name, match in matches.items() if match is None or match[1] is None]
            if without:
                raise DataError(
                    f"data.group: got {group!r}, which finds no group in {len(without):,} pictures, such as "
                    f"{without[0]}; accepted: an expression that finds one in each"
                )
            return tuple(str(match[1]) for match in matches.values() if match is not None)
        if group is not None and not listed:
            raise DataError(
                f"data.group: got {group!r}; accepted: a column of data.labels, or a regular expression with one "
                "(group) that finds it in the names of the pictures"
            )
        # A picture without a group is a group of its own.
        return tuple(listed.get(name, f"/{name}") for name in chosen) if listed else None


_NAMED = 1000
"""Broken pictures that an error names."""


def _reason(sentence: str) -> str:
    """The reason in a sentence ``name: reason; accepted: ...``."""
    return sentence.partition("; accepted")[0].rpartition(": ")[2]


def _parts(
    sizes: Sequence[int], labels: torch.Tensor, pixels: torch.Tensor | Store, kept: torch.Tensor
) -> Iterator[Part]:
    """The parts, of ``sizes`` pictures each, without those that are not ``kept``; ``labels`` are of the others."""
    images: torch.Tensor | Rows
    if isinstance(pixels, Store):
        images = Rows(pixels, kept.nonzero()[:, 0])
    else:
        images = pixels if bool(kept.all()) else pixels[kept]
    whole, start = Part(images, labels, torch.arange(len(labels))), 0
    for kept_here in kept.split(list(sizes)):
        stop = start + int(kept_here.sum())
        yield whole[start:stop]
        start = stop
