"""``ramify prune``: prune a saved network, train it on a little, and keep it as a run of its own."""

from typing import Annotated

import typer

from ramify.cli.common import RUNS_DIR, AsJson, RunsDir
from ramify.cli.train import run_one


def prune(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a run, or path of its folder.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="`prune.*`, `train.*` and others.")
    ] = None,
    compact: Annotated[
        bool, typer.Option("--compact", help="Take dead channels out at the end; alone, do only that.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run of the same name.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the final table.")] = False,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Prune a saved network, fine-tune it, and keep it as a new run that names its parent.

    What is not said is taken from the parent, but `prune.*` starts from its defaults: the whole network is pruned
    once, to half of its weights. 5 epochs follow, at half the parent's learning rate.

    Examples:

    - `ramify prune digits-dense prune.keep_ratio=0.3`
    - `ramify prune digits-dense prune.criterion=synflow prune.rounds=100 train.epochs=10 name=lean`
    - `ramify prune digits-dense prune.unit=channel --compact`
    - `ramify prune lean --compact`
    """
    from ramify.run.derive import child_config
    from ramify.run.saved import find_run
    from ramify.training.run import train

    config = child_config(find_run(name, runs_dir or RUNS_DIR), overrides or (), compact)
    run_one(
        lambda observers, progress: train(config, observers, overwrite=overwrite, progress=progress), quiet, as_json
    )
