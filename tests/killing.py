"""Processes that are killed inside their file operations."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

OPERATIONS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")


def die_at(folder: Path, count: int, half: bytes = b"") -> None:
    """Let this process die by SIGKILL before its ``count``-th file operation in ``folder`` from now on.

    Args:
        folder: where operations count.
        count: from 1 on.
        half: written first where the operation opens a file to append to it, as a write that was cut short.
    """
    left = count

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event not in OPERATIONS or (event == "open" and reads(arguments)):
            return
        path = str(arguments[0])
        if not path.startswith(str(folder)):
            return
        left -= 1
        if left == 0:
            if half and event == "open" and str(arguments[1]).startswith("a"):
                file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                os.write(file, half)
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def reads(arguments: tuple[object, ...]) -> bool:
    """Whether a file is opened to be read alone; ``os.open`` has no mode, but flags."""
    mode, flags = arguments[1], arguments[2]
    if mode is not None:
        return mode in ("r", "rb")
    return isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) == 0


def killed(work: Callable[..., None], *arguments: object, preload: str) -> bool:
    """Whether a process that does ``work`` was killed before it was done; the module ``preload`` is imported once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    process = context.Process(target=work, args=arguments)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode != 0
