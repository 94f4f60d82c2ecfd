"""``ramify info``: read saved networks back."""

from dataclasses import asdict
from typing import Annotated

import typer

from ramify.cli.common import RUNS_DIR, AsJson, Csv, Latex, Plot, RunsDir, say, say_json, show


def info(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME", help="Names of runs, or paths of their folders or of model folders.")
    ],
    csv: Csv = None,
    latex: Latex = None,
    plot: Plot = None,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Load saved networks and show what they are; several become a table, grouped by what was varied.

    Examples:

    - `ramify info digits-iterative`
    - `ramify info runs/demo-seed*`
    - `ramify info sweeps/mine/runs/* --latex table.tex --plot figure.pdf`
    """
    from ramify.run.folder import is_run
    from ramify.run.readback import describe
    from ramify.run.saved import find_saved, read_saved
    from ramify.show.groups import groups_of
    from ramify.show.terminal.grouptable import group_table, table_sentence, write_tables
    from ramify.show.terminal.tables import comparison_table, cut_sentence, policy_table, run_table

    runs = [find_saved(name, runs_dir or RUNS_DIR) for name in names]
    summaries = [describe(run) for run in runs]
    policies = [read_saved(run)[1].policy for run in runs]
    groups = groups_of([run for run in runs if is_run(run)])
    written = write_tables(groups, csv, latex, plot)
    if as_json:
        say_json(
            [
                {**asdict(summary), "policy": policy and asdict(policy)}
                for summary, policy in zip(summaries, policies, strict=True)
            ]
        )
    elif len(summaries) == 1:
        if policies[0] is not None:
            say("calibrated exit policy")
            show(policy_table(policies[0]))
            if (line := cut_sentence(policies[0], runs[0].name)) is not None:
                say(line)
            say("")
        show(run_table(summaries[0]))
    else:
        show(comparison_table(summaries))
        if len(groups) > 1:
            show(group_table(groups))
            say(table_sentence(groups))
    for path in () if as_json else written:
        say(f"written: {path}")
