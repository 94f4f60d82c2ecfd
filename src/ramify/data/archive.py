"""The regular files in an archive, read in memory, one after the other.

Nothing is ever written to disk, so no name in an archive can lead anywhere.
"""

import bz2
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from ramify.errors import DataError

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    ValueError,
    OverflowError,
    NotImplementedError,  # a compression that Python lacks
    RuntimeError,  # a password
    OSError,  # gzip and bz2 say so for a wrong checksum
)


def members(path: Path, wanted: Callable[[str], bool], folders: set[str] | None = None) -> Iterator[tuple[str, bytes]]:
    """The name and content of each regular file of a .tar (plain, .gz, .xz, .bz2) or .zip, as they come.

    Links, devices and hidden files (a part of the name starts with "."; ``__MACOSX``) are passed over. A
    compressed tar is read once, from front to back. What kind of archive it is shows in its content,
    not in its name.

    Args:
        path: the archive.
        wanted: by its name, whether a file is to be read.
        folders: takes the names of the archive's folders (``a/b``), where given.

    Raises:
        DataError: the archive cannot be read, is damaged, or has been cut short.
    """
    try:
        with path.open("rb") as file:
            start = file.read(6)
            file.seek(0)
            if start.startswith(b"PK"):
                yield from _zip_members(file, wanted, folders)
            elif start.startswith(b"\x1f\x8b"):
                with gzip.open(file) as plain:
                    yield from _tar_members(plain, wanted, folders)
            elif start.startswith(b"\xfd7zXZ\x00"):
                with lzma.open(file) as plain:
                    yield from _tar_members(plain, wanted, folders)
            elif start.startswith(b"BZh"):
                with bz2.open(file) as plain:
                    yield from _tar_members(plain, wanted, folders)
            else:
                yield from _tar_members(file, wanted, folders)
    except _DAMAGE as error:
        raise DataError(
            f"{path}: cannot be read as an archive ({_reason(error)}); accepted: a whole .tar, .tar.gz, .tgz, "
            ".tar.xz or .zip, without a password"
        ) from error


def clean(name: str) -> str | None:
    """A member's name without empty and "." parts; None if it is hidden.

    Example:
        >>> clean("./set//cat/1.png"), clean("__MACOSX/cat/1.png"), clean("cat/._1.png")
        ('set/cat/1.png', None, None)
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or any(is_hidden(part) for part in parts):
        return None
    return "/".join(parts)


def is_hidden(part: str) -> bool:
    """Whether a file or folder of this name is none of the user's."""
    return part.startswith(".") or part == "__MACOSX"


def _tar_members(
    file: IO[bytes] | gzip.GzipFile | lzma.LZMAFile | bz2.BZ2File,
    wanted: Callable[[str], bool],
    folders: set[str] | None,
) -> Iterator[tuple[str, bytes]]:
    # Opened plain, and sought only forward, so that this module's decompressors see every byte once and tell
    # a cut file; tarfile's own stream mode takes it for the end.
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            name = clean(member.name)
            if name is None:
                continue
            if member.isdir() and folders is not None:
                folders.add(name)
            if member.isfile() and wanted(name):
                content = tar.extractfile(member)
                assert content is not None, "a regular member has content"
                yield name, content.read()
        # tarfile also stops, silently, at a header it cannot read: a whole archive ends in two blocks of zeros.
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise EOFError("it ends, or is damaged, in the middle")
    while file.read(1 << 20):
        pass  # to the end, where the decompressor compares its checksum


def _zip_members(
    file: IO[bytes], wanted: Callable[[str], bool], folders: set[str] | None
) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            name = clean(member.filename)
            if name is None:
                continue
            if member.is_dir():
                if folders is not None:
                    folders.add(name)
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind in (0, stat.S_IFREG) and wanted(name):
                yield name, archive.read(member)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
