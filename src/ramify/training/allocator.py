"""The memory of a process: kept for the next training step, and no more of it than the machine has.

A step allocates and frees the same large tensors as the one before. The GNU C library hands each of them back to the
system, which then has to give, zero and map its pages again; on two cores this takes a fifth of the time of training on
32x32 pictures. It can be told to keep them.
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

    It is for a process that trains: what its tensors took at most stays with it until it ends. The commands that
    train call it; in a program of your own, call it before ``import torch``. Elsewhere than on the GNU C library it
    does nothing.

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
        # Alone, without what was set above, this would make things slower: PyTorch reads it at its first tensor.
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    return done


def bound_memory() -> bool:
    """Let allocations fail that the machine has no memory for; whether that could be done.

    Linux promises more memory than there is, and then kills the process that comes to use it. With a bound, the
    allocation fails instead, and what asked for it can be named (see :mod:`ramify.shortage`). Beside a GPU nothing is
    bound, as its driver reserves addresses without using them.

    """
    free, status = free_memory(), Path("/proc/self/status")
    if free is None or Path("/dev/nvidiactl").exists():
        return False
    import resource

    held = re.search(r"^VmData:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if held is None or soft != resource.RLIM_INFINITY:  # somebody has set one already
        return False
    bound = 1024 * int(held[1]) + free
    resource.setrlimit(resource.RLIMIT_DATA, (bound if hard == resource.RLIM_INFINITY else min(bound, hard), hard))
    return True
