"""CIFAR-10 against the clock: presets and plain residual networks, on the same machine for the same minutes.

    python bench/race.py ARCHIVE [--minutes 2 5 10] [--presets cpu-10min] [--plain resnet20 resnet8] [--seeds 1]
    python bench/race.py ARCHIVE --minutes 10 --presets "cpu-10min network.kind=iterative growth.epochs=[3,6]" --plain

Each network trains once for each budget, since its schedule ends with it. Everything counts, from reading the archive
to the last evaluation; how many epochs fit is measured by short runs, for the plain loop by ten batches. That loop:
Nesterov SGD with one cycle up to 0.2, batch 128, label smoothing 0.1, crops with 4 pixels of padding, horizontal
flips, float32, channels last. The test set is read once, at the end, one view of each picture; what the mean of the
logits of both mirror images gives is stated beside it, outside the time. Written after each training to
``bench/results/race.json``, and at the end to ``docs/race.md`` and ``docs/images/race.png``, with a table for each
race. Results of unchanged presets are kept, and those of this machine and day are not repeated. The runs of presets
stay under ``--runs_dir``.
"""

import datetime
import hashlib
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import yaml
from common import RESULTS, int8_of, new_parser, peak, tested, write_json
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional as F

import ramify
from ramify.config.presets import presets
from ramify.config.read import read_config
from ramify.config.rules import resolve
from ramify.data.augment import batches, changed, draw_changes, farthest
from ramify.data.sources import load_pictures
from ramify.run.evaluate import evaluate, evaluation_logits, to_float
from ramify.run.pictures import parts_of_run, split_parts
from ramify.run.saved import read_saved
from ramify.seeds import generator
from ramify.training.allocator import keep_freed_memory

RECORD = RESULTS / "race.json"
PAGE = Path(__file__).parents[1] / "docs" / "race.md"
PLOT = PAGE.parent / "images" / "race.png"
PLANNED = 0.96
"""Share of the budget that is planned; the rest is for what the timed batches do not show."""


@dataclass(frozen=True)
class Result:
    """One training.

    Attributes:
        machine: the processor, its threads and the version of PyTorch.
        exits: test accuracies in [0, 1], shallowest first.
        recipe: a checksum of the preset.
        mirrored: that of the last exit by the mean of both mirror images, after the time is stopped.
        int8: what :func:`common.int8_of` gives, after the time is stopped; None for a plain network.
        run: its name in ``--runs_dir``.
        race: its day. What ran in one race ran in turn; another day the same machine may be faster or slower.
        gflops: 1e9 operations a second of a float32 matrix product, measured just before (:func:`common.peak`).
    """

    machine: str
    name: str
    minutes: float
    seed: int
    weights: int
    epochs: float
    seconds: float
    exits: tuple[float, ...]
    recipe: str = ""
    mirrored: float | None = None
    int8: tuple[tuple[float, ...], int] | None = None
    run: str = ""
    race: str = ""
    gflops: float | None = None


class Block(nn.Module):
    """Two 3x3 layers and a shortcut, the basic block of arXiv:1512.03385."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        conv = nn.Conv2d(inputs, width, 1, stride, bias=False)
        same = inputs == width and stride == 1
        self.shortcut: nn.Module = nn.Identity() if same else nn.Sequential(conv, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


def residual(blocks: int) -> nn.Sequential:
    """A ResNet for 32x32 pictures with ``6 * blocks + 2`` layers: ResNet-20 has 3 blocks a width, ResNet-8 one."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    inputs = 16
    for width in (16, 32, 64):
        for block in range(blocks):
            layers.append(Block(inputs, width, 2 if width != 16 and block == 0 else 1))
            inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


PLAIN = {"resnet20": 3, "resnet8": 1}


def plain(name: str, archive: Path, minutes: float, seed: int, limit: int | None, _: Path) -> Result:
    """Train one of :data:`PLAIN` by the plain loop."""
    start = time.perf_counter()
    config = resolve(read_config(overrides=settings(archive, seed, limit)))
    parts = split_parts(config, load_pictures(config.data))
    torch.manual_seed(seed)
    network = residual(PLAIN[name])
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stubs lack it
    mean = to_float(parts.train.images).mean(dim=(0, 2, 3))[:, None, None]
    deviation = to_float(parts.train.images).std(dim=(0, 2, 3))[:, None, None]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.2, momentum=0.9, weight_decay=5e-4, nesterov=True)

    def step(index: Tensor, draw: torch.Generator) -> None:
        reach = farthest(parts.train.shape[1], None)
        changes = draw_changes(len(index), "crop_flip", draw, reach).to(parts.train.device)
        images = to_float(changed(parts.train.images[index], "crop_flip", changes, reach))
        logits = network((images - mean) / deviation)
        loss = F.cross_entropy(logits, parts.train.labels[index], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    draw = generator(seed, "race")
    first = time.perf_counter()
    for index in list(batches(len(parts.train), 128, draw))[:10]:
        step(index, draw)
    seconds = (time.perf_counter() - first) / 10
    remaining = 60 * minutes * PLANNED - (time.perf_counter() - start)
    steps = max(1, int(remaining / seconds))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=steps + 1, pct_start=0.25)
    done = 0
    while done < steps:
        for index in batches(len(parts.train), 128, draw):
            step(index, draw)
            schedule.step()
            done += 1
            if done == steps:
                break

    def accuracy(flip: bool) -> float:
        normalized = ((to_float(part.images) - mean) / deviation for part in parts.test.split(512))
        answers = torch.cat([evaluation_logits(network, images, flip).argmax(dim=1) for images in normalized])
        return float((answers == parts.test.labels).float().mean())

    network.eval()
    with torch.inference_mode():
        exits = (accuracy(flip=False),)
        seconds = time.perf_counter() - start
        mirrored = accuracy(flip=True)
    weights = sum(weight.numel() for weight in network.parameters() if weight.dim() > 1)
    epochs = steps * 128 / len(parts.train)
    return Result(here(), name, minutes, seed, weights, epochs, seconds, exits, mirrored=mirrored)


