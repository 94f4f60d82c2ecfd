"""Which sampler, and does halving pay? Hypervolume after equal training epochs, on the embedded digits.

    python bench/search.py
    python bench/search.py --epochs 720 --samplers random tpe --ways plain both

Each row is a sampler with or without successive halving and inheritance, with one worker. A search ends when it has
trained as many epochs as the others. Its hypervolume is the share of the rectangle of 100 to 300,000 weights
(logarithmic) and 50 to 100 % validation accuracy that its front dominates. Mean and sample standard deviation over the
repeats; a repeat has the same seed in every row, of the sampler alone. Written to ``bench/results/search.json``, too.
"""

import argparse
import contextlib
import json
import math
import platform
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import optuna
import torch

from ramify.search.coordinator import StepTaken, WorkEvent, coordinate
from ramify.search.engine import open_engine
from ramify.search.front import front_of
from ramify.search.space import read_space
from ramify.search.study import start_search
from ramify.search.trial import Trial

WEIGHTS, ACCURACY = (100.0, 300_000.0), 0.5
BASE = ["data.limit=600", "prune.epochs=[4]", "train.device=cpu", "train.threads=1"]
RESULTS = Path(__file__).parent / "results"
WAYS = {"plain": (False, False), "halving": (True, False), "inheritance": (False, True), "both": (True, True)}


class EnoughError(Exception):
    """The epochs are used up."""


def hypervolume(trials: Sequence[Trial]) -> float:
    """The share of the rectangle that ``trials`` dominate.

    Example:
        >>> values = {"accuracy": 0.75, "weights": 100.0}
        >>> hypervolume([Trial(0, True, None, (), {}, {3: values})])
        0.5
    """
    low, high = (math.log(each) for each in WEIGHTS)
    points = [(math.log(trial.values["weights"]), trial.values["accuracy"]) for trial in trials]
    area, reached = 0.0, ACCURACY
    # From the smallest on, each network adds a bar to the right of it, as high as it is better than all smaller ones.
    for size, accuracy in sorted((max(size, low), -accuracy) for size, accuracy in points if size < high):
        if -accuracy > reached:
            area += (high - size) * (-accuracy - reached)
            reached = -accuracy
    return area / ((high - low) * (1 - ACCURACY))


def run(sampler: str, halving: bool, inherit: bool, seed: int, epochs: int, folder: Path) -> tuple[float, int, int]:
    """Hypervolume, trials and epochs of one search."""
    space = read_space(
        "digits",
        BASE,
        sampler=sampler,
        seed=seed,
        inherit=inherit,
        objectives=["accuracy", "weights"],
        epochs=12,
        rungs=[4, 12] if halving else [12],
    )
    search = start_search("bench", space, 10_000, searches_dir=folder)
    trained: dict[int, int] = {}

    def count(event: WorkEvent) -> None:
        if isinstance(event, StepTaken):
            trained[event.trial] = event.rung
            if sum(trained.values()) >= epochs:
                raise EnoughError

    with contextlib.suppress(EnoughError), open_engine(None, 1, gpus=False) as engine:
        coordinate(search, engine, count)
    search.close()
    return hypervolume(front_of(search).best), len(trained), sum(trained.values())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=360)
    parser.add_argument("--samplers", nargs="*", default=["random", "tpe", "nsgaii"])
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--out", type=Path, default=RESULTS / "search.json")
    given = parser.parse_args()
    machine = f"{platform.machine()}, 1 thread, python {platform.python_version()}, torch {torch.__version__}"
    print(f"digits (600 pictures), {given.epochs} epochs a search, optuna {optuna.__version__}; {machine}")
    rows: list[dict[str, object]] = []
    first: float | None = None
    for sampler in given.samplers:
        for halving, inherit in (WAYS[way] for way in given.ways):
            found: list[tuple[float, int, int]] = []
            for seed in range(given.repeats):
                with tempfile.TemporaryDirectory() as folder:
                    found.append(run(sampler, halving, inherit, seed, given.epochs, Path(folder)))
            volumes = [volume for volume, _, _ in found]
            mean, deviation = statistics.fmean(volumes), statistics.stdev(volumes) if len(volumes) > 1 else 0.0
            first = mean if first is None else first
            trials = statistics.fmean(count for _, count, _ in found)
            name = sampler + (" + halving" if halving else "") + (" + inheritance" if inherit else "")
            gain = f"{100 * (mean / first - 1):+.1f} %"
            print(f"{name:32} {mean:.3f} ± {deviation:.3f}  {gain:>8}  {trials:5.1f} trials", flush=True)
            rows.append({"row": name, "hypervolumes": volumes, "trials": [count for _, count, _ in found]})
    written = {"machine": machine, "optuna": optuna.__version__, "epochs": given.epochs, "rows": rows}
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
