"""``ramify bench``: how fast each exit and the policy are, in every engine."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ramify.cli.common import RUNS_DIR, AsJson, ExportName, RunsDir, Threshold, say, say_json, show, warn


def bench(
    name: ExportName,
    batches: Annotated[str, typer.Option(metavar="LIST", help="Pictures at once.")] = "1,16,256",
    threads: Annotated[
        str | None, typer.Option(metavar="LIST", help="Processor threads [default: 1,2, or 1 where there is one core]")
    ] = None,
    rounds: Annotated[int, typer.Option(help="How often everybody has a turn.")] = 15,
    engines: Annotated[
        str | None, typer.Option(metavar="LIST", help="Of eager, plain, compiled, onnx, int8 [default: all]")
    ] = None,
    threshold: Threshold = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where bench.json and bench.png are kept [default: the run's folder]"),
    ] = None,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Time every exit and the policy: PyTorch eager, plain and compiled, ONNX Runtime in float32 and int8.

    All take turns in one process, and ratios are taken within a round, so that a busy machine harms them least. An
    engine whose packages are missing is left out, and the output says so.

    Examples:

    - `ramify bench digits-iterative`
    - `ramify bench photos-dense --engines eager,onnx --batches 1 --threads 1 --threshold 0.9`
    - `ramify bench runs/photos-dense/onnx --json`
    """
    from ramify.bench.files import home_of, keep_bench
    from ramify.bench.measure import benchmark
    from ramify.bench.table import bench_lines, bench_sentences, bench_tables, legend

    folder = runs_dir or RUNS_DIR
    timed = benchmark(
        name,
        folder,
        engines=None if engines is None else _words(engines),
        batches=_numbers("batches", batches),
        threads=None if threads is None else _numbers("threads", threads),
        rounds=rounds,
        threshold=threshold,
        progress=None if as_json else warn,
    )
    kept, no_plot = keep_bench(timed, out or home_of(name, folder))
    if as_json:
        say_json(asdict(timed))
    else:
        for line in [*bench_lines(timed), *legend(timed.engines)]:
            say(line)
        for table in bench_tables(timed):
            say("")
            show(table)
        say("")
        for line in bench_sentences(timed):
            say(line)
        say(f"kept: {', '.join(map(str, kept))}")
    for line in [*timed.warnings, *no_plot]:
        warn(f"note: {line}")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(option: str, text: str) -> list[int]:
    from ramify.errors import InputError

    try:
        return [int(word) for word in _words(text)]
    except ValueError:
        raise InputError(f"{option}: got {text!r}; accepted: whole numbers >= 1 with commas between, as 1,16") from None
