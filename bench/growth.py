"""Growing against training the whole network, for as many epochs or for as many seconds.

    python bench/growth.py [ARCHIVE]

For each seed the same final network is trained in turn in this process: grown on schedule from each initialization
(random, identity, copy), grown by the validation loss, and from scratch for as many epochs. The decisive control is
training from scratch for no more seconds than the grown run took; its epochs follow from the seconds of the two runs of
that seed, and its learning rate is the best on the validation pictures of three that seed 0 tries. Training MACs are
three times those of the forward passes, all exits included. Seconds are processor time of one thread, so that other
work on the machine does not count. The pictures are the embedded digits and, with ARCHIVE (32x32 color pictures, such
as CIFAR-10), 1,500 of its pictures. Written to ``bench/results/growth-digits.json`` and ``growth-color.json``.
"""

import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from common import machine, new_parser, spread, tested, write_rows
from table import work

import ramify
from ramify.run.events import EpochDone, Event, Started

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
"""The grown run whose seconds the control may take."""


@dataclass(frozen=True)
class Result:
    """Cost and accuracy of one training; ``exits`` are test accuracies, ``valid`` that of the last exit."""

    name: str
    seed: int
    epochs: int
    seconds: float
    macs: float
    exits: tuple[float, ...]
    valid: float
    rate: float


def train(name: str, seed: int, overrides: list[str], folder: str) -> Result:
    """Train once; seconds run from the first epoch to the last, validation and checkpoints included."""
    config = ramify.read_config(overrides=[*overrides, f"seed={seed}", f"runs_dir={folder}"])
    clock: list[float] = []

    def watch(event: Event) -> None:
        if isinstance(event, Started | EpochDone):
            clock.append(time.process_time())

    summary = ramify.train(config, [watch])
    run = Path(summary.folder)
    valid = summary.exits[-1].valid
    assert summary.pictures is not None
    assert valid is not None
    pflop, _ = work(ramify.read_config([run / "config.yaml"]), summary.pictures[0], run)
    return Result(
        name,
        seed,
        summary.epochs,
        clock[-1] - clock[0],
        pflop * 1e15 / 2,
        tested(summary.exits),
        valid.top1,
        config.train.learning_rate,
    )


def train_all(base: list[str], epochs: int) -> list[Result]:
    """Every way of training for every seed, one after another."""
    results: list[Result] = []
    rates: tuple[float, ...] = RATES
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            fixed = [*base, f"train.epochs={epochs}"]
            grown = [train(name, seed, [*fixed, *keys], folder) for name, keys in GROWN.items()]
            whole = train("scratch, same epochs", seed, [*fixed, "network.kind=full_ic"], folder)
            matched = next(result for result in grown if result.name == MATCHED)
            short = max(4, int(epochs * matched.seconds / whole.seconds))
            fixed = [*base, "network.kind=full_ic", f"train.epochs={short}"]
            controls = [
                train("scratch, same seconds", seed, [*fixed, f"train.learning_rate={rate}"], folder) for rate in rates
            ]
            control = max(controls, key=lambda result: result.valid)
            rates = (control.rate,)
            for result in (*grown, whole, control):
                exits = " / ".join(f"{100 * top1:.2f}" for top1 in result.exits)
                line = f"seed {seed}  {result.name:<22} {result.epochs:>3} epochs {result.seconds:>7.1f} s  {exits} %"
                print(line, flush=True)
                results.append(result)
    return results


def show(results: list[Result]) -> None:
    """Means over the seeds, and the ratios to training from scratch for as many epochs."""
    whole = [result for result in results if result.name == "scratch, same epochs"]
    print(f"\n{'':<22} {'last exit, %':>15} {'MACs':>6} {'seconds':>8} {'epochs':>7} {'exits':>6}")
    for name in dict.fromkeys(result.name for result in results):
        rows = [result for result in results if result.name == name]
        last = spread(100 * row.exits[-1] for row in rows)
        macs = statistics.median(row.macs / base.macs for row, base in zip(rows, whole, strict=True))
        seconds = statistics.median(row.seconds / base.seconds for row, base in zip(rows, whole, strict=True))
        epochs = statistics.mean(row.epochs for row in rows)
        exits = "/".join(str(len(row.exits)) for row in rows)
        print(f"{name:<22} {last:>15} {macs:>6.2f} {seconds:>8.2f} {epochs:>7.1f} {exits:>6}")


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("archive", nargs="?")
    args = parser.parse_args()
    torch.set_num_threads(1)
    jobs: dict[str, tuple[list[str], int]] = {"digits": ([], 30)}
    if args.archive:
        color = [
            f"data.source={args.archive}",
            "data.limit=1500",
            "network.structure=[0,0,1,0,0,1,0,1,0]",
            "train.precision=bfloat16",
            "train.threads=1",
        ]
        jobs["color"] = (color, 8)
    for name, (base, epochs) in jobs.items():
        print(f"\n{name}, {epochs} epochs, seeds {SEEDS}; {machine()}")
        results = train_all(base, epochs)
        show(results)
        write_rows(f"growth-{name}", [asdict(row) for row in results], args.archive)


if __name__ == "__main__":
    main()
