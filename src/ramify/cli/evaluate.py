"""``ramify evaluate``: measure a saved network again, and what its exits do."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ramify.cli.common import RUNS_DIR, AsJson, RunsDir, SavedName, download_lines, say, say_json, show


def evaluate(
    name: SavedName,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="`data.*`, `train.device` or `train.precision`.")
    ] = None,
    trigger: Annotated[bool, typer.Option("--trigger", help="Stamp every picture with the square.")] = False,
    only_new: Annotated[bool, typer.Option("--only_new", help="Only pictures that the run has never seen.")] = False,
    confusion: Annotated[
        str | None, typer.Option(metavar="EXIT", help="Print the confusion matrix of an exit (1, 2, ...) or `policy`.")
    ] = None,
    mistakes: Annotated[int, typer.Option(min=0, max=50, metavar="N", help="Name so many of the surest mistakes.")] = 5,
    csv: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the matrices and the mistakes as CSV files.")
    ] = None,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Measure a saved network on its test pictures, or on all labeled pictures of another source.

    Says the accuracy of each exit and of the calibrated policy, how each class does, what answering early would save,
    and where thinking on is wasted or does harm. The test pictures of a run stay the same ones when its folder grows.

    Examples:

    - `ramify evaluate digits-iterative`
    - `ramify evaluate photos-dense --confusion policy --csv figures/`
    - `ramify evaluate photos-dense --only_new`
    - `ramify evaluate photos-dense data.source=more_photos/`
    """
    from ramify.run.readback import remeasure
    from ramify.run.saved import find_saved
    from ramify.show.terminal.analysis import analysis_tables
    from ramify.show.terminal.classes import chosen_results, class_tables, matrix_table, write_csv
    from ramify.show.terminal.tables import exit_table, obeyed_line, outcome_line, ranking_table

    run = find_saved(name, runs_dir or RUNS_DIR)
    progress = None if as_json else download_lines(say)
    measured = remeasure(run, overrides or (), trigger=trigger, only_new=only_new, progress=progress)
    chosen = chosen_results(measured.results, confusion)
    if csv is not None:
        write_csv(csv, measured.results)
    if as_json:
        say_json({"name": run.name, **asdict(measured)})
        return
    stamped = "stamped " if trigger else ""
    say(f"{run.name} on {measured.pictures:,} {stamped}{measured.part} of {measured.source}")
    for note in measured.notes:
        say(f"note: {note}")
    say(outcome_line(measured))
    if measured.ranking is not None:
        show(ranking_table(measured.ranking))
    show(exit_table(measured.exits))
    say("")
    show(analysis_tables(measured.analysis))
    say("")
    show(class_tables(chosen, mistakes))
    if confusion is not None:
        say("")
        show(matrix_table(chosen))
    say("")
    if measured.obeyed is not None:
        say(obeyed_line(measured.obeyed))
