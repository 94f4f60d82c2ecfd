"""The command line as a whole."""

from typing import Annotated

import typer

from ramify.cli.bench import bench
from ramify.cli.calibrate import calibrate
from ramify.cli.config import config
from ramify.cli.convert import convert
from ramify.cli.data import data
from ramify.cli.evaluate import evaluate
from ramify.cli.export import export
from ramify.cli.info import info
from ramify.cli.predict import predict
from ramify.cli.prune import prune
from ramify.cli.report import report
from ramify.cli.search import app as search
from ramify.cli.serve import serve
from ramify.cli.sweep import sweep
from ramify.cli.train import train
from ramify.version import __version__

app = typer.Typer(
    name="ramify",
    help="Image classifiers that grow while they train: small, fast, and honest about it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(shown: bool) -> None:
    if shown:
        typer.echo(f"ramify {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for verb in (
    train,
    sweep,
    info,
    evaluate,
    calibrate,
    prune,
    convert,
    report,
    export,
    predict,
    serve,
    bench,
    data,
    config,
):
    app.command()(verb)
app.add_typer(search)
