"""Arguments that several commands share, and how commands print."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, RenderableType

from ramify.config.presets import presets
from ramify.data.names import printable
from ramify.errors import ConfigError, nearest
from ramify.files import is_file
from ramify.shortage import usable_threads, usable_workers

if TYPE_CHECKING:
    from ramify.data.fetch import Progress

Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="PRESET|FILE.yaml|KEY=VALUE", help="Presets, configuration files and overrides."),
]
RunName = Annotated[str, typer.Argument(metavar="NAME", help="Name of a run, or path of its folder.")]
SavedName = Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="A run, or the folder of a saved network.")]
ExportName = Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="A run, or a folder of `ramify export`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for programs.")]
RunsDir = Annotated[
    Path | None, typer.Option("--runs_dir", help="Where the folders of the runs are kept [default: runs]")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a run of the same name.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only the final table.")]
Threshold = Annotated[
    float | None, typer.Option(help="Leave where the confidence reaches it, in place of the calibrated thresholds.")
]
Threads = Annotated[int | None, typer.Option(help="Processor threads [default: as many as there are]")]
Workers = Annotated[int, typer.Option(min=1, metavar="K", help="Processes here, or jobs of a batch system.")]
Csv = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table of groups as CSV.")]
Latex = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table of groups as LaTeX (booktabs).")]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the groups: SVG, PDF or PNG.")]
RUNS_DIR = Path("runs")
_MANY = 5_000
"""Pictures whose decoding takes long enough to be shown."""


def split_given(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments in two lists: names and paths, and ``key=value`` overrides."""
    named = [text for text in arguments if "=" not in text or is_file(Path(text))]
    return named, [text for text in arguments if text not in named]


def sort_given(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The arguments in two lists: YAML files, those of presets among them, and ``key=value`` overrides.

    Raises:
        ConfigError: one is a folder, or neither a file nor the name of a preset.
    """
    named, overrides = split_given(arguments)
    known = presets()
    files = [path if is_file(path := Path(text)) else known.get(text, path) for text in named]
    problems = [_no_preset(path, known) for path in files if not is_file(path)]
    if problems:
        raise ConfigError(*problems)
    return files, overrides


def _no_preset(path: Path, known: Iterable[str]) -> str:
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where a name is too long
        return (
            f"got the folder {path}; accepted: a preset or a YAML file, and key=value; to train on the pictures in it, "
            f"type: ramify train photos data.source={path}"
        )
    hint = nearest(path.stem, known) or " (see: ramify config --presets)"
    return f"{path}: got a file that does not exist; accepted: a YAML file, key=value, or a preset{hint}"


def first_process() -> bool:
    """Whether this process prints, of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def threads_here(threads: int | None) -> int | None:
    """``threads``, or as many as the machine has processors, with a note."""
    return None if threads is None else _noted(*usable_threads(threads))


def workers_here(workers: int, on: str | None) -> int:
    """``workers``, or as many as are of use on this machine, with a note; elsewhere all of them."""
    return _noted(*usable_workers(workers)) if on is None else workers


def _noted(number: int, note: str | None) -> int:
    if note is not None:
        warn(f"note: {note}")
    return number


def say(line: str) -> None:
    """Print a line, flushed, without control characters of terminals."""
    print("\n".join(map(printable, line.split("\n"))), flush=True)  # noqa: T201 - the command line speaks through print


def warn(line: str) -> None:
    """Print a line on standard error."""
    typer.echo(printable(line), err=True)


def say_json(record: object) -> None:
    """Print a JSON document."""
    say(json.dumps(record, indent=2))


def show(item: RenderableType) -> None:
    """Print a table or text, 160 columns wide where no terminal limits it."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(item)


def download_lines(write: Callable[[str], None]) -> "Progress":
    """Progress of downloads, and of the decoding of many pictures, as lines, one for each tenth."""
    written: dict[str, int] = {}

    def observe(name: str, done: int, total: int | None, unit: str = "bytes") -> None:
        tenth = 10 * done // total if total else done // 10_000_000
        if written.get(name) == tenth or (unit == "pictures" and (total or 0) < _MANY):
            return
        written[name] = tenth
        if unit == "pictures":
            write(f"decoding {printable(name)}: {done:,} of {total or 0:,} pictures")
        else:
            of = f" of {total / 1e6:.1f}" if total else ""
            write(f"fetching {name}: {done / 1e6:.1f}{of} MB")

    return observe
