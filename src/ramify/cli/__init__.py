"""The commands: a file for each verb, thin: parse, call, print.

Heavy imports stand inside the verbs, so that ``ramify --help`` answers at once.
"""

import os
import sys

from ramify.cli.app import app
from ramify.cli.common import first_process
from ramify.data.names import printable
from ramify.errors import ProcessLostError, RamifyError


def main() -> None:
    """Run the command line; ends the process with 0, 1 (the run failed) or 2 (the input is wrong)."""
    try:
        app()
    except RamifyError as error:
        # What is wrong for one of many processes is wrong for all: one of them speaks. A death is told by survivors.
        for problem in error.problems if first_process() or isinstance(error, ProcessLostError) else ():
            print(printable(f"error: {problem}"), file=sys.stderr)  # noqa: T201 - it speaks through print
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader has what it wanted (ramify info ... | head). Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
