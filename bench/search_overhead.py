"""What the coordinator costs: trials that take no time, against plain Optuna with processes of its own.

    python bench/search_overhead.py
    python bench/search_overhead.py --trials 1000 --workers 1 2 8 --samplers random tpe

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
import time
from pathlib import Path

import optuna

from ramify.search.coordinator import coordinate
from ramify.search.engine import open_engine
from ramify.search.sampling import STARTUP
from ramify.search.space import parse_space
from ramify.search.study import start_search
from ramify.search.task import Outcome, TrialStep

RESULTS = Path(__file__).parent / "results" / "search_overhead.json"


def trivial(step: TrialStep) -> Outcome:
    """What a trial comes to without any training."""
    rate, channels = step.config.train.learning_rate, step.config.network.widths[0]
    return Outcome({"accuracy": 1 - rate / channels, "weights": float(channels)})


def objective(trial: optuna.Trial) -> tuple[float, float]:
    """The same for plain Optuna."""
    rate = trial.suggest_float("train.learning_rate", 0.01, 0.1, log=True)
    channels = int(trial.suggest_categorical("network.channels", ["2", "3", "4", "6", "8"]))
    return 1 - rate / channels, float(channels)


def ramify(folder: Path, sampler: str, workers: int, trials: int) -> tuple[float, float]:
    """Seconds, and of them the share in which the coordinator computes."""
    space = parse_space(
        "base: {network.structure: [1], train.device: cpu}\n"
        "vary: {train.learning_rate: {log: [0.01, 0.1]}, network.channels: {choice: [2, 3, 4, 6, 8]}}\n"
        f"objectives: [accuracy, weights]\nepochs: 2\nrungs: [2]\ninherit: false\nsampler: {sampler}"
    )
    search = start_search("overhead", space, trials, searches_dir=folder)
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
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
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