def preset(name: str, archive: Path, minutes: float, seed: int, limit: int | None, runs_dir: Path) -> Result:
    """Train a preset, with the changes that ``name`` says, for as many epochs as fit."""
    start = time.perf_counter()
    base, *changes = name.split()
    overrides = [*changes, *settings(archive, seed, limit), f"runs_dir={runs_dir}"]
    config = ramify.rescale_to_minutes(read_config([presets().get(base, Path(base))], overrides), minutes)
    summary = ramify.train(config)
    seconds, last, exits = time.perf_counter() - start, summary.exits[-1], tested(summary.exits)
    assert summary.pictures is not None
    pictures = summary.pictures[0]
    run = runs_dir / summary.name
    network, card = read_saved(run)
    test = parts_of_run(run, config, None, card.network.input_shape)[0].test
    return Result(
        here(),
        name,
        minutes,
        seed,
        last.kept,
        config.train.epochs * config.data.in_epoch(pictures) / pictures,
        seconds,
        exits,
        recipe(name),
        evaluate(network, test, flip=True)[-1].top1,
        int8_of(run),
        summary.name,
    )


def here() -> str:
    """This machine."""
    capability, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    return f"{platform.machine()} with {capability}, {threads} threads, torch {torch.__version__}"


def recipe(name: str) -> str:
    """A checksum of the keys of a preset and its changes; empty for the plain networks, which this file defines."""
    base, *changes = name.split()
    if base in PLAIN:
        return ""
    keys = yaml.safe_load(presets().get(base, Path(base)).read_text())
    return hashlib.sha256(json.dumps([keys, changes], sort_keys=True).encode()).hexdigest()[:12]


def settings(archive: Path, seed: int, limit: int | None) -> list[str]:
    return [f"data.source={archive}", f"seed={seed}", f"data.limit={'null' if limit is None else limit}"]


