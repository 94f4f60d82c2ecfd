"""Logits of a teacher in the cache folder, for other runs on the same pictures.

The files are ``teacher/<identity>/<epoch>.safetensors``: the logits of one epoch, float16, in the order of its
pictures. The folder stays below :data:`LIMIT`: the least recently used files go first, but none of the same identity;
what does not fit is not kept. Nothing here raises: where a file is damaged or missing, the teacher computes again.
"""

import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ramify.data.cache import cache_folder
from ramify.errors import RunError
from ramify.files import write_atomic

LIMIT = 2 * 2**30
"""Bytes of all answers on disk, at most."""


def to_float16(logits: Tensor) -> Tensor:
    """Logits as they are kept, float16; a run uses these whether it keeps them or not.

    Example:
        >>> to_float16(torch.tensor([1.0001, 1e9])).tolist()
        [1.0, 65504.0]
    """
    largest = torch.finfo(torch.float16).max
    return logits.clamp(-largest, largest).to(torch.float16)


def read_answers(identity: str, epoch: int) -> Tensor | None:
    """The logits of ``epoch``, float16 ``[N, C]`` on the CPU, or None where they are not kept whole."""
    path = _path(identity, epoch)
    try:
        with safe_open(path, framework="pt") as file:
            logits: Tensor = file.get_tensor("logits")
            whole = (file.metadata() or {}).get("crc32") == _checksum(logits)
        path.touch()  # the time of its last use
    except (OSError, SafetensorError):
        return None
    return logits if whole else None


def keep_answers(identity: str, epoch: int, logits: Tensor) -> None:
    """Keep ``logits``, float16 ``[N, C]``, if there is room."""
    logits = logits.cpu().contiguous()
    path = _path(identity, epoch)
    try:
        if _make_room(path, logits.nbytes):
            write_atomic(path, save({"logits": logits}, {"crc32": _checksum(logits)}))
    except (OSError, RunError):
        return


def _path(identity: str, epoch: int) -> Path:
    return cache_folder() / "teacher" / identity / f"{epoch}.safetensors"


def _make_room(path: Path, size: int) -> bool:
    """Whether ``size`` more bytes fit, after old files have been removed."""
    files = [(file, file.stat()) for file in path.parent.parent.rglob("*") if file.is_file()]
    total = sum(stat.st_size for _, stat in files)
    for file, stat in sorted(files, key=lambda entry: entry[1].st_mtime):
        if total + size <= LIMIT:
            break
        if file.parent != path.parent:
            file.unlink(missing_ok=True)
            total -= stat.st_size
    return total + size <= LIMIT


def _checksum(logits: Tensor) -> str:
    """CRC-32, as a flipped bit would be learned."""
    head = zlib.crc32(str((logits.dtype, tuple(logits.shape))).encode())
    return f"{zlib.crc32(logits.numpy().data, head):08x}"
