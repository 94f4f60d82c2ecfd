"""The files in an archive, read in memory, one after the other.

Nothing is ever written to disk, so no name in an archive can lead anywhere. An archive is read twice: once for what is
in it (:func:`list_archive`), before anything large is in memory, and once for the pictures that are used.
"""

import bz2
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from ramify.data.listing import LINK, NOT_A_PICTURE, OUTWARD, REPLACED, SNIFFED, Entry, Listing, SourceLimits, too_large
from ramify.data.names import is_hidden, shown
from ramify.errors import DataError

Stream = IO[bytes] | gzip.GzipFile | lzma.LZMAFile | bz2.BZ2File

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    MemoryError,  # a length that nothing has
    NotImplementedError,  # a compression that Python lacks
    RuntimeError,  # a password
    OSError,  # gzip and bz2 say so for a wrong checksum
)


def list_archive(path: Path, limits: SourceLimits, wanted: Callable[[str], bool] | None = None) -> Listing:
    """Everything in a .tar (plain, .gz, .xz, .bz2) or .zip; what kind of archive it is shows in its content.

    Of several members of one name the last counts, as when they are unpacked; a hard link is the file that it stands
    for.

    Args:
        path: the archive.
        limits: what it may hold.
        wanted: by its name, whether a file is listed; without it pictures are.

    Raises:
        DataError: the archive cannot be read, is damaged, has been cut short, or holds more than ``limits`` allow.
    """
    _check_directory(path, limits)
    found = Listing(str(path), limits, wanted)
    with _opened(path) as archive:
        if isinstance(archive, zipfile.ZipFile):
            _list_zip(archive, found)
        else:
            _list_tar(archive, found)
    return found


def read_archive(path: Path, wanted: Container[int]) -> Iterator[tuple[int, bytes]]:
    """The number and content of each member that is ``wanted``, as they come.

    Raises:
        DataError: as :func:`list_archive`.
    """
    with _opened(path) as archive:
        if isinstance(archive, zipfile.ZipFile):
            for number, member in enumerate(archive.infolist()):
                if number in wanted:
                    yield number, archive.read(member)
            return
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            for number, info in enumerate(_tar_members(tar)):
                if number in wanted:
                    content = tar.extractfile(info)
                    assert content is not None, "a regular member has content"
                    yield number, content.read()


def members(
    path: Path, wanted: Callable[[str], bool], limits: SourceLimits | None = None
) -> Iterator[tuple[str, bytes]]:
    """The name and content of each regular file whose name is ``wanted``, as they come: for the known data sets.

    Hidden files are passed over.

    Raises:
        DataError: as :func:`list_archive`.
    """
    names = {
        entry.place: entry.name
        for entry in list_archive(path, limits or SourceLimits(), wanted).entries.values()
        if isinstance(entry.place, int)
    }
    for number, content in read_archive(path, names):
        yield names[number], content


def _check_directory(path: Path, limits: SourceLimits) -> None:
    """Refuse a zip with too many members before :mod:`zipfile` makes an object of each."""
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                return
            size = file.seek(0, 2)
            file.seek(max(0, size - 65_557))  # the longest that its last record can be
            end = file.read()
    except OSError:
        return  # told when it is opened
    at = end.rfind(b"PK\x05\x06")
    if at < 0 or len(end) < at + 22:
        return
    length = struct.unpack("<I", end[at + 12 : at + 16])[0]
    larger = end.rfind(b"PK\x06\x06")
    if length == 0xFFFFFFFF and larger >= 0 and len(end) >= larger + 48:
        length = struct.unpack("<Q", end[larger + 40 : larger + 48])[0]
    most = min(length, size) // 46  # a member takes 46 bytes of it, and its name
    if most > limits.max_entries:
        raise DataError(f"{path}: got a list of up to {most:,} files; accepted: up to data.max_entries")


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile | Stream]:
    """A zip archive, or the plain bytes of a tar; whatever goes wrong inside the block becomes a sentence."""
    try:
        with path.open("rb") as file:
            start = file.read(6)
            file.seek(0)
            if start.startswith(b"PK"):
                with zipfile.ZipFile(file) as archive:
                    yield archive
            elif start.startswith(b"\x1f\x8b"):
                with gzip.open(file) as plain:
                    yield plain
            elif start.startswith(b"\xfd7zXZ\x00"):
                with lzma.open(file) as plain:
                    yield plain
            elif start.startswith(b"BZh"):
                with bz2.open(file) as plain:
                    yield plain
            else:
                yield file
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path}: cannot be read as an archive ({reason}); accepted: a whole .tar, .tar.gz, .tgz, .tar.xz or .zip, "
            "without a password"
        ) from error


class _Guarded:
    """A file whose reader cannot be made to ask for more bytes at once than a header may have.

    A tar says in a header how long the next name is; :mod:`tarfile` believes it.
    """

    def __init__(self, file: Stream, most: int) -> None:
        self._file, self._most = file, most

    def read(self, size: int, /) -> bytes:
        if not 0 <= size <= self._most:
            raise ValueError(f"a header promises {size:,} bytes, more than data.max_file_mb")
        return self._file.read(size)

    def seek(self, offset: int, /) -> int:
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        return  # whoever opened the file closes it


