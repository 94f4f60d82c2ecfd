"""Writing reports: where they go, and which page it is."""

from collections.abc import Sequence
from pathlib import Path

from ramify.data.fetch import Progress
from ramify.errors import InputError
from ramify.files import write_atomic
from ramify.run.saved import find_run
from ramify.show.report.compare import comparison_page
from ramify.show.report.facts import read_facts
from ramify.show.report.sections import run_page

REPORT, COMPARISON = "report.html", "comparison.html"


def report(
    run: str | Path | Sequence[str | Path],
    *more: str | Path,
    out: str | Path | None = None,
    runs_dir: str | Path = "runs",
    progress: Progress | None = None,
) -> Path:
    """Write the report of a run, or of several side by side, and return its path.

    The page is one HTML file that needs no network. The test pictures of a single finished run are answered once for
    it. Where a run lacks something (a policy, validation pictures, a second exit), its page has a sentence instead.

    Args:
        run: the name of a run, the path of its folder, or several of them, as ``more``.
        out: the file to write; by default ``report.html`` in the folder of the run, ``<runs_dir>/comparison.html``
            for several.
        runs_dir: where runs are looked for by name.
        progress: called with how far a download is, where pictures must be fetched.

    Raises:
        InputError: there is no such run, it has no checkpoint yet, or a file in its folder is damaged.
        RunError: the page cannot be written; an earlier page is intact.
    """
    names = [*([run] if isinstance(run, str | Path) else run), *more]
    if not names:
        raise InputError("report: got no run; accepted: the name of a run, or several")
    folders = [find_run(str(name), Path(runs_dir)) for name in names]
    if len(folders) == 1:
        target = Path(out) if out is not None else folders[0] / REPORT
        text = run_page(read_facts(folders[0], progress))
    else:
        target = Path(out) if out is not None else Path(runs_dir) / COMPARISON
        text = comparison_page(folders, progress)
    if target.is_dir():
        raise InputError(f"out: got {target}, a folder; accepted: the name of a file")
    write_atomic(target, text.encode())
    return target
