"""``ramify convert``: exits into a trained network, or out of it."""

from typing import Annotated, Literal

import typer

from ramify.cli.common import RUNS_DIR, AsJson, RunsDir
from ramify.cli.train import run_one
from ramify.errors import ConfigError


def convert(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a run, or path of its folder.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="`network.*`, `train.*` and others.")
    ] = None,
    to: Annotated[Literal["sdn", "cnn"] | None, typer.Option(help="sdn: put exits in; cnn: take them out.")] = None,
    cut: Annotated[int | None, typer.Option(metavar="K", help="Keep the network up to exit K.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run of the same name.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the final table.")] = False,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Give a trained network exits, or take them away, and keep the result as a new run that names its parent.

    With `--to sdn` only the new exits train, and the rest stays as it is, bit for bit: 25 epochs of Adam at 0.001,
    a tenth of it from epoch 15. `network.structure` or `network.exits_at` say where they stand.

    Examples:

    - `ramify convert digits-full --to sdn network.exits_at=[0.3,0.6]`
    - `ramify convert digits-iterative --to cnn`
    - `ramify convert digits-iterative --cut 2`
    """
    if (to is None) == (cut is None):
        raise ConfigError("convert: got " + ("neither" if to is None else "both") + "; accepted: --to or --cut")
    from ramify.run.folder import find_run
    from ramify.run.prepare import converted_config
    from ramify.run.train import train

    parent = find_run(name, runs_dir or RUNS_DIR)
    config = converted_config(parent, to if to is not None else cut or 0, overrides or ())
    run_one(
        lambda observers, progress: train(config, observers, overwrite=overwrite, progress=progress), quiet, as_json
    )
