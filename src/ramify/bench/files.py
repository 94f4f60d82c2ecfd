"""The files of a bench: ``bench.json`` with every figure, and ``bench.png``."""

import json
from dataclasses import asdict
from pathlib import Path

from ramify.answer.card import is_exported
from ramify.bench.measure import Bench
from ramify.bench.plot import draw_bench
from ramify.errors import InputError
from ramify.files import write_atomic
from ramify.run.checkpoint import HUB_CONFIG
from ramify.run.saved import run_behind

RESULT, PICTURE = "bench.json", "bench.png"


def keep_bench(bench: Bench, folder: Path) -> tuple[list[Path], list[str]]:
    """Write :data:`RESULT` and :data:`PICTURE` to ``folder``; returns the files, and problems with the picture.

    Raises:
        RunError: the folder cannot be written.
    """
    text = json.dumps(asdict(bench), indent=2, allow_nan=False) + "\n"
    write_atomic(folder / RESULT, text.encode())
    try:
        write_atomic(folder / PICTURE, draw_bench(bench))
    except InputError as error:  # matplotlib is missing
        # An older picture would show other figures.
        (folder / PICTURE).unlink(missing_ok=True)
        return [folder / RESULT], list(error.problems)
    return [folder / RESULT, folder / PICTURE], []


def home_of(name_or_folder: str | Path, runs_dir: str | Path = "runs") -> Path:
    """The folder for the results of a network: of its run, or the exported or model folder itself."""
    folder = Path(name_or_folder)
    if is_exported(folder) or (folder / HUB_CONFIG).exists():
        return folder
    # Saving a checkpoint replaces its whole folder, so nothing is added to it.
    return run_behind(str(name_or_folder), runs_dir) or folder
