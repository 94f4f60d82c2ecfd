"""``ramify evaluate``: measure a saved network again, and what its exits do."""

from dataclasses import asdict
from typing import Annotated

import typer

from ramify.cli.common import RUNS_DIR, AsJson, RunsDir, download_lines, say, say_json, show


def evaluate(
    name: Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="A run, or the folder of a saved network.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="`data.*`, `train.device` or `train.precision`.")
    ] = None,
    trigger: Annotated[bool, typer.Option("--trigger", help="Stamp every picture with the square.")] = False,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Measure a saved network on the test pictures of its source, or of another one.

    Tells the accuracy of each exit and of the calibrated policy, what answering early would save, and where thinking on
    is wasted or does harm.

    Examples:

    - `ramify evaluate digits-iterative`
    - `ramify evaluate photos-dense data.source=more_photos/`
    """
    from ramify.run.readback import remeasure
    from ramify.run.saved import find_saved
    from ramify.show.analysis import analysis_tables
    from ramify.show.tables import exit_table, obeyed_line, outcome_line

    run = find_saved(name, runs_dir or RUNS_DIR)
    progress = None if as_json else download_lines(say)
    found = remeasure(run, overrides or (), trigger=trigger, progress=progress)
    if as_json:
        say_json({"name": run.name, **asdict(found)})
        return
    stamped = "stamped " if trigger else ""
    say(f"{run.name} on {found.pictures:,} {stamped}test pictures of {found.source}")
    show(exit_table(found.exits))
    say("")
    show(analysis_tables(found.analysis))
    say("")
    if found.obeyed is not None:
        say(obeyed_line(found.obeyed))
    say(outcome_line(found))
