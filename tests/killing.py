"""Processes that are killed inside their file operations."""

import os
import signal
import sys
import traceback
import warnings
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


def killed(work: Callable[..., None], *arguments: object) -> bool:
    """Whether a process that does ``work`` was killed before it was done.

    It is forked from this one, so that it imports nothing; ``work`` must be free of threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 on: pytest may have threads
        process = os.fork()
    if process == 0:
        code = 1
        try:
            work(*arguments)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code != 0
