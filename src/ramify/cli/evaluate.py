"""``ramify evaluate``: measure a saved network again."""

from dataclasses import asdict
from typing import Annotated

import typer

from ramify.cli.common import RUNS_DIR, AsJson, RunsDir, download_lines, say, say_json, show


def evaluate(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a run, or path of its folder.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="`data.*`, `train.device` or `train.precision`.")
    ] = None,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Measure a saved network on the test pictures of its source, or of another one.

    Examples:

    - `ramify evaluate digits-iterative`
    - `ramify evaluate photos-dense data.source=more_photos/`
    """
    from ramify.run.folder import find_run
    from ramify.run.readback import remeasure
    from ramify.show.tables import exit_table

    run = find_run(name, runs_dir or RUNS_DIR)
    progress = None if as_json else download_lines(say)
    config, count, exits = remeasure(run, overrides or (), progress=progress)
    if as_json:
        say_json(
            {
                "name": run.name,
                "source": config.data.source,
                "pictures": count,
                "exits": [asdict(each) for each in exits],
            }
        )
        return
    say(f"{run.name} on {count:,} test pictures of {config.data.source}")
    show(exit_table(exits))
