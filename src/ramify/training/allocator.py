"""How a training process gets its memory, and how much it has held.

A step allocates and frees the same large tensors as the one before. By default the GNU C library returns each of them
to the system, which has to zero and map its pages again; on two cores this takes a fifth of the time of training on
32x32 pictures.
"""

import ctypes
import os
import re
import sys
from pathlib import Path

from ramify.shortage import free_memory

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # parameters of mallopt(3)
_SPARE = 64 * 2**20


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, in huge pages; whether that could be done.

    The peak memory of its tensors stays with the process until it ends. The commands that train call this; in your own
    program, call it before ``import torch``. It does nothing without the GNU C library.

    Example:
        >>> keep_freed_memory() in (True, False)
        True
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    done = all(mallopt(*setting) for setting in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, _SPARE)))
    if done:
        # PyTorch reads it at its first tensor; without the settings above it makes things slower.
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    return done


def bound_memory() -> bool:
    """Let allocations beyond the free memory fail, so that :mod:`ramify.shortage` can name them; whether that worked.

    Without a bound, Linux grants more memory than it has and later kills the process. No bound is set beside a GPU,
    whose driver reserves addresses without using them.
    """
    free, status = free_memory(), Path("/proc/self/status")
    if free is None or Path("/dev/nvidiactl").exists():
        return False
    import resource

    held = re.search(r"^VmData:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if held is None or soft != resource.RLIM_INFINITY:  # one is set already
        return False
    bound = 1024 * int(held[1]) + free
    resource.setrlimit(resource.RLIMIT_DATA, (bound if hard == resource.RLIM_INFINITY else min(bound, hard), hard))
    return True


def peak_memory() -> int | None:
    """The most bytes of main memory that this process has held so far; None where the system does not say.

    Example:
        >>> peak = peak_memory()
        >>> peak is None or peak > 1_000_000
        True
    """
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts in KiB
