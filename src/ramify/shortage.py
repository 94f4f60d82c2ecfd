"""The limits of a machine in sentences: files that cannot be opened, memory and threads that are not there."""

import errno
import os
import re
import sys
from pathlib import Path

from ramify.errors import InputError, RamifyError, RunError

if sys.platform != "win32":
    import resource

_OF_THE_USER = frozenset(
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EROFS", "ENOENT", "EISDIR", "ENOTDIR", "ENAMETOOLONG", "ELOOP", "ENOTEMPTY")
    if hasattr(errno, name)
)
TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)
# As PyTorch on a processor, PyTorch on a GPU, and NumPy say how much they asked for.
_ASKED = re.compile(r"tried to allocate (\d+) bytes|Tried to allocate ([\d.]+ \w+)|Unable to allocate ([\d.]+ \w+)")
_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "Storage size calculation overflowed",
    "Unable to allocate",
)
_MEMORY_FILES = (Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"))


def refusal(error: BaseException) -> RamifyError | None:
    """``error`` of the system as an error with a sentence; None where it is a bug of ramify.

    Example:
        >>> str(refusal(PermissionError(13, "Permission denied", "runs/demo")))
        'runs/demo: cannot be used (Permission denied); accepted: a path that this user may read and write'
        >>> refusal(KeyError("demo")) is None
        True
    """
    if isinstance(error, OSError):
        return _of_files(error)
    text = str(error)
    of_allocator = isinstance(error, RuntimeError) and any(part in text for part in _OF_MEMORY)
    if isinstance(error, MemoryError) or of_allocator:
        return RunError(
            f"memory: got {_asked(text)}; accepted: {_available()}; a smaller data.batch_size, data.size, "
            "network.channels or number of cells needs less"
        )
    return None


def free_memory() -> int | None:
    """Bytes of main memory that this process could still take; None where the system does not say.

    Example:
        >>> free = free_memory()
        >>> free is None or free > 0
        True
    """
    meminfo, limit, current = (_text(path) for path in _MEMORY_FILES)
    match = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    if match is None:
        return None
    free = 1024 * int(match[1])
    if limit.strip().isdigit() and current.strip().isdigit():
        # The file cache of a container counts as used, and is freed on demand.
        cached = re.search(r"^inactive_file (\d+)", _text(_MEMORY_FILES[1].with_name("memory.stat")), re.MULTILINE)
        free = min(free, int(limit) - int(current) + (int(cached[1]) if cached else 0))
    allowed = _address_space()
    return max(0, free if allowed is None else min(free, allowed))


def _address_space() -> int | None:
    """Bytes of addresses that the process may still take under ``ulimit -v``; None where there is no limit."""
    if sys.platform == "win32":
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = _text(Path("/proc/self/statm")).split()
    if limit == resource.RLIM_INFINITY or not pages:
        return None
    return limit - int(pages[0]) * resource.getpagesize()


def usable_threads(asked: int) -> tuple[int, str | None]:
    """``asked`` threads, at most one a processor, and a sentence where those are fewer.

    Example:
        >>> usable_threads(1)
        (1, None)
        >>> usable_threads(1_000_000)[0] <= (os.cpu_count() or 1)
        True
    """
    return _usable("threads", asked, "computes with", os.cpu_count() or 1)


MOST_WORKERS = 64
"""The most processes that compute side by side on one machine."""


def usable_workers(asked: int) -> tuple[int, str | None]:
    """``asked`` processes, at most two a processor and :data:`MOST_WORKERS`, and a sentence where those are fewer.

    Example:
        >>> usable_workers(1)
        (1, None)
        >>> usable_workers(1_000_000)[0] <= MOST_WORKERS
        True
    """
    return _usable("workers", asked, "starts", min(MOST_WORKERS, 2 * (os.cpu_count() or 1)))


def _usable(what: str, asked: int, does: str, most: int) -> tuple[int, str | None]:
    why = f"as this machine has {os.cpu_count() or 1} processors"
    return (asked, None) if asked <= most else (most, f"{what}: got {asked:,}; {does} {most}, {why}")


def gigabytes(count: float) -> str:
    """``14_400_000_000 -> '14.4 GB'``."""
    return f"{count / 1e9:,.3g} GB" if count < 1e12 else f"{count / 1e9:,.0f} GB"


def _of_files(error: OSError) -> RamifyError:
    reason = error.strerror or str(error) or type(error).__name__
    path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes, Path)) else ""
    if error.errno in TOO_MANY_FILES:
        name = path or "a file or connection"
        return RunError(f"{name}: cannot be opened ({reason}); accepted: a higher limit of open files (see: ulimit -n)")
    if not path:
        return RunError(f"a file or connection: cannot be used ({reason})")
    if error.errno in _OF_THE_USER:
        return InputError(f"{path}: cannot be used ({reason}); accepted: a path that this user may read and write")
    return RunError(f"{path}: cannot be used ({reason}); free some space or check the device")


def _asked(text: str) -> str:
    match = _ASKED.search(text)
    if match is None:
        return "more than there is"
    return f"{gigabytes(int(match[1]))} at once" if match[1] else f"{match[2] or match[3]} at once"


def _available() -> str:
    free = free_memory()
    return "what the machine has" if free is None else f"up to {gigabytes(free)}, which are free in main memory"


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
