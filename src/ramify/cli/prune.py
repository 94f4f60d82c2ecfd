"""``ramify prune``: prune a saved network, fine-tune it, and keep it as a run of its own."""

from typing import Annotated

import typer

from ramify.cli.common import RUNS_DIR, AsJson, Overwrite, Quiet, RunName, RunsDir
from ramify.cli.train import run_one, training_of


def prune(
    name: RunName,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="`prune.*`, `train.*` and others.")
    ] = None,
    compact: Annotated[
        bool, typer.Option("--compact", help="Take dead channels out at the end; alone, do only that.")
    ] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Prune a saved network, fine-tune it, and keep it as a new run that names its parent.

    Other keys are those of the parent, but `prune.*` starts from its defaults: the whole network is pruned
    once, to half of its weights. 5 epochs follow, at half the parent's learning rate.

    Examples:

    - `ramify prune digits-dense prune.keep_ratio=0.3`
    - `ramify prune digits-dense prune.criterion=synflow prune.rounds=100 train.epochs=10 name=lean`
    - `ramify prune digits-dense prune.unit=channel --compact`
    - `ramify prune lean --compact`
    """
    from ramify.run.derive import child_config
    from ramify.run.saved import find_run

    config = child_config(find_run(name, runs_dir or RUNS_DIR), overrides or (), compact)
    run_one(training_of(config, overwrite), quiet, as_json)
