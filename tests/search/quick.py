"""A search whose trials take no time, and processes that are killed inside their file operations."""

import hashlib
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path
from typing import ParamSpec, TypeVar

from ramify.search.coordinator import coordinate
from ramify.search.engine import TaskEngine
from ramify.search.space import Space, parse_space
from ramify.search.study import Search, start_search
from ramify.search.task import TaskResult, TrialStep
from tests import killing
from tests.killing import die_at

WANTED = 4
P = ParamSpec("P")
T = TypeVar("T")


class Here(Executor):
    """One worker: this process."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


HERE = TaskEngine(Here(), lambda: 1, (BrokenExecutor,), "here")


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
    channels = float(step.config.network.widths[0])
    return TaskResult({"accuracy": drawn / 2**32, "weights": channels, "macs": channels})


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
