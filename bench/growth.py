"""Does growing pay? One final network, grown or trained whole, for as many epochs or for as many seconds.

    python bench/growth.py [ARCHIVE]

For each seed the same network is trained in turn in this process: grown on schedule from each start (random, identity,
copy), grown by the validation loss, and from scratch for as many epochs. The control that decides is the network from
scratch for no more seconds than the grown one took; its epochs follow from the seconds of the two runs of that seed,
and its learning rate is the best on the validation pictures of three that seed 0 tries. Every exit is measured on the
test pictures. MACs of training are three times those of the forward passes, all exits included. On the embedded digits,
and on 1,500 pictures of ARCHIVE (32x32 colour pictures, such as CIFAR-10) where it is given. Seconds are those of the
one processor thread, so that other work on the machine does not count. Written to
``bench/results/growth-digits.json`` and ``growth-colour.json`` as well.
"""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

import ramify
from ramify.ops.cost import cost
from ramify.run.events import EpochDone, Event, Started
from ramify.run.summary import Summary

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
RATES = (0.01, 0.02, 0.05)
GROWN = {
    "scheduled, random": ["growth.init=random"],
    "scheduled, identity": ["growth.init=identity"],
    "scheduled, copy": ["growth.init=copy"],
    "by loss, random": ["growth.mode=loss", "growth.init=random"],
    "by loss, identity": ["growth.mode=loss", "growth.init=identity"],
}
MATCHED = "scheduled, random"
"""The grown run whose seconds the control gets."""


@dataclass(frozen=True)
class Outcome:
    """One training: what it cost, and how every exit does on the test pictures."""

    name: str
    seed: int
    epochs: int
    seconds: float
    macs: float
    exits: tuple[float, ...]
    valid: float
    rate: float


def run(name: str, seed: int, overrides: list[str], folder: str) -> Outcome:
    """Train once; seconds run from the first epoch to the last, validation and checkpoints included."""
    seen: list[EpochDone] = []
    clock: list[float] = []
    config = ramify.read_config(overrides=[*overrides, f"seed={seed}", f"runs_dir={folder}"])
    started: list[Started] = []

    def watch(event: Event) -> None:
        if isinstance(event, EpochDone):
            seen.append(event)
            clock.append(time.process_time())
        elif isinstance(event, Started):
            started.append(event)
            clock.append(time.process_time())

    summary = ramify.train(config, [watch])
    whole = ramify.Network(started[0].config, stages=started[0].config.network.exits)
    each = [3 * one.macs for one in cost(whole)]
    pictures = started[0].pictures[0]
    return Outcome(
        name,
        seed,
        len(seen),
        clock[-1] - clock[0],
        float(sum(each[event.stages - 1] * pictures for event in seen)),
        tuple(tested(summary)),
        validated(summary),
        config.train.learning_rate,
    )


def tested(summary: Summary) -> list[float]:
    return [each.test.top1 for each in summary.exits if each.test is not None]


def validated(summary: Summary) -> float:
    last = summary.exits[-1].valid
    assert last is not None
    return last.top1


def paired(base: list[str], epochs: int, seeds: tuple[int, ...]) -> list[Outcome]:
    """Every way of training for every seed, one after another."""
    found: list[Outcome] = []
    rate = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            grown = [run(name, seed, [*base, f"train.epochs={epochs}", *more], folder) for name, more in GROWN.items()]
            scratch = [*base, "network.kind=full_ic"]
            whole = run("scratch, same epochs", seed, [*scratch, f"train.epochs={epochs}"], folder)
            matched = next(each for each in grown if each.name == MATCHED)
            short = max(4, int(epochs * matched.seconds / whole.seconds))
            rates = RATES if seed == seeds[0] else (rate,)
            controls = [
                run(
                    "scratch, same seconds",
                    seed,
                    [*scratch, f"train.epochs={short}", f"train.learning_rate={each}"],
                    folder,
                )
                for each in rates
            ]
            control = max(controls, key=lambda each: each.valid)
            rate = control.rate
            found += [*grown, whole, control]
            for each in found[-len(grown) - 2 :]:
                exits = " / ".join(f"{100 * exit_:.2f}" for exit_ in each.exits)
                print(
                    f"seed {seed}  {each.name:<22} {each.epochs:>3} epochs {each.seconds:>7.1f} s  {exits} %",
                    flush=True,
                )
    return found


def table(found: list[Outcome]) -> None:
    """Means over the seeds, and each way's ratios to training from scratch for as many epochs."""
    whole = [each for each in found if each.name == "scratch, same epochs"]
    names = list(dict.fromkeys(each.name for each in found))
    print(f"\n{'':<22} {'last exit, %':>15} {'MACs':>6} {'seconds':>8} {'epochs':>7} {'exits':>6}")
    for name in names:
        mine = [each for each in found if each.name == name]
        last = [100 * each.exits[-1] for each in mine]
        macs = statistics.median(a.macs / b.macs for a, b in zip(mine, whole, strict=True))
        seconds = statistics.median(a.seconds / b.seconds for a, b in zip(mine, whole, strict=True))
        epochs = statistics.mean(each.epochs for each in mine)
        exits = "/".join(str(len(each.exits)) for each in mine)
        spread = statistics.stdev(last) if len(last) > 1 else 0.0
        mean = f"{statistics.mean(last):.2f} ± {spread:.2f}"
        print(f"{name:<22} {mean:>15} {macs:>6.2f} {seconds:>8.2f} {epochs:>7.1f} {exits:>6}")


def main() -> None:
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, 1 thread"
    versions = f"python {platform.python_version()}, torch {torch.__version__}"
    jobs: dict[str, tuple[list[str], int]] = {"digits": ([], 30)}
    if len(sys.argv) > 1:
        colour = [
            f"data.source={sys.argv[1]}",
            "data.limit=1500",
            "network.structure=[0,0,1,0,0,1,0,1,0]",
            "train.precision=bfloat16",
            "train.threads=1",
        ]
        jobs["colour"] = (colour, 8)
    for name, (base, epochs) in jobs.items():
        print(f"\n{name}, {epochs} epochs, seeds {SEEDS}; {machine}; {versions}")
        found = paired(base, epochs, SEEDS)
        table(found)
        document = {
            "command": "python bench/growth.py" + (" ARCHIVE" if name == "colour" else ""),
            "machine": f"{machine}; {versions}",
            "rows": [vars(each) for each in found],
        }
        (RESULTS / f"growth-{name}.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
