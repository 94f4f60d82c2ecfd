"""``ramify sweep``: every combination of some values, with several seeds each."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ramify.cli.common import AsJson, Csv, Latex, Plot, Workers, say, say_json, show, sort_given, workers_here
from ramify.cli.search import EngineOptions, On
from ramify.errors import RunError

if TYPE_CHECKING:
    from ramify.search.engine import TaskEngine
    from ramify.search.sweep import Sweep, SweepEvent

SWEEPS = Path("sweeps")


def sweep(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE.yaml|KEY=[A, B]|KEY=A", help="A list is varied, any other value shared."),
    ] = None,
    repeats: Annotated[int | None, typer.Option(min=1, metavar="N", help="Seeds of each combination.")] = None,
    workers: Workers = 1,
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

    The same command again continues an interrupted sweep. Runs that fail stop no other, and are tried again.

    Examples:

    - `ramify sweep "prune.policy=[normal, iterative]" prune.enabled=true prune.epochs=[[10]] --repeats 3 --workers 2`
    - `ramify sweep sweep.yaml --latex table.tex --plot figure.pdf`
    - `ramify sweep sweep.yaml --on slurm --workers 16 --engine_options gpu.yaml`
    """
    from ramify.search.engine import open_engine
    from ramify.search.sweep import open_sweep, read_sweep

    files, overrides = sort_given(arguments or [])
    chosen = read_sweep(files, overrides, repeats=repeats, name=name, sweeps_dir=sweeps_dir or SWEEPS)
    if dry_run:
        runs = {str(config.name): f"{config.train.epochs} epochs, seed {config.seed}" for config in chosen.configs}
        if as_json:
            say_json({"name": chosen.name, "runs": list(runs)})
        else:
            say("\n".join(f"{run}: {plan}" for run, plan in runs.items()))
        return
    gpus = any(config.train.device != "cpu" for config in chosen.configs)
    with open_sweep(chosen), open_engine(on, workers_here(workers, on), engine_options, gpus=gpus) as engine:
        failed, left = _work(chosen, engine, as_json)
    if left:
        how = f"ramify sweep {chosen.folder / 'sweep.yaml'}"
        raise RunError(f"sweep {chosen.name}: stopped; go on with: {how}")
    _compare(chosen, failed, csv, latex, plot, as_json)
    if failed:
        reasons = [f"{run}: {why}" for run, why in failed.items()]
        many = f"{len(failed)} of {len(chosen.configs)} runs failed; the same command tries them again"
        raise RunError(*reasons, many)


def _work(sweep: "Sweep", engine: "TaskEngine", as_json: bool) -> tuple[dict[str, str], bool]:
    """Run it under a live view or with lines: the failures, and whether it was interrupted."""
    from rich.console import Console

    from ramify.search.coordinator import leaving_on_signals
    from ramify.search.study import STOP
    from ramify.search.sweep import RunsUnderWay, run_sweep
    from ramify.show.terminal.sweep import SweepView

    console = Console()
    view = SweepView(sweep, console if console.is_terminal and not as_json else None, say)
    with leaving_on_signals() as leave, view.live:

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

    folders = [sweep.run(config) for config in sweep.configs if config.name not in failed]
    folders = [folder for folder in folders if read_summary(folder) is not None]
    if not folders:
        return
    groups = groups_of(folders)
    written = [*write_tables(groups, csv, latex, plot), report(folders, out=sweep.folder / "comparison.html")]
    if as_json:
        record = {"event": "Compared", "groups": groups_json(groups), "written": list(map(str, written))}
        say(json.dumps(record))
        return
    show(group_table(groups))
    say(table_sentence(groups))
    for path in written:
        say(f"written: {path}")
