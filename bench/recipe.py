"""The value of each part of the recipe: the same run with the part and without it, in the same minutes of one thread.

    python bench/recipe.py ARCHIVE
    python bench/recipe.py ARCHIVE --parts base mixup "no average" --minutes 2 --seeds 3
    python bench/recipe.py ARCHIVE --parts base seed-iterative --pictures 20000 --minutes 10 --jobs 2

The base is ``cpu-cifar`` on 10,000 training pictures of ARCHIVE (32x32 color pictures, such as CIFAR-10), a tenth of
them held out. Each part is removed from the base if it has it, else added. Every run has as many epochs as fit into its
minutes, with its schedules rescaled, so the time that a part costs counts against it. Differences are taken seed by
seed, in points of the last exit on the test pictures, mean ± standard deviation (n - 1). Results are kept in
``bench/results/recipe-*.json``, and finished runs are not repeated; ``--jobs 2`` runs two side by side.
"""

import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass

import torch
from common import RESULTS, machine, new_parser, spread, tested, write_json
from pydantic import TypeAdapter

import ramify
from ramify.config.presets import presets
from ramify.training.allocator import keep_freed_memory

PRESET = presets()["cpu-cifar"]
EPOCHS = 20
"""Of the schedules in :data:`PARTS`, before they are rescaled."""
BASE = "base"

SGD = ["optimizer=sgd", "learning_rate=0.1", "momentum=0.9", "nesterov=true", "weight_decay=0.0005"]
PARTS: dict[str, list[str]] = {
    "sgd, not muon": [f"train.{key}" for key in SGD],
    "no average": ["train.ema=null"],
    "steps, not cosine": ["train.schedule=steps"],
    "no warm-up": ["train.warmup=0"],
    "16 channels, no strides": ["network.channels=16", "network.structure=[0,0,1,0,0,1,0,1,0]", "network.strides=null"],
    "label smoothing": ["train.label_smoothing=0.1"],
    "mixup": ["data.mixup=0.2", "data.mix_ramp=0.5"],
    "cutmix": ["data.cutmix=1", "data.mix_ramp=0.5"],
    "cutout": ["data.cutout=8"],
    "strong": ["data.augment=strong"],
    "sizes": ["data.sizes=[[1,16],[7,24],[13,32]]"],
    "flip test": ["train.flip_test=true"],
    "equilibrium": ["train.exit_gradients=equilibrium"],
    "trunk first": ["train.trunk_first=6"],
    "self-distillation": ["train.distill=0.5"],
    "growth": ["network.kind=iterative", "growth.init=identity", "growth.epochs=[3,5]"],
    "cascade": ["network.cascade=true"],
    # The preset seed-iterative, with a validation, its growth and milestones at the same shares of the epochs.
    "seed-iterative": [
        *("network.kind=iterative", "network.structure=[0,0,1,0,0,1,0,1,0]", "network.channels=16"),
        *("network.strides=null", "network.final=null", "network.exit_reads=sum"),
        *("growth.epochs=[3,5,7]", "growth.learning_rate=constant", "train.decay=all"),
        *("train.optimizer=sgd", "train.learning_rate=0.01", "train.momentum=0.9", "train.weight_decay=0.0001"),
        *("train.schedule=steps", "train.milestones=[10,13,15]", "train.gammas=[0.1,0.01,0.01]"),
        *("train.warmup=0", "train.ema=null"),
    ],
    "rigl at half density": [
        *("prune.enabled=true", "prune.policy=rigl", "prune.keep_ratio=0.5"),
        "network.channels=[23,34,42]",
    ],
}
"""Each part, and the overrides that add or remove it."""


@dataclass(frozen=True)
class Result:
    """One run: its wall time, and the test accuracy of every exit in [0, 1]."""

    part: str
    overrides: list[str]
    seed: int
    epochs: int
    seconds: float
    exits: tuple[float, ...]
    weights: int


def train(part: str, seed: int, archive: str, pictures: int, minutes: float) -> Result:
    """Train once, for so many minutes."""
    keep_freed_memory()
    torch.set_num_threads(1)
    start = time.monotonic()
    overrides = PARTS.get(part, [])
    with tempfile.TemporaryDirectory() as folder:
        fixed = [f"data.source={archive}", f"data.limit={pictures}", "train.threads=1", f"runs_dir={folder}"]
        config = ramify.read_config([PRESET], [*fixed, f"seed={seed}", f"train.epochs={EPOCHS}", *overrides])
        config = ramify.rescale_to_minutes(config, minutes)
        summary = ramify.train(config)
    seconds = time.monotonic() - start
    return Result(part, overrides, seed, config.train.epochs, seconds, tested(summary.exits), summary.exits[-1].kept)


def table(results: Sequence[Result]) -> str:
    """Each part beside the base, as Markdown."""
    base = {result.seed: result for result in results if result.part == BASE}
    lines = [
        "| part | epochs | last exit, % | difference, points | all exits, mean difference |",
        "|---|---|---|---|---|",
    ]
    for part in (BASE, *PARTS):
        rows = [result for result in results if result.part == part]
        if not rows:
            continue
        epochs, last = round(statistics.fmean(row.epochs for row in rows)), spread(100 * row.exits[-1] for row in rows)
        paired = [row for row in rows if row.seed in base and part != BASE]
        differences = [100 * (row.exits[-1] - base[row.seed].exits[-1]) for row in paired]
        means = [100 * (statistics.fmean(row.exits) - statistics.fmean(base[row.seed].exits)) for row in paired]
        compared = f"| {spread(differences, '+')} | {spread(means, '+')} |" if paired else "| | |"
        lines.append(f"| {part} | {epochs} | {last} {compared}")
    return "\n".join(lines)


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("archive")
    parser.add_argument("--parts", nargs="*", default=[BASE, *PARTS], choices=[BASE, *PARTS])
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    path = RESULTS / f"recipe-{args.pictures}-{args.minutes:g}min.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    results = TypeAdapter(list[Result]).validate_python(rows)
    done = {(result.part, result.seed) for result in results}
    runs = [(part, seed) for seed in range(args.seeds) for part in args.parts if (part, seed) not in done]
    print(f"{machine()}; {args.minutes:g} minutes a run, {args.pictures:,} training pictures", flush=True)
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(train, part, seed, args.archive, args.pictures, args.minutes) for part, seed in runs]
        for future in futures:
            result = future.result()
            results.append(result)
            length = f"{result.epochs} epochs, {result.seconds:.0f} s"
            print(f"{result.part} {result.seed}: {100 * result.exits[-1]:.2f} %, {length}", flush=True)
            document = {"pictures": args.pictures, "minutes": args.minutes, "machine": machine()}
            write_json(path, {**document, "rows": [asdict(row) for row in results]})
    print(table(results))


if __name__ == "__main__":
    main()
