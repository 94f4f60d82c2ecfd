"""Does a criterion do anything? Networks pruned before their first step, on the embedded digits.

    python bench/pruning.py
    python bench/pruning.py --channels 32 --rows random snip "synflow, 100 rounds"
    python bench/pruning.py --seeds 3 --epochs 15 --rows "static, erk by stage" set rigl --name moving

Each row is one criterion or control: the network is pruned at its initialisation to ``keep_ratio`` of its weights,
ranked as a whole but for the last three rows, and trained by the default recipe. The figures are test accuracies of
the last exit, mean and sample standard deviation over the seeds; a seed has the same split, initial weights and
order of pictures in every row. Written to ``bench/results/pruning-<name>.json`` as well; the name is the number of
channels unless ``--name`` says another.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path

import torch

import ramify

ROWS = {
    "not pruned": ["prune.enabled=false"],
    "snip": ["prune.criterion=snip"],
    "snip, 16 batches of 16": ["prune.criterion=snip", "prune.batch_size=16", "prune.batches=16"],
    "snip, 20 rounds": ["prune.criterion=snip", "prune.rounds=20"],
    "snip, control shuffle": ["prune.criterion=snip", "prune.control=shuffle"],
    "snip, control reinit": ["prune.criterion=snip", "prune.control=reinit"],
    "snip, control invert": ["prune.criterion=snip", "prune.control=invert"],
    "grasp": ["prune.criterion=grasp"],
    "synflow, 100 rounds": ["prune.criterion=synflow", "prune.rounds=100"],
    "magnitude": ["prune.criterion=magnitude"],
    "erk": ["prune.criterion=erk"],
    "random": ["prune.criterion=random"],
    "static, erk by stage": ["prune.criterion=erk", "prune.policy=iterative"],
    "set": ["prune.policy=set"],
    "rigl": ["prune.policy=rigl"],
}
RESULTS = Path(__file__).parent / "results"


def accuracy(
    overrides: list[str], seed: int, keep: float, channels: int, epochs: int, folder: str
) -> tuple[float, int]:
    """Test accuracy of the last exit, and the weights kept."""
    base = ["network.kind=full_ic", f"network.channels={channels}", f"train.epochs={epochs}", "train.threads=1"]
    pruning = ["prune.enabled=true", "prune.epochs=[1]", f"prune.keep_ratio={keep}", f"runs_dir={folder}"]
    summary = ramify.train(ramify.read_config(overrides=[*base, *pruning, f"seed={seed}", *overrides]))
    last = summary.exits[-1]
    assert last.test is not None
    return last.test.top1, last.kept


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--keep", type=float, default=0.05)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--name")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS), metavar="ROW")
    given = parser.parse_args()
    machine = f"{platform.machine()}, 1 thread, python {platform.python_version()}, torch {torch.__version__}"
    print(f"digits, the default network as full_ic with {given.channels} channels, keep ratio {given.keep}")
    print(f"{given.seeds} seeds; {machine}, {os.cpu_count()} cores")
    print(f"{'criterion':24} {'weights':>8}  accuracy of the last exit, %")
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in given.rows:
            found = [
                accuracy(ROWS[name], seed, given.keep, given.channels, given.epochs, folder)
                for seed in range(given.seeds)
            ]
            values = [100 * value for value, _ in found]
            mean, deviation = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
            print(f"{name:24} {found[0][1]:>8,}  {mean:6.2f} ± {deviation:.2f}", flush=True)
            rows.append({"criterion": name, "weights": found[0][1], "mean": mean, "std": deviation, "values": values})
    RESULTS.mkdir(exist_ok=True)
    document = {"command": " ".join(["python", *sys.argv]), "machine": machine, "rows": rows}
    (RESULTS / f"pruning-{given.name or given.channels}.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
