"""A search whose trials take no time, and processes that are killed inside their file operations."""

import hashlib
from pathlib import Path

from ramify.search.coordinator import coordinate
from ramify.search.space import Space, parse_space
from ramify.search.study import Search, start_search
from ramify.search.task import TaskResult, TrialStep
from tests import killing
from tests.killing import die_at
from tests.search.test_search import HERE

WANTED = 4


def quick_space() -> Space:
    return parse_space(
        "base: {network.structure: [1]}\n"
        "vary: {train.learning_rate: {log: [0.01, 0.1]}, network.channels: {choice: [2, 3, 4]}}\n"
        "objectives: [accuracy, weights]\nepochs: 4\nrungs: [2, 4]\neta: 2\ninherit: false"
    )


def quick_step(step: TrialStep) -> TaskResult:
    """What a trial would come to, from its configuration alone."""
    text = step.config.model_dump_json(exclude={"name", "runs_dir"})
    drawn = int(hashlib.sha256(f"{text}{step.rung}".encode()).hexdigest()[:8], 16)
    return TaskResult({"accuracy": drawn / 2**32, "weights": float(step.config.network.widths[0])})


def finish(folder: Path, wanted: int | None = WANTED) -> Search:
    """Start the search, or go on with it, until it is done."""
    search = start_search("quick", quick_space(), wanted, searches_dir=folder)
    try:
        coordinate(search, HERE, step=quick_step)
    finally:
        search.close()
    return search


def record(search: Search) -> list[object]:
    return [(trial.number, trial.params, trial.results, trial.finished, trial.failed) for trial in search.trials()]


def dying(folder: Path, count: int, half: bool) -> None:
    """Start the search and die at its ``count``-th file operation, in the middle of a line if ``half``."""
    die_at(folder, count, b'{"op_code":4,"worker_i' if half else b"")
    finish(folder)


def killed(folder: Path, count: int, half: bool) -> bool:
    """Whether a process that works on the search was killed before it was done."""
    return killing.killed(dying, folder, count, half)
