"""What each part of the recipe is worth: the same run with the part and without it, for the same minutes of one thread.

    python bench/recipe.py ARCHIVE
    python bench/recipe.py ARCHIVE --parts base mixup "no average" --minutes 2 --seeds 3
    python bench/recipe.py ARCHIVE --parts base seed-iterative --pictures 20000 --minutes 10 --jobs 2

The base is ``cpu-cifar`` on 10,000 training pictures of ARCHIVE (32x32 colour pictures, such as CIFAR-10),
a tenth of them held out. For each part the base is run once more with the part taken out, where the base has it, or put
in, where it has not. Every run has as many epochs as fit into its minutes, its schedules moved along; so what a part
costs in time counts against it. Differences are
taken seed by seed, in points of the last exit on the test pictures, mean ± standard deviation (n - 1). Runs that are
done are kept in ``bench/results/recipe-*.json`` and not done again; with ``--jobs 2`` two run side by side.
"""

import argparse
import json
import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter

import ramify
from ramify.config.presets import presets
from ramify.files import write_atomic
from ramify.training.allocator import keep_freed_memory

HERE = Path(__file__).parent
PRESET = presets()["cpu-cifar"]
EPOCHS = 20
"""Of the schedules in :data:`PARTS`, before they are moved to as many as fit."""
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
"""Each part, and the overrides that put it in or take it out."""


@dataclass(frozen=True)
class Outcome:
    """One run: how long it took of a processor, and how every exit does on the test pictures, in [0, 1]."""

    part: str
    overrides: list[str]
    seed: int
    epochs: int
    seconds: float
    exits: tuple[float, ...]
    weights: int


def run(part: str, overrides: list[str], seed: int, archive: str, pictures: int, minutes: float) -> Outcome:
    """Train once, for the budget."""
    keep_freed_memory()
    torch.set_num_threads(1)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        fixed = [f"data.source={archive}", f"data.limit={pictures}", "train.threads=1", f"runs_dir={folder}"]
        config = ramify.read_config([PRESET], [*fixed, f"seed={seed}", f"train.epochs={EPOCHS}", *overrides])
        config = ramify.rescale_to_minutes(config, minutes)
        summary = ramify.train(config)
    tested = tuple(exit_.test.top1 for exit_ in summary.exits if exit_.test is not None)
    took = time.monotonic() - start
    return Outcome(part, overrides, seed, config.train.epochs, took, tested, summary.exits[-1].kept)


def table(found: Sequence[Outcome]) -> str:
    """Each part beside the base, as Markdown."""
    base = {each.seed: each for each in found if each.part == BASE}
    lines = [
        "| part | epochs | last exit, % | difference, points | all exits, mean difference |",
        "|---|---|---|---|---|",
    ]
    for part in (BASE, *PARTS):
        rows = [each for each in found if each.part == part]
        if not rows:
            continue
        last = _spread([100 * each.exits[-1] for each in rows])
        lines.append(f"| {part} | {round(statistics.fmean(each.epochs for each in rows))} | {last} ")
        paired = [each for each in rows if each.seed in base and part != BASE]
        differences = [100 * (each.exits[-1] - base[each.seed].exits[-1]) for each in paired]
        means = [100 * (statistics.fmean(each.exits) - statistics.fmean(base[each.seed].exits)) for each in paired]
        lines[-1] += f"| {_spread(differences, '+')} | {_spread(means, '+')} |" if paired else "| | |"
    return "\n".join(lines)


def _spread(values: Sequence[float], sign: str = "") -> str:
    about = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{sign}.2f}{about}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("archive")
    parser.add_argument("--parts", nargs="*", default=[BASE, *PARTS], choices=[BASE, *PARTS])
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    adapter = TypeAdapter(list[Outcome])
    results = HERE / "results" / f"recipe-{given.pictures}-{given.minutes:g}min.json"
    found = adapter.validate_python(json.loads(results.read_text())["rows"] if results.exists() else [])
    done = {(each.part, each.seed) for each in found}
    wanted = [(part, seed) for seed in range(given.seeds) for part in given.parts if (part, seed) not in done]
    machine = f"{platform.machine()}, 1 thread a run, python {platform.python_version()}, torch {torch.__version__}"
    print(f"{machine}; {given.minutes:g} processor minutes a run, {given.pictures:,} training pictures", flush=True)
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool:
        waiting = [
            pool.submit(run, part, PARTS.get(part, []), seed, given.archive, given.pictures, given.minutes)
            for part, seed in wanted
        ]
        for each in waiting:
            found.append(each.result())
            last = found[-1]
            print(
                f"{last.part} {last.seed}: {100 * last.exits[-1]:.2f} %, {last.epochs} epochs, {last.seconds:.0f} s",
                flush=True,
            )
            record = {
                "pictures": given.pictures,
                "minutes": given.minutes,
                "machine": machine,
                "rows": [asdict(one) for one in found],
            }
            write_atomic(results, (json.dumps(record, indent=2) + "\n").encode())
    print(table(found))


if __name__ == "__main__":
    main()
