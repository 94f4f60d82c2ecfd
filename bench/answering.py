"""Answering early on a processor: how much of the MACs saved is time saved.

    python bench/answering.py [ARCHIVE] [--pictures 12000] [--epochs 20]
    python bench/answering.py --run runs/demo

A network is trained on the embedded digits and, with ARCHIVE, one on pictures of it (as in ``bench/exits_time.py``).
A third has four times the channels of the second and is untrained; its thresholds let as many pictures leave at each
exit. For each allowed drop of accuracy, four variants answer the same test pictures in turn in this process, one
thread, one at a time and 256 at once:

- *ordinary*: the simplest code: at each exit softmax, and ``if`` it is confident, return. One picture at a time.
- *whole*: the same network without internal classifiers, folded (``ramify.fold``).
- *early*: the network with its policy, folded.
- *plain*: the network with its policy as it was trained.

The share kept is ``(1 - time) / (1 - MACs)``, both relative to *whole*. Medians over rounds. Written to
``bench/results/answering.json``.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from common import for_each, machine, new_parser, write_rows
from exits_time import COLOR, DIGITS, DROPS
from torch import Tensor

import ramify
from ramify.nn.branching import Branching
from ramify.ops.cost import cost
from ramify.ops.exits.policy import Policy, confidences
from ramify.ops.fold import fold
from ramify.ops.growing.convert import to_cnn
from ramify.run.calibrate import calibrate_run
from ramify.run.evaluate import to_float
from ramify.run.latency import in_turn
from ramify.run.saved import load, load_policy

SINGLES, MANY, ROUNDS = 48, 1024, 10


def ordinary(network: Branching, image: Tensor, policy: Policy) -> tuple[int, int]:
    """Class and exit of one picture, by the simplest code."""
    x = network.enter(image)
    for exit_, stage in enumerate(network.stages):
        x, logits = stage(x)
        temperature = 1.0 if policy.temperatures is None else policy.temperatures[exit_]
        confidence, answer = torch.softmax(logits / temperature, dim=1).max(dim=1)
        last = exit_ == policy.exits - 1
        if last or ((threshold := policy.thresholds[exit_]) is not None and confidence.item() >= threshold):
            return int(answer.item()), exit_
    raise AssertionError("the last exit answers")


def same_shares(network: Branching, images: Tensor, shares: list[float]) -> Policy:
    """A policy by which the fractions ``shares`` of ``images`` leave at the exits."""
    with torch.inference_mode():
        confidence = confidences(torch.cat([network(chunk) for chunk in images.split(256)], dim=1))
    staying = torch.ones(len(images), dtype=torch.bool)
    thresholds: list[float | None] = []
    for exit_, share in enumerate(shares[:-1]):
        leaving = round(share * len(images))
        candidates = confidence[exit_].masked_fill(~staying, -1)
        threshold = float(candidates.topk(leaving).values[-1]) if leaving else None
        thresholds.append(threshold)
        if threshold is not None:
            staying &= confidence[exit_] < threshold
    return Policy(tuple(thresholds))


def measure(name: str, drop: float, network: Branching, policy: Policy, images: Tensor) -> dict[str, object]:
    """One network by one policy."""
    whole = to_cnn(network)
    folded, folded_whole = fold(network), fold(whole)
    costs, full = [exit_.macs for exit_ in cost(network)], cost(whole)[-1].macs
    row: dict[str, object] = {"network": name, "max_drop": drop, "thresholds": policy.thresholds}
    for batch, count in ((1, SINGLES), (256, min(MANY, len(images)))):
        batches = images[torch.linspace(0, len(images) - 1, count).long()].split(batch)
        exits = torch.cat([folded.predict(chunk, policy).exits for chunk in batches])
        macs = sum(costs[exit_] for exit_ in exits.tolist()) / count / full
        calls: dict[str, Callable[[Tensor], object]] = {
            "whole": folded_whole,
            "early": partial(folded.predict, policy=policy),
            "plain": partial(network.predict, policy=policy),
        }
        if batch == 1:
            calls["ordinary"] = partial(ordinary, network, policy=policy)
        with torch.inference_mode():
            times = in_turn([partial(for_each, call, batches) for call in calls.values()], images.device, ROUNDS)
        ms = {key: value / count for key, value in zip(calls, times, strict=True)}
        time = ms["early"] / ms["whole"]
        kept = (1 - time) / (1 - macs) if macs < 0.95 else None  # a share of next to nothing is noise
        row[f"batch {batch}"] = {"ms a picture": ms, "macs": macs, "time": time, "kept": kept}
        print(
            f"{name:8} {drop:>5} {batch:5} {100 * macs:8.1f} % {100 * time:7.1f} %  "
            + ("      " if kept is None else f"{100 * kept:4.0f} %")
            + "   "
            + "  ".join(f"{key} {value:.3f}" for key, value in ms.items()),
            flush=True,
        )
    return row


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("archive", nargs="?")
    parser.add_argument("--run", type=Path, help="measure this run, and train none")
    parser.add_argument("--pictures", type=int, default=12000, help="of ARCHIVE, to train on")
    parser.add_argument("--epochs", type=int, default=20, help="on ARCHIVE")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{machine()}, medians of {ROUNDS - 1} rounds; milliseconds a picture")
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        if args.run is not None:
            runs = [args.run]
        else:
            settings: list[tuple[str, ...]] = [DIGITS]
            if args.archive:
                size = [f"data.limit={args.pictures * 5 // 4}", f"train.epochs={args.epochs}"]  # a fifth is held out
                other = [f"data.source={args.archive}", "train.milestones=null", "train.precision=auto"]
                settings.append((*COLOR, *size, *other))
            configs = [ramify.read_config(overrides=[*keys, f"runs_dir={folder}"]) for keys in settings]
            runs = [Path(ramify.train(config).folder) for config in configs]
        print("network   drop batch      MACs      time    kept   ms a picture")
        for run in runs:
            images = to_float(ramify.load_pictures(ramify.read_config([run / "config.yaml"]).data).test.images)[:4096]
            for drop in DROPS:
                calibrate_run(run, max_drop=drop)
                network, policy = load(run), load_policy(run)
                assert isinstance(network, ramify.Network)
                assert policy is not None
                rows.append(measure(run.name, drop, network, policy, images))
                if network.config.cells == "seed" and images.shape[2] > 16:
                    leaving = network.predict(images, policy).exits.bincount(minlength=policy.exits)
                    wide = network.config.model_copy(update={"channels": 4 * network.config.channels})
                    large = ramify.Network(wide, stages=policy.exits, seed=0).eval()
                    same = same_shares(large, images, (leaving / len(images)).tolist())
                    rows.append(measure("4x wide", drop, large, same, images))
    write_rows("answering", rows, args.archive)


if __name__ == "__main__":
    main()
