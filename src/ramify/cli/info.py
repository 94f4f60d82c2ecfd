"""``ramify info``: read saved networks back."""

from dataclasses import asdict
from typing import Annotated

import typer

from ramify.cli.common import RUNS_DIR, AsJson, RunsDir, say, say_json, show


def info(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME", help="Names of runs, or paths of their folders or of model folders.")
    ],
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Load saved networks and tell what they are; several become a table with means.

    Examples:

    - `ramify info digits-iterative`
    - `ramify info runs/demo-seed*`
    """
    from ramify.run.readback import describe
    from ramify.run.saved import find_saved, read_saved
    from ramify.show.tables import comparison_table, policy_table, run_table

    runs = [find_saved(name, runs_dir or RUNS_DIR) for name in names]
    summaries = [describe(run) for run in runs]
    policies = [read_saved(run)[1].policy for run in runs]
    if as_json:
        say_json(
            [
                {**asdict(summary), "policy": policy and asdict(policy)}
                for summary, policy in zip(summaries, policies, strict=True)
            ]
        )
    elif len(summaries) == 1:
        show(run_table(summaries[0]))
        if policies[0] is not None:
            say("\ncalibrated exit policy")
            show(policy_table(policies[0]))
    else:
        show(comparison_table(summaries))
