"""``ramify export``: a network as files that answer without ramify, or as a model folder."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from ramify.cli.common import RUNS_DIR, AsJson, RunsDir, SavedName, Threshold, download_lines, say, say_json, show, warn
from ramify.errors import InputError


def export(
    name: SavedName,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="`data.*`, where the pictures lie elsewhere now.")
    ] = None,
    to: Annotated[
        str,
        typer.Option(
            metavar="onnx|torch|hub", help="onnx: graphs; torch: programs of torch.export; hub: a model folder."
        ),
    ] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="The folder to write [default: onnx, onnx-int8, torch or hub in the run's]")
    ] = None,
    quantize: Annotated[Literal["int8"] | None, typer.Option(help="With onnx: weights and activations.")] = None,
    threshold: Threshold = None,
    license: Annotated[str | None, typer.Option(help="With hub: such as mit or cc-by-4.0.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="With hub: time each exit here, for the card.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export that is there.")] = False,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Write a trained network as files for elsewhere; each is run on test pictures and compared before it is kept.

    `--to onnx` writes three shapes: all exits in one graph, one graph that stops early, and one graph for each stage,
    with the exit policy in their metadata. `ramify predict`, `ramify serve` and `ramify.Runtime` read the folder.

    Examples:

    - `ramify export photos-dense`
    - `ramify export photos-dense --quantize int8`
    - `ramify export photos-dense --to torch --out programs`
    - `ramify export photos-dense --to hub --license mit --measure`
    """
    hub = to == "hub"
    misplaced = {
        "--quantize": quantize is not None and to != "onnx",
        "--threshold": threshold is not None and hub,
        "KEY=VALUE": bool(overrides) and hub,
        "--license": license is not None and not hub,
        "--measure": measure and not hub,
    }
    if any(misplaced.values()):
        options = [option for option, wrong in misplaced.items() if wrong]
        raise InputError(*(f"export: got {option} with --to {to}, where it says nothing" for option in options))
    from ramify.exporting.hub import write_hub
    from ramify.exporting.table import export_table, losses
    from ramify.exporting.write import export
    from ramify.run.saved import find_saved

    run = find_saved(name, runs_dir or RUNS_DIR)
    if hub:
        folder = write_hub(run, out, overwrite=overwrite, license=license, measure=measure)
        if as_json:
            say_json({"name": run.name, "folder": str(folder)})
        else:
            say(f"written to {folder}; read it back with: ramify.load({str(folder)!r})")
        return
    exported = export(
        run,
        out,
        to=to,
        quantize=quantize,
        threshold=threshold,
        overwrite=overwrite,
        overrides=overrides or (),
        progress=None if as_json else download_lines(say),
    )
    quantized = exported.card.quantization
    for line in losses(quantized) if quantized is not None else ():
        warn(f"warning: {line}")
    if as_json:
        say_json(asdict(exported))
        return
    show(export_table(exported))
    say(exported.card.policy.description)
    try_it = "" if to == "torch" else f"; try it with: ramify predict {exported.folder} PICTURE"
    say(f"written to {exported.folder}{try_it}")
