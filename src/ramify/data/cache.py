"""Decoded pictures on disk, so that a second start does not decode again.

The cache is a folder, ``RAMIFY_CACHE`` or else the system's place for caches. The pictures of a source are one
safetensors file ``decoded/<identity>-<state>.safetensors``: the identity is that of the request (a path and a size),
the state that of the files (sizes, times and inodes). The pixels of a set that is larger than memory are beside it, in
``<identity>-<state>.pixels``. When a source has changed, its new files replace the old ones.

A damaged file is built again, and where the folder cannot be written, there is no cache.
"""

import hashlib
import json
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ramify.data.listing import Skipped
from ramify.data.pictures import Files, Part, PictureSet
from ramify.data.store import Rows, Store
from ramify.errors import RunError

YOUNG = 600
"""Seconds before an unfinished file counts as abandoned."""

# Raise it when the meaning of a cached file changes.
_FORMAT = 3


def cache_folder() -> Path:
    """The folder for downloads and decoded pictures; it may not exist yet."""
    folder = os.environ.get("RAMIFY_CACHE")
    if folder:
        return Path(folder).expanduser()
    import pooch  # half of the time of importing this layer, and needed only here and for downloads

    return Path(pooch.os_cache("ramify"))


def digest(*parts: object) -> str:
    """32 hexadecimal digits for ``parts`` (anything JSON can say), by SHA-256.

    Example:
        >>> digest("a", 1) == digest("a", 1), digest("a", 1) == digest("a", 2)
        (True, False)
    """
    return hashlib.sha256(json.dumps([_FORMAT, *parts]).encode()).hexdigest()[:32]


def cached(identity: str, state: str, build: Callable[[], PictureSet]) -> PictureSet:
    """The pictures of ``build``, from the cache where it has them.

    ``identity`` is the :func:`digest` of the request, ``state`` that of the files.
    """
    path = cache_folder() / "decoded" / f"{identity}-{state}.safetensors"
    pictures = _read(path)
    if pictures is None:
        pictures = build()
        _write(path, identity, pictures)
    return pictures


@contextmanager
def pixel_file(identity: str, size: int) -> Iterator[Path]:
    """A new file in the cache folder for ``size`` bytes of pixels; it is removed if the block raises.

    Raises:
        RunError: the cache folder cannot be written.
    """
    folder = cache_folder() / "decoded"
    try:
        with _temporary(folder, identity) as path:
            yield path
    except OSError as error:
        raise RunError(
            f"{folder}: cannot keep {size / 1e9:,.1f} GB of decoded pictures ({error.strerror or error}); accepted: "
            "room for them, another folder in the environment variable RAMIFY_CACHE, or a larger data.memory_gb"
        ) from error


@contextmanager
def _temporary(folder: Path, identity: str) -> Iterator[Path]:
    """A new file in ``folder`` that is removed if the block raises."""
    folder.mkdir(parents=True, exist_ok=True)
    # With the beginning of its final name, by which _write finds what a killed run left.
    handle, name = tempfile.mkstemp(prefix=f"{identity}-", suffix=".tmp", dir=folder)
    os.close(handle)
    try:
        yield Path(name)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink(missing_ok=True)
        raise


def _read(path: Path) -> PictureSet | None:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        if metadata.get("crc32") != _checksum(metadata, tensors):
            return None
        about = json.loads(metadata["about"])
        count, channels, height, width = about["shape"]
        pixels: torch.Tensor | Rows
        if "images" in tensors:
            pixels = tensors["images"]
        else:
            pixels = Rows(Store(path.with_suffix(".pixels"), (count, channels, height, width)), tensors["rows"])
        listed = json.loads(zlib.decompress(tensors["files"].numpy().tobytes()))
        files = Files(
            names=tuple(listed["names"]),
            digests=tensors["digests"],
            labels=tensors["file_labels"],
            groups=None if listed["groups"] is None else tuple(listed["groups"]),
            skipped=tuple(Skipped(name, reason) for name, reason in listed["skipped"]),
            notes=tuple(listed["notes"]),
            range=None if listed["range"] is None else tuple(listed["range"]),
            by_content=bool(listed["by_content"]),
        )
        whole, ends = Part(pixels, tensors["labels"], tensors.get("ids")), np.cumsum([0, *about["counts"]]).tolist()
        train, valid, test = (whole[start:end] for start, end in pairwise(ends))
        return PictureSet(train, test, tuple(str(name) for name in about["classes"]), valid, files)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, zlib.error):
        return None


def _write(path: Path, identity: str, pictures: PictureSet) -> None:
    tensors, about = _packed(pictures)
    metadata = {"about": json.dumps(about)}
    metadata["crc32"] = _checksum(metadata, tensors)
    with suppress(OSError, SafetensorError), _temporary(path.parent, identity) as temporary:
        stored = pictures.train.pixels
        if isinstance(stored, Rows):
            stored.store.path.chmod(0o644)
            stored.store.path.replace(path.with_suffix(".pixels"))
            stored.store.path = path.with_suffix(".pixels")
        save_file(tensors, temporary, metadata)
        temporary.chmod(0o644)
        temporary.replace(path)
        for old in path.parent.glob(f"{identity}-*"):
            # A young temporary file may be that of another process.
            if old.stem != path.stem and not (old.suffix == ".tmp" and time.time() - old.stat().st_mtime < YOUNG):
                old.unlink(missing_ok=True)


def _packed(pictures: PictureSet) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    parts = (pictures.train, pictures.valid, pictures.test)
    files = pictures.files
    listed = {
        "names": files.names,
        "groups": files.groups,
        "skipped": [[file.name, file.reason] for file in files.skipped],
        "notes": files.notes,
        "range": files.range,
        "by_content": files.by_content,
    }
    packed = zlib.compress(json.dumps(listed).encode(), 1)
    tensors = {
        "labels": torch.cat([part.labels for part in parts]),
        "digests": files.digests,
        "file_labels": files.labels,
        "files": torch.frombuffer(bytearray(packed), dtype=torch.uint8),
    }
    if all(part.ids is not None for part in parts):
        tensors["ids"] = torch.cat([part.ids for part in parts if part.ids is not None])
    first = pictures.train.pixels
    if isinstance(first, Rows):
        tensors["rows"] = torch.cat([part.pixels.rows for part in parts if isinstance(part.pixels, Rows)])
        shape = list(first.store.shape)
    else:
        tensors["images"] = torch.cat([part.images for part in parts])
        shape = list(tensors["images"].shape)
    return tensors, {"classes": pictures.classes, "counts": [len(part) for part in parts], "shape": shape}


def _checksum(metadata: dict[str, str], tensors: dict[str, torch.Tensor]) -> str:
    """CRC-32 over everything but the pixels of a large set."""
    value = zlib.crc32(metadata.get("about", "").encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        value = zlib.crc32(str((name, tensor.dtype, tuple(tensor.shape))).encode(), value)
        value = zlib.crc32(tensor.contiguous().numpy().data, value)
    return f"{value:08x}"