def table(results: list[Result]) -> str:
    """Accuracies by contestant and minutes, means over the seeds."""
    budgets = sorted({result.minutes for result in results})
    lines = ["| network | weights | " + " | ".join(f"{budget:g} min" for budget in budgets) + " |"]
    lines.append("|---|---|" + "---|" * len(budgets))
    for name in dict.fromkeys(result.name for result in results):
        own = [result for result in results if result.name == name]
        cells = []
        for budget in budgets:
            runs = [result for result in own if result.minutes == budget]
            if not runs:
                cells.append("-")
                continue
            epochs, seconds = span([run.epochs for run in runs], 1), span([run.seconds for run in runs])
            length = f"{epochs} epochs, {seconds} s, {len(runs)} seed{'s' if len(runs) > 1 else ''}"
            both = [run.mirrored for run in runs if run.mirrored is not None]
            mirrored = f"mirrored {in_percent([statistics.fmean(both)])}; " if len(both) == len(runs) else ""
            cells.append(f"{in_percent(means(run.exits for run in runs))} ({mirrored}{length})")
        lines.append(f"| {name} | {own[0].weights:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def int8_table(results: list[Result]) -> str:
    """Accuracies in int8 by contestant and minutes, means over the seeds, and what they lose."""
    lines = ["| network | minutes | int8, by exit | against float32, points | bytes |", "|---|---|---|---|---|"]
    for name, minutes in dict.fromkeys((result.name, result.minutes) for result in results):
        runs = [
            (result.exits, *result.int8)
            for result in results
            if (result.name, result.minutes) == (name, minutes) and result.int8 is not None
        ]
        if runs:
            before, after = means(exits for exits, _, _ in runs), means(exits for _, exits, _ in runs)
            losses = " / ".join(f"{100 * (new - old):+.2f}" for old, new in zip(before, after, strict=True))
            size = statistics.fmean(size for _, _, size in runs)
            lines.append(f"| {name} | {minutes:g} | {in_percent(after)} | {losses} | {size:,.0f} |")
    return "\n".join(lines)


def span(values: Sequence[float], digits: int = 0) -> str:
    """The smallest and the largest of ``values``, rounded."""
    lowest, highest = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return lowest if lowest == highest else f"{lowest} to {highest}"


def means(exits: Iterable[tuple[float, ...]]) -> list[float]:
    """The mean of each exit over runs."""
    return [statistics.fmean(values) for values in zip(*exits, strict=True)]


def in_percent(exits: list[float]) -> str:
    return " / ".join(f"{100 * mean:.1f}" for mean in exits)


def page(results: list[Result]) -> str:
    """``docs/race.md``."""
    text = """# CIFAR-10 against the clock

Written by `bench/race.py`. Each contestant trains once for each budget and seed, and everything counts, from reading
the archive to the last evaluation. Accuracy in % on the test pictures, which are read once, by exit, as the mean over
the seeds; "mirrored" is that of the last exit by the mean of both mirror images, at twice the MACs, which no other
figure uses. Weights are those kept, of every exit. The int8 ONNX graphs (`ramify export --quantize int8`) are exported
after the time is stopped. A table with a day is one race, whose contestants ran in turn; GFLOP/s is the speed of a
float32 matrix product, measured before each training. The other tables are of several days.

![Test accuracy of every exit of every contestant](images/race.png)
"""
    for heading, own in by_race(results).items():
        text += f"\n## {heading}\n\n{table(own)}\n\n{int8_table(own)}\n"
    return text


def by_race(results: list[Result]) -> dict[str, list[Result]]:
    """The results of each race, by its heading: the machine, the day and the speed of its matrix products."""
    races: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        races.setdefault((result.machine, result.race), []).append(result)
    headings = {}
    for (machine, day), own in races.items():
        speeds = [result.gflops for result in own if result.gflops is not None]
        speed = f", {span(speeds)} GFLOP/s" if speeds else ""
        headings[f"{machine}{', ' if day else ''}{day}{speed}"] = own
    return headings


def read_results() -> list[Result]:
    """The results of earlier races, of presets that have not changed."""
    if not RECORD.exists():
        return []
    results = TypeAdapter(list[Result]).validate_json(RECORD.read_bytes())
    return [result for result in results if result.recipe == recipe(result.name)]


def plot(results: list[Result]) -> None:
    """Accuracy by exit, means over the seeds: a panel for each race, a line for each contestant and budget."""
    from ramify.show.drawing import axes, save_drawing

    groups: dict[str, dict[str, list[Result]]] = {}
    for heading, own in by_race(results).items():
        group = groups.setdefault(heading, {})
        for result in sorted(own, key=lambda result: (-result.minutes, result.exits[-1])):
            label = f"{result.minutes:g} min, {result.name}".replace(" network.", "\nnetwork.")
            group.setdefault(label, []).append(result)
    lines = sum(len(group) for group in groups.values())
    drawing, panels = axes((9.0, 0.8 * len(groups) + 0.36 * lines), rows=len(groups))
    for (heading, group), [panel] in zip(groups.items(), panels, strict=True):
        for y, runs in enumerate(group.values()):
            exits = [100 * top1 for top1 in means(run.exits for run in runs)]
            panel.plot(exits, [y] * len(exits), color="C0", marker="o", markersize=4, linewidth=1)
            panel.plot(exits[-1], y, color="C0", marker="o", markersize=8)
            panel.annotate(f"{exits[-1]:.1f}", (exits[-1], y), (7, -3), textcoords="offset points", fontsize=9)
        panel.set_yticks(range(len(group)), [*group])
        panel.set_ylim(-0.6, len(group) - 0.4)
        panel.set_title(heading, fontsize=9, loc="left")
    panels[-1][0].set_xlabel("test accuracy by exit, %")
    save_drawing(drawing, PLOT)


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 5, 10])
    parser.add_argument("--presets", nargs="*", default=["cpu-10min"], metavar='"PRESET|FILE.yaml [KEY=VALUE ...]"')
    parser.add_argument("--plain", nargs="*", choices=[*PLAIN], default=[*PLAIN])
    parser.add_argument("--seeds", type=int, default=1)
    today = datetime.date.today().isoformat()
    parser.add_argument("--race", default=today, metavar="DAY", help="go on with the race of that day; default: today")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--limit", type=int, help="number of pictures, to try the race itself; writes no results")
    parser.add_argument("--runs_dir", type=Path, default=Path("runs/race"), help="where the runs of presets are kept")
    args = parser.parse_args()
    args.runs_dir.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    results = read_results() if args.limit is None else []
    of_race = (here(), args.race)
    done = {
        (result.name, result.minutes, result.seed) for result in results if (result.machine, result.race) == of_race
    }
    jobs = [(preset, name) for name in args.presets] + [(plain, name) for name in args.plain]
    for minutes, seed, (train, name) in itertools.product(args.minutes, range(args.seeds), jobs):
        if (name, minutes, seed) in done:
            continue
        speed = peak() / 1e9
        result = train(name, args.archive.resolve(), minutes, seed, args.limit, args.runs_dir)
        results.append(replace(result, race=args.race, gflops=speed))
        print(json.dumps(asdict(results[-1])), flush=True)
        if args.limit is None:
            write_json(RECORD, [asdict(result) for result in results])
    print(table([result for result in results if (result.machine, result.race) == of_race]))
    if args.limit is None:
        PAGE.write_text(page(results))
        plot(results)


if __name__ == "__main__":
    main()
