"""Decoded pictures kept on disk, so that a second start does not decode again.

The cache is a folder, ``RAMIFY_CACHE`` or else the system's place for caches. A source's pictures are one
safetensors file ``decoded/<identity>-<state>.safetensors``: the identity is what was asked for (a path and
a size), the state is what lay there (sizes and times of the files). When a source has changed, its new file
replaces the old one; nothing else is ever removed, and the folder can be deleted at any time.

Nothing here is an error: a damaged file is built again, and where the folder cannot be written, ramify goes on
without a cache.
"""

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ramify.data.pictures import Part, PictureSet

# Raise it when the meaning of a cached file changes: how pictures are decoded, scaled or laid out.
FORMAT = 1


def cache_folder() -> Path:
    """The folder for downloads and decoded pictures; it may not exist yet."""
    given = os.environ.get("RAMIFY_CACHE")
    if given:
        return Path(given).expanduser()
    import pooch  # half of the time of importing this layer, and needed only here and for downloads

    return Path(pooch.os_cache("ramify"))


def digest(*parts: object) -> str:
    """32 hexadecimal digits for ``parts`` (anything JSON can say), by SHA-256.

    Example:
        >>> digest("a", 1) == digest("a", 1), digest("a", 1) == digest("a", 2)
        (True, False)
    """
    return hashlib.sha256(json.dumps([FORMAT, *parts]).encode()).hexdigest()[:32]


def cached(identity: str, state: str, build: Callable[[], PictureSet]) -> PictureSet:
    """The pictures that ``build`` gives, from the cache where it has them.

    Args:
        identity: :func:`digest` of what was asked for.
        state: :func:`digest` of what the pictures are made from.
        build: decodes them; whatever it raises passes through, and nothing is then kept.
    """
    path = cache_folder() / "decoded" / f"{identity}-{state}.safetensors"
    found = _read(path)
    if found is not None:
        return found
    pictures = build()
    _write(path, identity, pictures)
    return pictures


def _read(path: Path) -> PictureSet | None:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            parts = [Part(file.get_tensor(f"{name}.images"), file.get_tensor(f"{name}.labels")) for name in _PARTS]
        classes = tuple(str(name) for name in json.loads(metadata["classes"]))
        pictures = PictureSet(parts[0], parts[1], classes)
        whole = metadata["crc32"] == _checksum(pictures)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None
    return pictures if whole else None


def _write(path: Path, identity: str, pictures: PictureSet) -> None:
    tensors = {}
    for name, part in zip(_PARTS, (pictures.train, pictures.test), strict=True):
        tensors[f"{name}.images"] = part.images.contiguous()
        tensors[f"{name}.labels"] = part.labels.contiguous()
    metadata = {"classes": json.dumps(pictures.classes), "crc32": _checksum(pictures)}
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Beside its final name and with the same beginning, so that what a killed run leaves is cleared below.
        handle, name = tempfile.mkstemp(prefix=f"{identity}-", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        save_file(tensors, temporary, metadata)
        temporary.chmod(0o644)
        temporary.replace(path)
        for old in path.parent.glob(f"{identity}-*"):
            if old != path:
                old.unlink(missing_ok=True)
    except (OSError, SafetensorError):
        if temporary is not None:
            _forget(temporary)


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def _checksum(pictures: PictureSet) -> str:
    """CRC-32 over everything: a flipped bit would else be trained on."""
    value = zlib.crc32(json.dumps(pictures.classes).encode())
    for part in (pictures.train, pictures.test):
        for tensor in (part.images, part.labels):
            value = zlib.crc32(str((tensor.dtype, tuple(tensor.shape))).encode(), value)
            value = zlib.crc32(tensor.contiguous().numpy().data, value)
    return f"{value:08x}"


_PARTS = ("train", "test")
