"""``ramify report``: a run, or several side by side, as one HTML page."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ramify.cli.common import RUNS_DIR, AsJson, Csv, Latex, Plot, RunsDir, download_lines, first_process, say, say_json
from ramify.errors import RamifyError


def report(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Names of runs, or paths of their folders.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write it [default: report.html in the run's folder]")
    ] = None,
    csv: Csv = None,
    latex: Latex = None,
    plot: Plot = None,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Write the report of a run: one HTML page that needs no network and opens in any browser.

    It is written at the end of every training, and again by `ramify calibrate`.
    Several names give one page that compares the runs, `comparison.html` in the folder of the runs.

    Examples:

    - `ramify report digits-iterative`
    - `ramify report digits-iterative --out page.html`
    - `ramify report runs/demo-seed*`
    - `ramify report sweeps/mine/runs/* --csv table.csv --plot figure.svg`
    """
    from ramify.run.saved import find_run
    from ramify.show.groups import groups_of
    from ramify.show.report.write import report as write
    from ramify.show.terminal.grouptable import write_tables

    folder = runs_dir or RUNS_DIR
    path = write(names, out=out, runs_dir=folder, progress=None if as_json else download_lines(say))
    written = []
    if csv or latex or plot:
        written = write_tables(groups_of([find_run(name, folder) for name in names]), csv, latex, plot)
    if as_json:
        say_json({"runs": names, "path": str(path), "written": list(map(str, written))})
        return
    say(f"report: {path}; open it in a browser")
    for file in written:
        say(f"written: {file}")


def report_of(run: Path, warn: Callable[[str], None]) -> Path | None:
    """Write the report of a run that has changed; a failure is a warning, as the run itself is complete."""
    if not first_process():
        return None
    try:
        from ramify.show.report.write import report as write

        return write(run)
    except KeyboardInterrupt:
        why = "stopped from the keyboard"
    except RamifyError as error:
        why = error.problems[0]
    except Exception as error:  # the run is complete, and must not be reported as failed
        why = f"{type(error).__name__}: {error}"
    warn(f"no report was written ({why}); try again with: ramify report {run}")
    return None
