"""What the benchmarks share: the parser, a description of the machine, results as JSON, means and deviations."""

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import torch

import ramify
from ramify.files import write_atomic
from ramify.run.summary import ExitSummary

RESULTS = Path(__file__).parent / "results"
SIDE = 2048
Input = TypeVar("Input")


def new_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is ``doc``, the docstring of the script."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def machine(threads: int = 1) -> str:
    """The processor and the versions, in one line."""
    return (
        f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores, "
        f"{threads} thread{'s' if threads != 1 else ''}, python {platform.python_version()}, torch {torch.__version__}"
    )


def peak(dtype: torch.dtype = torch.float32) -> float:
    """Operations a second of a matrix product of :data:`SIDE` x :data:`SIDE`, the fastest of several."""
    first, second = torch.rand(2, SIDE, SIDE, dtype=dtype)
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        first @ second
        seconds.append(time.perf_counter() - start)
    return 2.0 * SIDE**3 / min(seconds[1:])


def command(archive: str | None = None) -> str:
    """The command line of this process, with ARCHIVE in place of the path ``archive``."""
    return shlex.join(["python", *("ARCHIVE" if word == archive else word for word in sys.argv)])


def write_json(path: Path, document: object) -> None:
    write_atomic(path, (json.dumps(document, indent=2) + "\n").encode())


def write_rows(name: str, rows: object, archive: str | None = None, **about: object) -> None:
    """Write ``rows`` to ``results/NAME.json``, with the command (see :func:`command`) and the machine."""
    write_json(RESULTS / f"{name}.json", {"command": command(archive), "machine": machine(), **about, "rows": rows})


def spread(values: Iterable[float], sign: str = "", digits: int = 2) -> str:
    """Mean ± standard deviation (n - 1), such as ``84.19 ± 0.19``; of a single value the value alone."""
    numbers = list(values)
    deviation = f" ± {statistics.stdev(numbers):.{digits}f}" if len(numbers) > 1 else ""
    return f"{statistics.fmean(numbers):{sign}.{digits}f}{deviation}"


def tested(exits: Sequence[ExitSummary]) -> tuple[float, ...]:
    """Test accuracy of each exit, in [0, 1], shallowest first."""
    return tuple(exit_.test.top1 for exit_ in exits if exit_.test is not None)


def int8_of(run: Path) -> tuple[tuple[float, ...], int]:
    """Test accuracy of each exit of ``run`` in int8, in [0, 1], and the bytes of the ONNX graph with all exits."""
    with tempfile.TemporaryDirectory() as folder:
        exported = ramify.export(run, Path(folder, "int8"), quantize="int8")
    assert exported.card.quantization is not None
    return exported.card.quantization.after, exported.files[0].bytes


def for_each(answer: Callable[[Input], object], inputs: Iterable[Input]) -> None:
    """Call ``answer`` with each input, as one call to be timed."""
    for value in inputs:
        answer(value)
