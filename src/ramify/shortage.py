"""What a machine refuses, in a sentence: files that it does not open, and memory and threads that it does not have."""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
    """What ``error`` of the system says to the person at the keyboard; None where it is a fault of ours.

    Example:
        >>> str(refusal(PermissionError(13, "Permission denied", "runs/demo")))
        'runs/demo: cannot be used (Permission denied); accepted: a path that this user may read and write'
        >>> refusal(KeyError("demo")) is None
        True
    """
    if isinstance(error, OSError):
        return _of_files(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _is_of_memory(str(error))):
        return RunError(
            f"memory: got {_asked(str(error))}; accepted: {_there()}; a smaller data.batch_size, data.size, "
            "network.channels or number of cells needs less"
        )
    return None


@contextmanager
def refusals_in_words() -> Iterator[None]:
    """Turn what the system refuses inside the block into an error with a sentence.

    Raises:
        RamifyError: of the system's OSError, MemoryError, or RuntimeError of an allocator.

    Example:
        >>> with refusals_in_words():
        ...     open("/nowhere/at/all")
        Traceback (most recent call last):
        ...
        ramify.errors.InputError: /nowhere/at/all: cannot be used (No such file or directory); accepted: a path that ...
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except (OSError, MemoryError, RuntimeError) as error:
        told = refusal(error)
        if told is None:
            raise
        raise told from error


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
        # What a container has read from files counts as taken, and is given back when it is needed.
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
    """As many of ``asked`` threads as the machine has processors, and a sentence where those are fewer.

    Example:
        >>> usable_threads(1)
        (1, None)
        >>> usable_threads(1_000_000)[0] <= (os.cpu_count() or 1)
        True
    """
    there = os.cpu_count() or 1
    if asked <= there:
        return asked, None
    return there, f"threads: got {asked:,}; computes with {there}, as this machine has {there} processors"


MOST_WORKERS = 64
"""Processes that compute side by side on one machine at most, however many processors it has."""


def usable_workers(asked: int) -> tuple[int, str | None]:
    """As many of ``asked`` processes as it makes sense to start here, and a sentence where those are fewer.

    Two a processor may be of use, where runs wait for their pictures.

    Example:
        >>> usable_workers(1)
        (1, None)
        >>> usable_workers(1_000_000)[0] <= MOST_WORKERS
        True
    """
    there = min(MOST_WORKERS, 2 * (os.cpu_count() or 1))
    if asked <= there:
        return asked, None
    return there, f"workers: got {asked:,}; starts {there}, as this machine has {os.cpu_count() or 1} processors"


def gigabytes(count: float) -> str:
    """``14_400_000_000 -> '14.4 GB'``."""
    return f"{count / 1e9:,.3g} GB" if count < 1e12 else f"{count / 1e9:,.0f} GB"


def _of_files(error: OSError) -> RamifyError:
    reason = error.strerror or str(error) or type(error).__name__
    path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes, Path)) else ""
    if error.errno in TOO_MANY_FILES:
        what = path or "a file or connection"
        return RunError(f"{what}: cannot be opened ({reason}); accepted: a higher limit of open files (see: ulimit -n)")
    if not path:
        return RunError(f"a file or connection: cannot be used ({reason})")
    if error.errno in _OF_THE_USER:
        return InputError(f"{path}: cannot be used ({reason}); accepted: a path that this user may read and write")
    return RunError(f"{path}: cannot be used ({reason}); free some space or check the device")


def _is_of_memory(text: str) -> bool:
    return any(part in text for part in _OF_MEMORY)


def _asked(text: str) -> str:
    match = _ASKED.search(text)
    if match is None:
        return "more than there is"
    return f"{gigabytes(int(match[1]))} at once" if match[1] else f"{match[2] or match[3]} at once"


def _there() -> str:
    free = free_memory()
    return "what the machine has" if free is None else f"up to {gigabytes(free)}, which are free in main memory"


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
