"""The commands: a file for each verb, thin: parse, call, print.

Heavy imports stand inside the verbs, so that ``ramify --help`` answers at once.
"""

import os
import sys
from contextlib import suppress
from io import UnsupportedOperation

from ramify.cli.app import app
from ramify.cli.common import first_process
from ramify.data.names import printable
from ramify.errors import InputError, ProcessLostError, RamifyError, RunError
from ramify.shortage import TOO_MANY_FILES, refusal


def main() -> None:
    """Run the command line; ends the process with 0, 1 (the run failed) or 2 (the input is wrong)."""
    closed = _open_again()
    try:
        if closed:
            raise InputError("standard output: is closed; accepted: a terminal, a file or a pipe (/dev/null for none)")
        try:
            app()
        finally:
            sys.stdout.flush()
    except RamifyError as error:
        _end(error)
    except BrokenPipeError:
        # The reader has what it wanted (ramify info ... | head).
        _forget_output()
        sys.exit(1)
    except (OSError, MemoryError, RuntimeError) as error:
        nameless = isinstance(error, OSError) and error.filename is None and error.errno not in TOO_MANY_FILES
        told = (_of_output() if nameless else None) or refusal(error)
        if told is None:
            raise
        _end(told)


def _end(error: RamifyError) -> None:
    # What is wrong for one of many processes is wrong for all: one of them speaks. A death is told by survivors.
    try:
        for problem in error.problems if first_process() or isinstance(error, ProcessLostError) else ():
            print(printable(f"error: {problem}"), file=sys.stderr, flush=True)  # noqa: T201 - it speaks through print
    except OSError:  # there is nobody to tell it to; the exit code says it
        _forget(sys.stderr.fileno())
    try:
        sys.stdout.flush()
    except OSError:
        _forget_output()
    sys.exit(error.exit_code)


def _of_output() -> RunError | None:
    """What is wrong with standard output, where something is; nothing more is then written to it."""
    try:
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), b"\n")  # what failed to be flushed is not tried again by Python
    except UnsupportedOperation:
        return None
    except OSError as error:
        _forget_output()
        return RunError(f"standard output: cannot be written ({error.strerror}); free some space, or send it elsewhere")
    return None


def _open_again() -> bool:
    """Put the null device where an output was closed, so that no file takes its number; whether it was stdout."""
    closed = sys.stdout is None
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            _forget(number)
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
    return closed


def _forget_output() -> None:
    # Python would complain once more at its end. What a program has put in place of its output has no number.
    with suppress(UnsupportedOperation):
        _forget(sys.stdout.fileno())


def _forget(number: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    if null != number:
        os.dup2(null, number)
        os.close(null)
