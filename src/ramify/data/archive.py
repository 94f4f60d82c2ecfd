"""The files in an archive, read in memory, one after the other; nothing is unpacked to disk.

An archive is read twice: for the list of its files (:func:`list_archive`), and for the pictures that are used.
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
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import IO, cast

from ramify.config.rules import DataConfig
from ramify.data.listing import LINK, NOT_A_PICTURE, OUTWARD, SNIFFED, Entry, Listing, too_large
from ramify.data.names import is_hidden, shown
from ramify.errors import DataError

Stream = IO[bytes] | gzip.GzipFile | lzma.LZMAFile | bz2.BZ2File

_OPENERS: dict[bytes, Callable[[IO[bytes]], gzip.GzipFile | lzma.LZMAFile | bz2.BZ2File]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"BZh": bz2.BZ2File,
}
"""Decompressors by the first bytes of a file."""

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    MemoryError,  # an absurd length
    RuntimeError,  # a password, or a compression that Python lacks
    OSError,  # a wrong checksum in gzip and bz2
)


def list_archive(path: Path, limits: DataConfig, selects: Callable[[str], bool] | None = None) -> Listing:
    """Everything in a .tar (plain, .gz, .xz, .bz2) or .zip, whatever its name.

    Of several members of one name the last counts, as when they are unpacked; a hard link is its target.

    Args:
        path: the archive.
        limits: its keys ``max_...``.
        selects: whether a file of a name is listed; None for pictures.

    Raises:
        DataError: the archive cannot be read, is damaged, has been cut short, or holds more than ``limits`` allow.
    """
    _check_directory(path, limits)
    listing = Listing(str(path), limits, selects)
    with _opened(path) as archive:
        if isinstance(archive, zipfile.ZipFile):
            _list_zip(archive, listing)
        else:
            _list_tar(archive, listing)
    return listing


def read_archive(path: Path, numbers: Container[int]) -> Iterator[tuple[int, bytes]]:
    """The number and content of each member whose number is in ``numbers``, in the order of the archive.

    Raises:
        DataError: as :func:`list_archive`.
    """
    with _opened(path) as archive:
        if isinstance(archive, zipfile.ZipFile):
            for number, member in enumerate(archive.infolist()):
                if number in numbers:
                    yield number, archive.read(member)
            return
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            for number, info in enumerate(_tar_members(tar)):
                if number in numbers:
                    yield number, _tar_content(tar, info)


def members(
    path: Path, selects: Callable[[str], bool], limits: DataConfig | None = None
) -> Iterator[tuple[str, bytes]]:
    """The name and content of each regular file that is not hidden and whose name ``selects`` accepts.

    Raises:
        DataError: as :func:`list_archive`.
    """
    names = {
        entry.place: entry.name
        for entry in list_archive(path, limits or DataConfig(), selects).entries.values()
        if isinstance(entry.place, int)
    }
    for number, content in read_archive(path, names):
        yield names[number], content


def _check_directory(path: Path, limits: DataConfig) -> None:
    """Refuse a zip with too many members before :mod:`zipfile` makes an object of each."""
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                return
            size = file.seek(0, 2)
            file.seek(max(0, size - 65_557))  # the longest that its last record can be
            end = file.read()
    except OSError:
        return  # reported when it is opened
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
    """A zip archive, or the plain bytes of a tar; damage that shows inside the block becomes a :class:`DataError`."""
    try:
        with path.open("rb") as file:
            start = file.read(6)
            file.seek(0)
            if start.startswith(b"PK"):
                with zipfile.ZipFile(file) as archive:
                    yield archive
            else:
                opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
                with opener(file) if opener else nullcontext(file) as plain:
                    yield plain
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path}: cannot be read as an archive ({reason}); accepted: a whole .tar, .tar.gz, .tgz, .tar.xz or .zip, "
            "without a password"
        ) from error


class _Guarded:
    """A file that refuses to read more than ``most`` bytes at once, as :mod:`tarfile` trusts the sizes in headers."""

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


def _tar_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    # Opened plain and only sought forward, so that this module's decompressors see every byte once and notice a cut
    # file; tarfile's own stream mode takes it for the end.
    while (member := tar.next()) is not None:
        yield member
        cast(list[tarfile.TarInfo], vars(tar)["members"]).clear()  # it would hold them all


def _tar_content(tar: tarfile.TarFile, member: tarfile.TarInfo, size: int = -1) -> bytes:
    content = tar.extractfile(member)
    assert content is not None, "a regular member has content"
    return content.read(size)


def _list_tar(file: Stream, listing: Listing) -> None:
    guarded = _Guarded(file, int(listing.limits.max_file_mb * 1e6))
    total = 0
    numbers: dict[str, int] = {}  # of the last regular member of each name
    with tarfile.open(fileobj=guarded, mode="r:") as tar:  # type: ignore[call-overload]  # it reads, seeks, tells
        for number, member in enumerate(_tar_members(tar)):
            if member.size < 0:
                raise ValueError(f"a header promises {member.size} bytes")
            total += member.size
            name = _checked_name(listing, member.name, member.isdir())
            if name is None:
                continue
            if member.islnk():
                target = _clean(member.linkname) or ""
                target_number = numbers.get(target)
                if target_number is None:
                    listing.skip(shown(name), LINK)
                    continue
                numbers[name] = target_number
                entry = listing.entries.get(shown(target))
                if entry is not None and entry.place == target_number:
                    listing.add(Entry(shown(name), target_number))
                else:
                    listing.skip(shown(name), NOT_A_PICTURE)
            elif not member.isreg():
                listing.skip(shown(name), LINK if member.issym() else NOT_A_PICTURE)
            else:
                numbers[name] = number
                _check_size(listing, name, member.size, total)
                start = partial(_tar_content, tar, member, SNIFFED)
                listing.offer(shown(name), number, start)
        # tarfile also stops, silently, at a header it cannot read: a whole archive ends in two blocks of zeros.
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise EOFError("it ends, or is damaged, in the middle")
    while chunk := file.read(1 << 20):  # to the end, where the decompressor compares its checksum
        total += len(chunk)
        _check_total(listing, total)


def _list_zip(archive: zipfile.ZipFile, listing: Listing) -> None:
    total, legacy = 0, 0
    for number, member in enumerate(archive.infolist()):
        raw, encoding_known = _zip_name(member)
        legacy += not encoding_known
        name = _checked_name(listing, raw, raw.endswith("/"))
        kind = stat.S_IFMT(member.external_attr >> 16)
        if name is None:
            continue
        if kind not in (0, stat.S_IFREG):
            listing.skip(shown(name), LINK if kind == stat.S_IFLNK else NOT_A_PICTURE)
            continue
        total += member.file_size
        _check_size(listing, name, member.file_size, total)
        listing.offer(shown(name), number, partial(_zip_start, archive, member))
    if legacy:
        listing.notes.append(
            f"{listing.where}: the names of {legacy:,} files are not UTF-8, and it does not say what else; they are "
            "read as code page 437"
        )


def _checked_name(listing: Listing, raw: str, folder: bool) -> str | None:
    """Count a member; its name if it is a file that may be listed, else None."""
    listing.count(raw)
    name = _clean(raw)
    if name is None:
        if not folder:
            listing.skip(shown(raw), OUTWARD)
        return None
    hidden = any(map(is_hidden, name.split("/")))
    if folder and not hidden:
        listing.folders.add(shown(name))
    elif hidden and not folder:
        listing.skip_hidden(shown(name))
    return None if folder or hidden else name


def _zip_name(member: zipfile.ZipInfo) -> tuple[str, bool]:
    """A member's name with ``/``, and whether its encoding is known: old zip files do not say."""
    name, known = member.filename, True
    if not member.flag_bits & 0x800:
        try:
            name = name.encode("cp437", "surrogateescape").decode("utf-8")
        except UnicodeEncodeError:
            pass  # Python took it from the extra field for names in UTF-8
        except UnicodeDecodeError:
            known = False
    return name.replace("\\", "/"), known


def _zip_start(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with archive.open(member) as file:
        return file.read(SNIFFED)


def _clean(name: str) -> str | None:
    """A member's name without empty and "." parts; None where nothing is left, or it leads out of the archive."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/".join(parts) if parts and ".." not in parts else None


def _check_size(listing: Listing, name: str, size: int, total: int) -> None:
    if size > listing.limits.max_file_mb * 1e6:
        raise too_large(f"{listing.where}: {shown(name)}", size, listing.limits)
    _check_total(listing, total)


def _check_total(listing: Listing, total: int) -> None:
    if total > listing.limits.max_archive_gb * 1e9:
        raise DataError(
            f"{listing.where}: got {total / 1e9:,.1f} GB, unpacked, and perhaps more; accepted: up to "
            f"data.max_archive_gb = {listing.limits.max_archive_gb:g} GB"
        )
