"""Processes that are forked from this one, so that they import nothing, and die inside their file operations."""

import importlib
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from pathlib import Path

import torch

for name in ("plotly.graph_objects", "sklearn.datasets", "torch._dynamo"):
    importlib.import_module(name)  # late in a run, and again in each process that is forked before

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


def forked(work: Callable[..., None], *arguments: object) -> ForkProcess:
    """A process that does ``work``, with one thread: those of this process are not in it."""
    process = multiprocessing.get_context("fork").Process(target=_begin, args=(work, *arguments))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns where this process has threads
        process.start()
    return process


def _begin(work: Callable[..., None], *arguments: object) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    work(*arguments)


def killed(work: Callable[..., None], *arguments: object) -> bool:
    """Whether a process that does ``work`` was killed before it was done."""
    process = forked(work, *arguments)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode != 0


def command_line(output: Path, *arguments: str) -> None:
    """``ramify`` with ``arguments`` in this process, forked for it; what it writes goes to ``output``."""
    from ramify.cli import main

    with output.open("wb") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    sys.argv = ["ramify", *arguments]
    main()
