"""Labelled pictures from a folder, or from an archive of one."""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ramify.data.archive import is_hidden, members
from ramify.data.cache import cached, digest
from ramify.data.decode import Pixels, Size, decoding, is_picture, odd_size, stack
from ramify.data.layout import Layout, arrange
from ramify.data.pictures import Part, PictureSet
from ramify.errors import DataError


def load_path(path: Path, size: Size | None = None) -> PictureSet:
    """The pictures of an image folder, or of a .tar, .tar.gz, .tgz, .tar.xz or .zip of one, through the cache.

    A folder holds ``train/<class>/*`` and ``test/<class>/*``, or just ``<class>/*`` (the test part is then
    empty); where there is no ``test``, a ``val``, ``valid`` or ``validation`` is taken for it. See
    :func:`ramify.data.layout.arrange` for what is passed over. Classes, and the pictures of each, are in
    the order of their names, so nothing depends on the file system. In archives, links are passed over.

    Args:
        path: the folder or archive.
        size: (H, W) that every picture is scaled and centre-cropped to; None keeps their own.

    Raises:
        DataError: nothing is there, the archive or a picture is damaged, a picture's size differs or is below
            8 pixels, or the classes are not as they must be.
    """
    identity = digest(str(path.resolve()), size)
    try:
        if path.is_dir():
            tree = _scan(path)
            state = digest(tree.stamps, tree.folders)
            return cached(identity, state, lambda: _decode_folder(path, tree, size))
        stamp = path.stat()
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: cannot be read ({reason}); accepted: a folder, .tar or .zip of pictures") from error
    if not stat.S_ISREG(stamp.st_mode):
        raise DataError(f"{path}: is no folder and no regular file; accepted: a folder, .tar or .zip of pictures")
    state = digest(stamp.st_size, stamp.st_mtime_ns)
    return cached(identity, state, lambda: _decode_archive(path, size))


@dataclass(frozen=True)
class _Tree:
    """What a folder holds: (relative name, bytes, time in ns) of each picture, and the folders, sorted."""

    stamps: list[tuple[str, int, int]]
    folders: list[str]


def _scan(root: Path) -> _Tree:
    stamps: list[tuple[str, int, int]] = []
    folders: list[str] = []
    # Links are followed, as people link classes together; a folder inside itself is not entered again.
    todo = [("", frozenset({os.path.realpath(root)}))]
    while todo:
        folder, above = todo.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir():
                    real = os.path.realpath(entry.path)
                    if real not in above:
                        folders.append(name)
                        todo.append((name, above | {real}))
                elif is_picture(entry.name) and entry.is_file():
                    found = entry.stat()
                    stamps.append((name, found.st_size, found.st_mtime_ns))
    return _Tree(sorted(stamps), sorted(folders))


def _decode_folder(path: Path, tree: _Tree, size: Size | None) -> PictureSet:
    layout = arrange((name for name, _, _ in tree.stamps), tree.folders, str(path))
    files = ((str(path / name), path / name) for name, _ in (*layout.train, *layout.test))
    with decoding(files, size) as pictures:
        return _label(layout, pictures)


def _decode_archive(path: Path, size: Size | None) -> PictureSet:
    """Decode as the members come, since a tar can be read but once; what is used of it shows at the end."""
    folders: set[str] = set()
    prefix = f"{path}: "
    files = ((prefix + name, content) for name, content in members(path, is_picture, folders))
    decoded: dict[str, Pixels | DataError] = {}
    first_of: dict[str, str] = {}
    with decoding(files, size) as pictures:
        for name, picture in pictures:
            first = first_of.setdefault(name.rpartition("/")[0], name)
            like = decoded.setdefault(first, picture)
            decoded[name] = picture
            # Pictures of many sizes are an error only if they are used. Not kept: they could fill the memory first.
            if isinstance(picture, np.ndarray) and isinstance(like, np.ndarray) and picture.shape[:2] != like.shape[:2]:
                decoded[name] = odd_size(name, picture, first, like)
    layout = arrange((name.removeprefix(prefix) for name in decoded), folders, str(path))
    used = (*layout.train, *layout.test)
    return _label(layout, ((prefix + name, decoded.pop(prefix + name)) for name, _ in used))


def _label(layout: Layout, pictures: Iterable[tuple[str, Pixels | DataError]]) -> PictureSet:
    """The set that ``layout`` describes, given its training and then its test pictures in order."""
    images = stack(pictures)
    labels = torch.tensor([label for _, label in (*layout.train, *layout.test)])
    cut = len(layout.train)
    return PictureSet(Part(images[:cut], labels[:cut]), Part(images[cut:], labels[cut:]), layout.classes)
