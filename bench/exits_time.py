"""Answering early: accuracy, MACs and time, with exits and without.

    python bench/exits_time.py [ARCHIVE]

A network is trained on the embedded digits and, with ARCHIVE (32x32 color pictures, such as CIFAR-10), one on 12,000
pictures of it. For each allowed drop of accuracy, thresholds are calibrated on validation pictures; everything else is
measured on test pictures. The baseline is the same network without internal classifiers. Both answer the same pictures
in turn in this process, one at a time and in batches of 256, one thread; times are medians over rounds.

The script stops with an error if a picture is answered otherwise in a batch than alone, or if a stage ran on another
number of pictures than the exits say. Written to ``bench/results/exits_time.json``.
"""

import tempfile
from functools import partial
from pathlib import Path

import torch
from common import for_each, machine, new_parser, write_rows
from torch import Tensor

import ramify
from ramify.nn.branching import Branching
from ramify.ops.cost import cost
from ramify.ops.exits.policy import Policy
from ramify.ops.growing.convert import to_cnn
from ramify.run.calibrate import calibrate_run
from ramify.run.evaluate import to_float
from ramify.run.latency import in_turn
from ramify.run.saved import load, load_policy

DROPS = (0.0, 0.01, 0.03)
SINGLES, MANY, BATCH, ROUNDS = 64, 2048, 256, 9

DIGITS = ("name=digits", "data.valid_fraction=0.3")
COLOR = (
    "name=color",
    "data.limit=15000",
    "data.valid_fraction=0.2",
    "data.batch_size=128",
    "network.structure=[0,0,1,0,0,1,0,0,1,0]",
    "train.epochs=20",
    "growth.epochs=[2,3,4]",
    "train.milestones=[12,17]",
    "train.learning_rate=0.02",
    "train.precision=bfloat16",
    "train.threads=1",
)


def answers(network: Branching, images: Tensor, policy: Policy, batch: int) -> tuple[Tensor, Tensor, list[int]]:
    """Classes and exits of ``images``, answered ``batch`` at a time, and the number of pictures each stage ran on."""
    outputs = [network.predict(chunk, policy) for chunk in images.split(batch)]
    ran = [sum(output.ran[i] for output in outputs) for i in range(policy.exits)]
    return torch.cat([output.classes for output in outputs]), torch.cat([output.exits for output in outputs]), ran


def measure(run: Path, drop: float) -> dict[str, object]:
    """Measure one network at one allowed drop, and print a line."""
    calibration = calibrate_run(run, max_drop=drop).calibration
    network, policy = load(run), load_policy(run)
    assert isinstance(network, ramify.Network)
    assert policy is not None
    plain = to_cnn(network)
    pictures = ramify.load_pictures(ramify.read_config([run / "config.yaml"]).data).test
    images, labels = to_float(pictures.images), pictures.labels

    classes, exits, ran = answers(network, images, policy, BATCH)
    alone = answers(network, images, policy, 1)
    same = int(((alone[0] == classes) & (alone[1] == exits)).sum())
    histogram = exits.bincount(minlength=policy.exits).tolist()
    reached = [len(images) - sum(histogram[:i]) for i in range(policy.exits)]
    if ran != reached:
        raise SystemExit(f"{run}: stages ran on {ran} pictures, exits say {reached}")
    if same != len(images):
        raise SystemExit(f"{run}: {len(images) - same} of {len(images)} pictures are answered otherwise in a batch")

    costs, whole = [exit_.macs for exit_ in cost(network)], cost(plain)[-1].macs
    macs = sum(n * mac for n, mac in zip(histogram, costs, strict=True)) / len(images)
    with torch.inference_mode():
        last = torch.cat([plain(chunk)[-1].argmax(dim=1) for chunk in images.split(BATCH)])
        with_policy, without_exits = ((top1 == labels).double().mean().item() for top1 in (classes, last))
        line = f"{run.name:<8} {drop:>8} {100 * without_exits:>9.2f} % {100 * with_policy:>7.2f} % "
        line += f"{100 * macs / whole:>6.1f} %"
        row: dict[str, object] = {
            "network": run.name,
            "max_drop": drop,
            "pictures": {"validation": calibration.pictures, "test": len(images)},
            "thresholds": policy.thresholds,
            "accuracy": {"policy": with_policy, "last exit": without_exits},
            "exits": [count / len(images) for count in histogram],
            "macs": {"policy": macs, "without exits": whole, "ratio": macs / whole},
        }
        for batch, count in ((1, SINGLES), (BATCH, min(MANY, len(images) // BATCH * BATCH or len(images)))):
            sample = images[torch.linspace(0, len(images) - 1, count).long()]
            leaving = answers(network, sample, policy, batch)[1].bincount(minlength=policy.exits).tolist()
            macs_ratio = sum(n * mac for n, mac in zip(leaving, costs, strict=True)) / count / whole
            batches = sample.split(batch)
            calls = [partial(for_each, answer, batches) for answer in (plain, partial(network.predict, policy=policy))]
            without, early = in_turn(calls, images.device, ROUNDS)
            row[f"batch {batch}"] = {
                "without exits, ms a picture": without / count,
                "policy, ms a picture": early / count,
                "time ratio": early / without,
                "MACs ratio of these pictures": macs_ratio,
            }
            line += f" {early / without:>10.2f} ({macs_ratio:.2f})"
    print(line, flush=True)
    return row


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("archive", nargs="?")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{machine()}, seed 0, medians of {ROUNDS - 1} rounds")
    with tempfile.TemporaryDirectory() as folder:
        settings = [DIGITS, (*COLOR, f"data.source={args.archive}")] if args.archive else [DIGITS]
        runs = [ramify.train(ramify.read_config(overrides=[*keys, f"runs_dir={folder}"])) for keys in settings]
        print("network  max_drop   last exit   policy    MACs   time at 1 (MACs)   at 256 (MACs)")
        rows = [measure(Path(run.folder), drop) for run in runs for drop in DROPS]
    write_rows("exits_time", rows, args.archive, threads=1, seed=0)


if __name__ == "__main__":
    main()
