"""Samplers, successive halving and inheritance: hypervolume after equal training epochs, on the embedded digits.

    python bench/search.py
    python bench/search.py --epochs 720 --samplers random tpe --ways plain both

Each row is a sampler with or without successive halving and inheritance, with one worker. A search ends when it has
trained ``--epochs`` epochs. Its hypervolume is the share of the rectangle of 100 to 300,000 weights (logarithmic) and
50 to 100 % validation accuracy that its front dominates. Mean ± standard deviation over the repeats; a repeat has the
same sampler seed in every row. Written to ``bench/results/search.json``.
"""

import contextlib
import math
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import optuna
from common import RESULTS, machine, new_parser, spread, write_json

from ramify.search.coordinator import StepTaken, WorkEvent, coordinate
from ramify.search.engine import open_engine
from ramify.search.front import front_of
from ramify.search.space import read_space
from ramify.search.study import start_search
from ramify.search.trial import Trial

WEIGHTS, ACCURACY = (100.0, 300_000.0), 0.5
BASE = ["data.limit=600", "prune.epochs=[4]", "train.device=cpu", "train.threads=1"]
WAYS = {"plain": (False, False), "halving": (True, False), "inheritance": (False, True), "both": (True, True)}


class BudgetUsedError(Exception):
    """The epochs are used up."""


def hypervolume(trials: Sequence[Trial]) -> float:
    """The share of the rectangle that ``trials`` dominate."""
    low, high = (math.log(bound) for bound in WEIGHTS)
    points = [(math.log(trial.values["weights"]), trial.values["accuracy"]) for trial in trials]
    area, reached = 0.0, ACCURACY
    # From the smallest up, each network adds a bar to its right, as high as its lead over all smaller ones.
    for size, accuracy in sorted((max(size, low), -accuracy) for size, accuracy in points if size < high):
        if -accuracy > reached:
            area += (high - size) * (-accuracy - reached)
            reached = -accuracy
    return area / ((high - low) * (1 - ACCURACY))


def run(sampler: str, halving: bool, inherit: bool, seed: int, epochs: int, folder: Path) -> tuple[float, int]:
    """Hypervolume and number of trials of one search."""
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
                raise BudgetUsedError

    with contextlib.suppress(BudgetUsedError), open_engine(None, 1, gpus=False) as engine:
        coordinate(search, engine, count)
    search.close()
    return hypervolume(front_of(search).best), len(trained)


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=360)
    parser.add_argument("--samplers", nargs="*", default=["random", "tpe", "nsgaii"])
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    args = parser.parse_args()
    print(f"digits (600 pictures), {args.epochs} epochs a search, optuna {optuna.__version__}; {machine()}")
    rows: list[dict[str, object]] = []
    first: float | None = None
    for sampler in args.samplers:
        for halving, inherit in (WAYS[way] for way in args.ways):
            volumes: list[float] = []
            trials: list[int] = []
            for seed in range(args.repeats):
                with tempfile.TemporaryDirectory() as folder:
                    volume, count = run(sampler, halving, inherit, seed, args.epochs, Path(folder))
                volumes.append(volume)
                trials.append(count)
            mean = statistics.fmean(volumes)
            first = mean if first is None else first
            name = sampler + (" + halving" if halving else "") + (" + inheritance" if inherit else "")
            gain = f"{100 * (mean / first - 1):+.1f} %"
            print(
                f"{name:32} {spread(volumes, digits=3)}  {gain:>8}  {statistics.fmean(trials):5.1f} trials", flush=True
            )
            rows.append({"row": name, "hypervolumes": volumes, "trials": trials})
    document = {"machine": machine(), "optuna": optuna.__version__, "epochs": args.epochs, "rows": rows}
    write_json(RESULTS / "search.json", document)


if __name__ == "__main__":
    main()
