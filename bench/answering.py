"""Answering early on a processor: how much of what the multiply-accumulates promise the clock keeps.

    python bench/answering.py [ARCHIVE] [--pictures 12000] [--epochs 20]
    python bench/answering.py --run runs/demo

A network is trained on the embedded digits, and one on pictures of ARCHIVE where it is given (as in
``bench/exits.py``, unless told otherwise); a third is the second's with four times its channels, untrained, whose
thresholds let as many pictures leave where the second's do. For each drop of accuracy allowed, four answer the same
test pictures in turn in this process, one thread, one at a time and 256 at once:

- *ordinary*: the way to answer early that one writes in a hurry: at each exit softmax, and ``if`` it is sure, return.
  One picture at a time.
- *whole*: the same network without internal classifiers, folded (``ramify.fold``).
- *early*: the network with its policy, folded.
- *plain*: the network with its policy as it was trained.

The share kept is ``(1 - time) / (1 - MACs)``, both against *whole*. Medians over rounds. Written to
``bench/results/answering.json`` as well.
"""

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from exits_time import COLOUR, DIGITS, DROPS
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

RESULTS = Path(__file__).parent / "results" / "answering.json"
SINGLES, MANY, ROUNDS = 48, 1024, 10


def ordinary(network: Branching, image: Tensor, policy: Policy) -> tuple[int, int]:
    """Class and exit of one picture, as one writes it in a hurry."""
    x = network.enter(image)
    for exit_, stage in enumerate(network.stages):
        x, logits = stage(x)
        heat = 1.0 if policy.temperatures is None else policy.temperatures[exit_]
        probabilities = torch.softmax(logits / heat, dim=1)
        sure, answer = probabilities.max(dim=1)
        last = exit_ == policy.exits - 1
        if last or ((threshold := policy.thresholds[exit_]) is not None and sure.item() >= threshold):
            return int(answer.item()), exit_
    raise AssertionError("the last exit answers")


def same_shares(network: Branching, images: Tensor, shares: list[float]) -> Policy:
    """A policy by which as many of ``images`` leave at each exit as ``shares`` say."""
    with torch.inference_mode():
        sure = confidences(torch.cat([network(some) for some in images.split(256)], dim=1))
    staying = torch.ones(len(images), dtype=torch.bool)
    thresholds: list[float | None] = []
    for at, share in enumerate(shares[:-1]):
        leaving = round(share * len(images))
        here = sure[at].masked_fill(~staying, -1)
        level = float(here.topk(leaving).values[-1]) if leaving else None
        thresholds.append(level)
        if level is not None:
            staying &= sure[at] < level
    return Policy(tuple(thresholds))


def colour(source: str, pictures: int, epochs: int) -> tuple[str, ...]:
    """The settings of the run on ``source``; a fifth of its pictures is held out."""
    changes = {
        "data.source": source,
        "data.limit": str(pictures * 5 // 4),
        "train.epochs": str(epochs),
        "train.milestones": "null",
        "train.precision": "auto",
    }
    kept = [text for text in COLOUR if text.partition("=")[0] not in changes]
    return (*kept, *(f"{key}={value}" for key, value in changes.items()))


def each(answer: Callable[[Tensor], object], batches: tuple[Tensor, ...]) -> None:
    for images in batches:
        answer(images)


def measure(name: str, drop: float, network: Branching, policy: Policy, images: Tensor) -> dict[str, object]:
    """One network by one policy."""
    whole = to_cnn(network)
    ready, bare = fold(network), fold(whole)
    costs, full = [found.macs for found in cost(network)], cost(whole)[-1].macs
    row: dict[str, object] = {"network": name, "max_drop": drop, "thresholds": policy.thresholds}
    for batch, count in ((1, SINGLES), (256, min(MANY, len(images)))):
        chosen = images[torch.linspace(0, len(images) - 1, count).long()]
        some = chosen.split(batch)
        exits = torch.cat([ready.predict(few, policy).exits for few in some])
        macs = sum(costs[exit_] for exit_ in exits.tolist()) / count / full
        calls: dict[str, Callable[[Tensor], object]] = {
            "whole": bare,
            "early": partial(ready.predict, policy=policy),
            "plain": partial(network.predict, policy=policy),
        }
        if batch == 1:
            calls["ordinary"] = partial(ordinary, network, policy=policy)
        with torch.inference_mode():
            times = in_turn([partial(each, call, some) for call in calls.values()], images.device, ROUNDS)
        ms = {key: value / count for key, value in zip(calls, times, strict=True)}
        time = ms["early"] / ms["whole"]
        # Where next to nothing is promised, a share of it says nothing.
        kept = (1 - time) / (1 - macs) if macs < 0.95 else None
        row[f"batch {batch}"] = {"ms a picture": ms, "macs": macs, "time": time, "kept": kept}
        told = "      " if kept is None else f"{100 * kept:4.0f} %"
        print(
            f"{name:8} {drop:>5} {batch:5} {100 * macs:8.1f} % {100 * time:7.1f} %  {told}   "
            + "  ".join(f"{key} {value:.3f}" for key, value in ms.items()),
            flush=True,
        )
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("archive", nargs="?")
    parser.add_argument("--run", type=Path, help="a run to measure in place of those that are trained here")
    parser.add_argument("--pictures", type=int, default=12000, help="of ARCHIVE, to train on")
    parser.add_argument("--epochs", type=int, default=20, help="on ARCHIVE")
    given = parser.parse_args()
    torch.set_num_threads(1)
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, python {platform.python_version()}, torch {torch.__version__}"
    )
    print(f"{machine}, 1 thread, medians of {ROUNDS - 1} rounds; milliseconds a picture")
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        wanted = [DIGITS, *(colour(source, given.pictures, given.epochs) for source in [given.archive] if source)]
        if given.run is not None:
            runs = [given.run]
        else:
            configs = [ramify.read_config(overrides=[*settings, f"runs_dir={folder}"]) for settings in wanted]
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
                if isinstance(network, ramify.Network) and network.config.cells == "seed" and images.shape[2] > 16:
                    left = network.predict(images, policy).exits.bincount(minlength=policy.exits)
                    wide = network.config.model_copy(update={"channels": 4 * network.config.channels})
                    large = ramify.Network(wide, stages=policy.exits, seed=0).eval()
                    alike = same_shares(large, images, (left / len(images)).tolist())
                    rows.append(measure("4x wide", drop, large, alike, images))
    RESULTS.parent.mkdir(exist_ok=True)
    command = "python bench/answering.py"
    if given.archive:
        command += f" ARCHIVE --pictures {given.pictures} --epochs {given.epochs}"
    RESULTS.write_text(json.dumps({"command": command, "machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