def _tar_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    # Opened plain, and sought only forward, so that this module's decompressors see every byte once and tell
    # a cut file; tarfile's own stream mode takes it for the end.
    while (member := tar.next()) is not None:
        yield member
        cast(list[tarfile.TarInfo], vars(tar)["members"]).clear()  # which would hold them all


def _list_tar(file: Stream, found: Listing) -> None:
    limits = found.limits
    guarded = _Guarded(file, int(limits.max_file_mb * 1e6))
    total = 0
    numbers: dict[str, int] = {}  # of the last regular member of each name
    with tarfile.open(fileobj=guarded, mode="r:") as tar:  # type: ignore[call-overload]  # it reads, seeks, tells
        for number, member in enumerate(_tar_members(tar)):
            found.count(member.name)
            if member.size < 0:
                raise ValueError(f"a header promises {member.size} bytes")
            total += member.size
            name = _clean(member.name)
            if name is None:
                if not member.isdir():
                    found.skip(shown(member.name), OUTWARD)
            elif member.isdir():
                _add_folder(found, name)
            elif any(map(is_hidden, name.split("/"))):
                found.skip_hidden(shown(name))
            elif member.islnk():
                target = _clean(member.linkname)
                stands_for = None if target is None else numbers.get(target)
                if stands_for is None:
                    found.skip(shown(name), LINK)
                else:
                    numbers[name] = stands_for
                    source = found.entries.get(shown(target or ""))
                    if source is not None and source.place == stands_for:
                        _replace(found, Entry(shown(name), stands_for))
                    else:
                        found.skip(shown(name), NOT_A_PICTURE)
            elif not member.isreg():
                found.skip(shown(name), LINK if member.issym() else NOT_A_PICTURE)
            else:
                numbers[name] = number
                _check_size(found, name, member.size, total)
                found.offer(shown(name), number, lambda member=member: _tar_start(tar, member))  # type: ignore[misc]
        # tarfile also stops, silently, at a header it cannot read: a whole archive ends in two blocks of zeros.
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise EOFError("it ends, or is damaged, in the middle")
    while chunk := file.read(1 << 20):  # to the end, where the decompressor compares its checksum
        total += len(chunk)
        _check_total(found, total)


def _tar_start(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(member)
    assert content is not None, "a regular member has content"
    return content.read(SNIFFED)


def _list_zip(archive: zipfile.ZipFile, found: Listing) -> None:
    total, legacy = 0, 0
    for number, member in enumerate(archive.infolist()):
        raw, understood = _zip_name(member)
        legacy += not understood
        found.count(raw)
        name = _clean(raw)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if name is None:
            if not raw.endswith("/"):
                found.skip(shown(raw), OUTWARD)
        elif raw.endswith("/"):
            _add_folder(found, name)
        elif any(map(is_hidden, name.split("/"))):
            found.skip_hidden(shown(name))
        elif kind not in (0, stat.S_IFREG):
            found.skip(shown(name), LINK if kind == stat.S_IFLNK else NOT_A_PICTURE)
        else:
            total += member.file_size
            _check_size(found, name, member.file_size, total)
            found.offer(shown(name), number, lambda member=member: _zip_start(archive, member))  # type: ignore[misc]
    if legacy:
        found.notes.append(
            f"{found.where}: the names of {legacy:,} files are not UTF-8, and it does not say what else; they are read "
            "as code page 437"
        )


def _zip_name(member: zipfile.ZipInfo) -> tuple[str, bool]:
    """A member's name with ``/``, and whether its encoding is known: a zip of old says none."""
    name, known = member.filename, True
    if not member.flag_bits & 0x800:
        raw = name.encode("cp437", "surrogateescape")
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError:
            known = False
    return name.replace("\\", "/"), known


def _zip_start(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with archive.open(member) as file:
        return file.read(SNIFFED)


def _clean(name: str) -> str | None:
    """A member's name without empty and "." parts; None where nothing is left, or where it leads out of the archive."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/".join(parts) if parts and ".." not in parts else None


def _add_folder(found: Listing, name: str) -> None:
    if not any(map(is_hidden, name.split("/"))):
        found.folders.add(shown(name))


def _replace(found: Listing, entry: Entry) -> None:
    if entry.name in found.entries:
        found.skip(entry.name, REPLACED)
    found.entries[entry.name] = entry


def _check_size(found: Listing, name: str, size: int, total: int) -> None:
    if size > found.limits.max_file_mb * 1e6:
        raise too_large(f"{found.where}: {shown(name)}", size, found.limits)
    _check_total(found, total)


def _check_total(found: Listing, total: int) -> None:
    if total > found.limits.max_archive_gb * 1e9:
        raise DataError(
            f"{found.where}: got {total / 1e9:,.1f} GB, unpacked, and perhaps more; accepted: up to "
            f"data.max_archive_gb = {found.limits.max_archive_gb:g} GB"
        )
