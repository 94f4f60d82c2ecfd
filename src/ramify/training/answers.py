"""What a teacher answered, kept in the cache folder, so that another run on the same pictures need not ask again.

The files are ``teacher/<what was asked of whom>/<epoch>.safetensors``: the logits of one epoch, float16, in the order
in which its pictures came. The folder stays below :data:`LIMIT`: to make room, what was used least recently goes first,
but never what belongs to the same run; what does not fit is not kept. Nothing here is an error: a damaged file is as
good as none, and where nothing can be written, the teacher is asked again.
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
"""How many bytes all answers take on disk, at most."""


def rounded(logits: Tensor) -> Tensor:
    """Logits as they are kept, float16; a run rounds so whether it keeps them or not.

    Example:
        >>> rounded(torch.tensor([1.0001, 1e9])).tolist()
        [1.0, 65504.0]
    """
    largest = torch.finfo(torch.float16).max
    return logits.clamp(-largest, largest).to(torch.float16)


def read_answers(identity: str, epoch: int) -> Tensor | None:
    """The logits of ``epoch``, float16 ``[N, C]`` on the CPU, or None where they are not kept whole."""
    path = _path(identity, epoch)
    try:
        with safe_open(path, framework="pt") as file:
            found: Tensor = file.get_tensor("logits")
            whole = (file.metadata() or {}).get("crc32") == _checksum(found)
        path.touch()  # used just now
    except (OSError, SafetensorError):
        return None
    return found if whole else None


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
    """Whether ``size`` more bytes fit, after what others left has gone as far as need be."""
    there = [(file, file.stat()) for file in path.parent.parent.rglob("*") if file.is_file()]
    total = sum(stat.st_size for _, stat in there)
    for file, stat in sorted(there, key=lambda each: each[1].st_mtime):
        if total + size <= LIMIT:
            break
        if file.parent != path.parent:
            file.unlink(missing_ok=True)
            total -= stat.st_size
    return total + size <= LIMIT


def _checksum(logits: Tensor) -> str:
    """CRC-32: a flipped bit would else be learned."""
    head = zlib.crc32(str((logits.dtype, tuple(logits.shape))).encode())
    return f"{zlib.crc32(logits.numpy().data, head):08x}"
