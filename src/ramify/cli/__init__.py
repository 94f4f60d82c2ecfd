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
        # The reader is done, as in: ramify info ... | head
        _forget_output()
        sys.exit(1)
    except (OSError, MemoryError, RuntimeError) as error:
        nameless = isinstance(error, OSError) and error.filename is None and error.errno not in TOO_MANY_FILES
        reported = (_output_error() if nameless else None) or refusal(error)
        if reported is None:
            raise
        _end(reported)


def _end(error: RamifyError) -> None:
    # Processes of torchrun share their errors: the first one prints. The death of a process is printed by the others.
    try:
        for problem in error.problems if first_process() or isinstance(error, ProcessLostError) else ():
            print(printable(f"error: {problem}"), file=sys.stderr, flush=True)  # noqa: T201 - it speaks through print
    except OSError:  # standard error is closed, and the exit code must do
        _forget(sys.stderr.fileno())
    try:
        sys.stdout.flush()
    except OSError:
        _forget_output()
    sys.exit(error.exit_code)


def _output_error() -> RunError | None:
    """The error of standard output, to which nothing more is then written; None where it works."""
    try:
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), b"\n")  # Python does not flush again what failed
    except UnsupportedOperation:
        return None
    except OSError as error:
        _forget_output()
        return RunError(f"standard output: cannot be written ({error.strerror}); free some space, or send it elsewhere")
    return None


def _open_again() -> bool:
    """Open the null device in place of a closed output, so that no file takes its number; whether stdout was closed."""
    closed = sys.stdout is None
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            _forget(number)
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
    return closed


def _forget_output() -> None:
    # Else Python reports the error again at its end. A replaced stdout has no number.
    with suppress(UnsupportedOperation):
        _forget(sys.stdout.fileno())


def _forget(number: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    if null != number:
        os.dup2(null, number)
        os.close(null)
