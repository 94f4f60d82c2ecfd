"""How the cost of a training step scales with cells, channels, the size of the pictures, exits, and the batch.

    python bench/scaling.py

One quantity varies at a time; the rest is the seed's network on 32x32 pictures: 9 cells of 16 channels, 3 internal
classifiers, batches of 32. Time is processor time of forward, loss and backward, one thread, the median of several
rounds in which all networks of a panel take turns; memory is what autograd keeps for the backward pass, exactly.
The precision is that of ``train.precision=auto``. The exponents in the tables are ``log(cost ratio) / log(size ratio)``
from one row to the next: 1 is linear. Written to ``bench/results/scaling.json`` and ``docs/images/scaling.png``.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import torch
from common import RESULTS, machine, new_parser, write_json
from matplotlib import pyplot as plt
from torch import Tensor

import ramify
from ramify.config.rules import Config
from ramify.ops.loss import exit_losses, weighted_loss
from ramify.run.device import place_of
from ramify.run.evaluate import computing
from ramify.run.latency import in_turn
from ramify.training.state import to_channels_last

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "scaling.png"
ROUNDS = 8
COLORS = {"iterative": "#1f5fa8", "dense": "#c65a1e"}


@dataclass(frozen=True)
class Case:
    """One network and its batch."""

    cells: int = 9
    channels: int = 16
    side: int = 32
    exits: int = 4
    batch: int = 32

    def structure(self) -> tuple[int, ...]:
        """Internal classifiers as evenly as they go."""
        inner = self.exits - 1
        ends = {round((i + 1) * self.cells / self.exits) for i in range(inner)}
        return tuple(int(cell in ends) for cell in range(1, self.cells + 1))


PANELS: dict[str, tuple[int, ...]] = {
    "cells": (3, 6, 9, 15, 21, 30),
    "channels": (8, 16, 32, 64, 128),
    "side": (8, 16, 32, 64),
    "exits": (1, 2, 4, 6, 9),
    "batch": (8, 16, 32, 64, 128),
}
NAMES = {"cells": "cells", "channels": "channels", "side": "side of a picture", "exits": "exits", "batch": "batch"}


def training_step(case: Case, kind: str) -> tuple[Callable[[], None], int]:
    """A training step of ``case``, and the bytes that autograd keeps for its backward pass."""
    settings = ramify.NetworkConfig(
        kind="dense" if kind == "dense" else "full_ic",
        structure=case.structure(),
        channels=case.channels,
        input_shape=(3, case.side, case.side),
        classes=10,
    )
    network = to_channels_last(ramify.Network(settings, stages=settings.exits, seed=0), torch.device("cpu")).train()
    place = place_of(Config(network=settings))
    images = torch.rand(case.batch, 3, case.side, case.side).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (case.batch,))
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def forward() -> Tensor:
        with computing(place.device, place.precision):
            logits: Tensor = network(images)
        return logits

    def step() -> None:
        logits = forward()
        network.zero_grad(set_to_none=True)
        weighted_loss(exit_losses(logits, labels), (1.0,) * settings.exits).backward()

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = forward()
        size = sum(kept.values())
        del logits
    return step, size


def measure(name: str, kind: str) -> list[dict[str, float]]:
    """Milliseconds of a step and megabytes kept, for each size of a panel."""
    sizes = PANELS[name]
    steps = [training_step(Case(**{name: size}), kind) for size in sizes]
    times = in_turn([step for step, _ in steps], torch.device("cpu"), ROUNDS, time.process_time)
    return [
        {"size": float(size), "ms": ms, "mb": kept / 1e6}
        for size, ms, (_, kept) in zip(sizes, times, steps, strict=True)
    ]


def exponent(rows: list[dict[str, float]], index: int, key: str) -> float:
    before, row = rows[index - 1], rows[index]
    return math.log(row[key] / before[key]) / math.log(row["size"] / before["size"])


def draw(panels: dict[str, dict[str, list[dict[str, float]]]]) -> None:
    """One column for each quantity that varies: time above, memory below."""
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(2, len(PANELS), figsize=(14, 5.2), sharey="row", layout="constrained")
    for column, name in enumerate(PANELS):
        for row, (key, label) in enumerate((("ms", "milliseconds a step"), ("mb", "megabytes kept"))):
            axis = axes[row][column]
            for kind, rows in panels[name].items():
                sizes, values = [point["size"] for point in rows], [point[key] for point in rows]
                axis.plot(sizes, values, marker="o", markersize=4, color=COLORS[kind], label=kind)
            first = panels[name]["iterative"][0]
            sizes = [point["size"] for point in panels[name]["iterative"]]
            linear = [first[key] * size / sizes[0] for size in sizes]
            axis.plot(sizes, linear, color="#9aa1ab", linewidth=1, linestyle="--", label="linear", zorder=0)
            axis.set(xscale="log", yscale="log", xlabel=NAMES[name], ylabel=label)
            axis.set_xticks(sizes, [f"{size:.0f}" for size in sizes])
            axis.minorticks_off()
            axis.grid(visible=True, color="#eceef1")
            axis.set_axisbelow(True)
            axis.label_outer(remove_inner_ticks=False) if row == 0 else None
    for axis in axes.flat:
        axis.label_outer()
    axes[0][0].legend(frameon=False)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    new_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    precision = place_of(Config(network=ramify.NetworkConfig(input_shape=(3, 32, 32)))).precision
    here = f"{machine()}, {precision}"
    print(here)
    panels: dict[str, dict[str, list[dict[str, float]]]] = {}
    for name in PANELS:
        panels[name] = {kind: measure(name, kind) for kind in COLORS}
        for kind, rows in panels[name].items():
            print(f"\n{kind}: {NAMES[name]:18} ms a step   exponent   MB kept   exponent")
            for index, row in enumerate(rows):
                powers = [f"{exponent(rows, index, key):9.2f}" if index else " " * 9 for key in ("ms", "mb")]
                print(f"{row['size']:28.0f} {row['ms']:11.1f} {powers[0]} {row['mb']:9.1f} {powers[1]}", flush=True)
    draw(panels)
    write_json(RESULTS / "scaling.json", {"machine": here, "panels": panels})


if __name__ == "__main__":
    main()
