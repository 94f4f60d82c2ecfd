"""``ramify convert``: exits into a trained network or out of it, or more cells behind it."""

from typing import Annotated, Literal

import typer

from ramify.cli.common import RUNS_DIR, AsJson, Overwrite, Quiet, RunName, RunsDir
from ramify.cli.train import run_one, training_of
from ramify.errors import ConfigError


def convert(
    name: RunName,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="`network.*`, `train.*` and others.")
    ] = None,
    to: Annotated[
        Literal["sdn", "cnn", "extend"] | None,
        typer.Option(help="sdn: put exits in; cnn: take them out; extend: a deeper network that begins as this one."),
    ] = None,
    cut: Annotated[int | None, typer.Option(metavar="K", help="Keep the network up to exit K.")] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Give a trained network exits, take them away, or let it begin a deeper one; the new run names its parent.

    With `--to sdn` only the new exits train, and the rest stays as it is, bit for bit: 25 epochs of Adam at 0.001,
    a tenth of it from epoch 15. `network.structure` or `network.exits_at` say where they stand. With `--to extend`
    the network of `network.structure` takes over what it shares with the trained one, weights, batch norm and
    optimizer, and trains on.

    Examples:

    - `ramify convert digits-full --to sdn network.exits_at=[0.3,0.6]`
    - `ramify convert digits-iterative --to cnn`
    - `ramify convert digits-iterative --cut 2`
    - `ramify convert digits-iterative --to extend network.structure=[1,0,1,0,1,0,0,0]`
    """
    if (to is None) == (cut is None):
        raise ConfigError("convert: got " + ("neither" if to is None else "both") + "; accepted: --to or --cut")
    from ramify.run.derive import converted_config
    from ramify.run.saved import find_run

    parent = find_run(name, runs_dir or RUNS_DIR)
    config = converted_config(parent, to if to is not None else cut or 0, overrides or ())
    run_one(training_of(config, overwrite), quiet, as_json)
