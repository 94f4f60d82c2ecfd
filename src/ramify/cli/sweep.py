"""``ramify sweep``: every combination of some values, with several seeds each."""

import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ramify.cli.common import AsJson, Csv, Latex, Plot, say, say_json, show, sort_given, workers_here
from ramify.cli.search import EngineOptions, On
from ramify.errors import RunError

if TYPE_CHECKING:
    from ramify.search.engine import TaskEngine
    from ramify.search.sweep import Sweep, SweepEvent

SWEEPS = Path("sweeps")


def sweep(
    given: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE.yaml|KEY=[A, B]|KEY=A", help="A list is varied, any other value shared."),
    ] = None,
    repeats: Annotated[int | None, typer.Option(min=1, metavar="N", help="Seeds of each combination.")] = None,
    workers: Annotated[int, typer.Option(min=1, metavar="K", help="Processes here, or jobs of a batch system.")] = 1,
    on: On = None,
    engine_options: EngineOptions = None,
    name: Annotated[str | None, typer.Option(help="Name of the sweep and of its folder.")] = None,
    csv: Csv = None,
    latex: Latex = None,
    plot: Plot = None,
    dry_run: Annotated[bool, typer.Option("--dry_run", help="Print the runs, and stop.")] = False,
    as_json: AsJson = False,
    sweeps_dir: Annotated[Path | None, typer.Option("--sweeps_dir", help="[default: sweeps]")] = None,
) -> None:
    """Train every combination of the values that vary, with several seeds each, and compare them.

    The same command again goes on with a sweep that was broken off. Runs that fail stop no other, and are tried again.

    Examples:

    - `ramify sweep "prune.policy=[normal, iterative]" prune.enabled=true prune.epochs=[[10]] --repeats 3 --workers 2`
    - `ramify sweep sweep.yaml --latex table.tex --plot figure.pdf`
    - `ramify sweep sweep.yaml --on slurm --workers 16 --engine_options gpu.yaml`
    """
    from ramify.search.engine import open_engine
    from ramify.search.sweep import opened, read_sweep

    files, overrides = sort_given(given or [])
    found = read_sweep(files, overrides, repeats=repeats, name=name, sweeps_dir=sweeps_dir or SWEEPS)
    if dry_run:
        runs = {str(config.name): f"{config.train.epochs} epochs, seed {config.seed}" for config in found.configs}
        if as_json:
            say_json({"name": found.name, "runs": list(runs)})
        else:
            say("\n".join(f"{run}: {what}" for run, what in runs.items()))
        return
    gpus = any(config.train.device != "cpu" for config in found.configs)
    with contextlib.ExitStack() as stack:
        stack.enter_context(opened(found))
        engine = stack.enter_context(open_engine(on, workers_here(workers, on), engine_options, gpus=gpus))
        failed, left = _work(found, engine, as_json)
    if left:
        how = f"ramify sweep {found.folder / 'sweep.yaml'}"
        raise RunError(f"sweep {found.name}: stopped; go on with: {how}")
    _compare(found, failed, csv, latex, plot, as_json)
    if failed:
        reasons = [f"{run}: {why}" for run, why in failed.items()]
        raise RunError(
            *reasons, f"{len(failed)} of {len(found.configs)} runs failed; the same command tries them again"
        )


def _work(sweep: "Sweep", engine: "TaskEngine", as_json: bool) -> tuple[dict[str, str], bool]:
    """Run it under a live view or with lines: what failed, and whether it was left before it was done."""
    from rich.console import Console

    from ramify.search.coordinator import leaving_on_signals
    from ramify.search.study import STOP
    from ramify.search.sweep import RunsUnderWay, run_sweep
    from ramify.show.terminal.sweep import SweepView

    console = Console()
    with (
        leaving_on_signals() as leave,
        SweepView(sweep, console if console.is_terminal and not as_json else None, say) as view,
    ):

        def notify(event: "SweepEvent") -> None:
            if not as_json:
                view(event)
            elif not isinstance(event, RunsUnderWay):
                say(json.dumps({"event": type(event).__name__, **asdict(event)}))

        failed = run_sweep(sweep, engine, notify, leave=leave)
    return failed, leave.is_set() or (sweep.folder / STOP).exists()


def _compare(
    sweep: "Sweep", failed: dict[str, str], csv: Path | None, latex: Path | None, plot: Path | None, as_json: bool
) -> None:
    from ramify.run.folder import read_summary
    from ramify.show.groups import groups_of
    from ramify.show.report.write import report
    from ramify.show.terminal.grouptable import group_table, groups_json, table_sentence, write_tables

    there = [sweep.run(config) for config in sweep.configs if config.name not in failed]
    folders = [folder for folder in there if read_summary(folder) is not None]
    if not folders:
        return
    groups = groups_of(folders)
    written = [*write_tables(groups, csv, latex, plot), report(folders, out=sweep.folder / "comparison.html")]
    if as_json:
        say(
            json.dumps({"event": "Compared", "groups": groups_json(groups), "written": [str(path) for path in written]})
        )
        return
    show(group_table(groups))
    say(table_sentence(groups))
    for path in written:
        say(f"written: {path}")
