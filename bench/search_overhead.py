"""What the coordinator costs: trials that take no time, against plain Optuna with processes of its own.

    python bench/search_overhead.py
    python bench/search_overhead.py --trials 1000 --workers 1 2 8 --samplers random tpe
    python bench/search_overhead.py --many 1000

Both draw with the same sampler from two parameters, write the same journal file, and run in turn, each with so many
workers. With plain Optuna every process asks, computes and writes for itself; with ramify the coordinator does, and
reads and checks a whole configuration for each trial. The share of the coordinator is its processor time over the
wall time. Written to ``bench/results/search_overhead.json``, too.
"""

import argparse
import json
import multiprocessing
import platform
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path
from typing import ParamSpec, TypeVar

import optuna

from ramify.search.coordinator import TrialEnded, WorkEvent, coordinate
from ramify.search.engine import TaskEngine, open_engine
from ramify.search.samplers import STARTUP
from ramify.search.space import Space, parse_space
from ramify.search.study import start_search
from ramify.search.task import TaskResult, TrialStep

P = ParamSpec("P")
T = TypeVar("T")
RESULTS = Path(__file__).parent / "results" / "search_overhead.json"


def trivial(step: TrialStep) -> TaskResult:
    """What a trial comes to without any training."""
    rate, channels = step.config.train.learning_rate, step.config.network.widths[0]
    return TaskResult({"accuracy": 1 - rate / channels, "weights": float(channels)})


def objective(trial: optuna.Trial) -> tuple[float, float]:
    """The same for plain Optuna."""
    rate = trial.suggest_float("train.learning_rate", 0.01, 0.1, log=True)
    channels = int(trial.suggest_categorical("network.channels", ["2", "3", "4", "6", "8"]))
    return 1 - rate / channels, float(channels)


def space_of(sampler: str) -> Space:
    """Two parameters, no halving."""
    return parse_space(
        "base: {network.structure: [1], train.device: cpu}\n"
        "vary: {train.learning_rate: {log: [0.01, 0.1]}, network.channels: {choice: [2, 3, 4, 6, 8]}}\n"
        f"objectives: [accuracy, weights]\nepochs: 2\nrungs: [2]\ninherit: false\nsampler: {sampler}"
    )


def ramify(folder: Path, sampler: str, workers: int, trials: int) -> tuple[float, float]:
    """Seconds, and of them the share in which the coordinator computes."""
    search = start_search("overhead", space_of(sampler), trials, searches_dir=folder)
    with open_engine(None, workers, gpus=False) as engine:
        for _ in range(workers):  # the processes are there before the clock starts
            engine.executor.submit(time.sleep, 2)
        time.sleep(10)
        began, used = time.perf_counter(), time.process_time()
        coordinate(search, engine, step=trivial)
        seconds, used = time.perf_counter() - began, time.process_time() - used
    assert sum(trial.finished for trial in search.trials()) == trials
    search.close()
    return seconds, used / seconds


class Many(Executor):
    """So many workers that do nothing: a task ends when all are busy, the oldest first."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.waiting: deque[Callable[[], None]] = deque()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        self.waiting.append(lambda: future.set_result(fn(*args, **kwargs)))
        if len(self.waiting) >= self.workers:
            self.waiting.popleft()()
        return future


def many(folder: Path, sampler: str, workers: int, trials: int) -> float:
    """Processor milliseconds of the coordinator for each trial, while ``workers`` trials are under way."""
    search = start_search("many", space_of(sampler), trials + workers, searches_dir=folder)
    leave, executor = threading.Event(), Many(workers)
    ended, used = 0, 0.0

    def notify(event: WorkEvent) -> None:
        nonlocal ended, used
        ended += isinstance(event, TrialEnded)
        if ended == 1:
            used = time.process_time()
        if ended == trials:
            leave.set()

    engine = TaskEngine(executor, lambda: workers, (BrokenExecutor,), "nowhere")
    coordinate(search, engine, notify, leave=leave, step=trivial)
    used = time.process_time() - used
    search.close()
    return 1000 * used / trials


def sampler_of(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """As ramify has it."""
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=STARTUP, multivariate=True, group=True, constant_liar=True
    )


def work(path: str, sampler: str, seed: int, trials: int, ready: "multiprocessing.Barrier") -> None:  # type: ignore[valid-type]
    """One process of plain Optuna."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    backend = optuna.storages.journal.JournalFileBackend(path)
    study = optuna.load_study(
        study_name="plain", storage=optuna.storages.JournalStorage(backend), sampler=sampler_of(sampler, seed)
    )
    ready.wait()  # type: ignore[attr-defined]
    states = (optuna.trial.TrialState.COMPLETE,)
    study.optimize(objective, callbacks=[optuna.study.MaxTrialsCallback(trials, states=states)])


def plain(folder: Path, sampler: str, workers: int, trials: int) -> tuple[float, int]:
    """Seconds, and how many trials there are."""
    path = str(folder / "journal.log")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(path))
    study = optuna.create_study(study_name="plain", storage=storage, directions=["maximize", "minimize"])
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(workers + 1)
    processes = [context.Process(target=work, args=(path, sampler, i, trials, ready)) for i in range(workers)]
    for process in processes:
        process.start()
    ready.wait()
    began = time.perf_counter()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - began
    done = sum(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False))
    return seconds, done


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 8])
    parser.add_argument("--samplers", nargs="*", default=["random", "tpe"])
    parser.add_argument("--many", type=int, help="only measure the coordinator, with so many workers that do nothing")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if given.many:
        for sampler in given.samplers:
            with tempfile.TemporaryDirectory() as one:
                spent = many(Path(one), sampler, given.many, given.trials)
            print(
                f"{sampler:6} {given.many} workers at once: the coordinator computes {spent:.1f} ms a trial", flush=True
            )
        return
    rows: list[dict[str, object]] = []
    print(
        f"{given.trials} trials, optuna {optuna.__version__}, {platform.machine()}, python {platform.python_version()}"
    )
    for sampler in given.samplers:
        for workers in given.workers:
            with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
                alone, done = plain(Path(one), sampler, workers, given.trials)
                ours, share = ramify(Path(other), sampler, workers, given.trials)
            row = {
                "sampler": sampler,
                "workers": workers,
                "optuna": done / alone,
                "optuna_trials": done,
                "ramify": given.trials / ours,
                "coordinator_share": share,
                "coordinator_ms": 1000 * share * ours / given.trials,
            }
            rows.append(row)
            print(
                f"{sampler:6} {workers} workers: ramify {row['ramify']:6.1f} trials/s (coordinator {share:.0%}, "
                f"{row['coordinator_ms']:.1f} ms a trial), optuna {row['optuna']:6.1f} trials/s ({done} trials)",
                flush=True,
            )
            RESULTS.write_text(json.dumps({"trials": given.trials, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
