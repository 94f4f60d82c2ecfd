"""What the search coordinator costs: trials that take no time, against plain Optuna with processes of its own.

    python bench/search_overhead.py
    python bench/search_overhead.py --trials 1000 --workers 1 2 8 --samplers random tpe
    python bench/search_overhead.py --many 1000

Both draw two parameters with the same sampler, write a journal file, and run in turn with the same number of workers.
In plain Optuna every process asks, computes and writes for itself; in ramify the coordinator does, and checks a
complete configuration for each trial. The share of the coordinator is its processor time over the wall time. ``--many``
only measures the coordinator, with so many idle workers. Written to ``bench/results/search_overhead.json``.
"""

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
from common import RESULTS, new_parser, write_json

from ramify.search.coordinator import TrialEnded, WorkEvent, coordinate
from ramify.search.engine import TaskEngine, open_engine
from ramify.search.samplers import SEARCH_SAMPLERS
from ramify.search.space import Space, parse_space
from ramify.search.study import start_search
from ramify.search.task import TaskResult, TrialStep

P = ParamSpec("P")
T = TypeVar("T")


def trivial(step: TrialStep) -> TaskResult:
    """A result without any training."""
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
    """Seconds, and the share of them in which the coordinator computes."""
    search = start_search("overhead", space_of(sampler), trials, searches_dir=folder)
    with open_engine(None, workers, gpus=False) as engine:
        for _ in range(workers):  # starts the processes before the clock
            engine.executor.submit(time.sleep, 2)
        time.sleep(10)
        start, start_cpu = time.perf_counter(), time.process_time()
        coordinate(search, engine, step=trivial)
        seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    assert sum(trial.finished for trial in search.trials()) == trials
    search.close()
    return seconds, cpu / seconds


class IdleExecutor(Executor):
    """Workers that do nothing: when all are busy, the oldest task ends."""

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
    """Processor milliseconds of the coordinator for each trial, with ``workers`` trials running."""
    search = start_search("many", space_of(sampler), trials + workers, searches_dir=folder)
    leave, executor = threading.Event(), IdleExecutor(workers)
    ended, start = 0, 0.0

    def notify(event: WorkEvent) -> None:
        nonlocal ended, start
        ended += isinstance(event, TrialEnded)
        if ended == 1:
            start = time.process_time()
        if ended == trials:
            leave.set()

    engine = TaskEngine(executor, lambda: workers, (BrokenExecutor,), "nowhere")
    coordinate(search, engine, notify, leave=leave, step=trivial)
    seconds = time.process_time() - start
    search.close()
    return 1000 * seconds / trials


def work(path: str, sampler: str, seed: int, trials: int, ready: "multiprocessing.Barrier") -> None:  # type: ignore[valid-type]
    """One process of plain Optuna."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(path))
    study = optuna.load_study(study_name="plain", storage=storage, sampler=SEARCH_SAMPLERS[sampler](seed))
    ready.wait()  # type: ignore[attr-defined]
    states = (optuna.trial.TrialState.COMPLETE,)
    study.optimize(objective, callbacks=[optuna.study.MaxTrialsCallback(trials, states=states)])


def plain(folder: Path, sampler: str, workers: int, trials: int) -> tuple[float, int]:
    """Seconds, and the number of complete trials."""
    path = str(folder / "journal.log")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(path))
    study = optuna.create_study(study_name="plain", storage=storage, directions=["maximize", "minimize"])
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(workers + 1)
    processes = [context.Process(target=work, args=(path, sampler, i, trials, ready)) for i in range(workers)]
    for process in processes:
        process.start()
    ready.wait()
    start = time.perf_counter()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - start
    complete = sum(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False))
    return seconds, complete


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 8])
    parser.add_argument("--samplers", nargs="*", default=["random", "tpe"])
    parser.add_argument("--many", type=int, metavar="WORKERS")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if args.many:
        for sampler in args.samplers:
            with tempfile.TemporaryDirectory() as folder:
                ms = many(Path(folder), sampler, args.many, args.trials)
            print(f"{sampler:6} {args.many} workers: the coordinator computes {ms:.1f} ms a trial", flush=True)
        return
    rows: list[dict[str, object]] = []
    versions = f"optuna {optuna.__version__}, {platform.machine()}, python {platform.python_version()}"
    print(f"{args.trials} trials, {versions}")
    for sampler in args.samplers:
        for workers in args.workers:
            with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
                optuna_seconds, complete = plain(Path(first), sampler, workers, args.trials)
                seconds, share = ramify(Path(second), sampler, workers, args.trials)
            row = {
                "sampler": sampler,
                "workers": workers,
                "optuna": complete / optuna_seconds,
                "optuna_trials": complete,
                "ramify": args.trials / seconds,
                "coordinator_share": share,
                "coordinator_ms": 1000 * share * seconds / args.trials,
            }
            rows.append(row)
            print(
                f"{sampler:6} {workers} workers: ramify {row['ramify']:6.1f} trials/s (coordinator {share:.0%}, "
                f"{row['coordinator_ms']:.1f} ms a trial), optuna {row['optuna']:6.1f} trials/s ({complete} trials)",
                flush=True,
            )
            write_json(RESULTS / "search_overhead.json", {"trials": args.trials, "rows": rows})


if __name__ == "__main__":
    main()
