"""Presets by seeds: trains what is not there yet, and writes ``docs/results.md`` from what was run.

    python bench/table.py digits small-50k --seeds 3
    python bench/table.py cpu-cifar tiny-20k --seeds 1 --rescale 20 --set data.source=ARCHIVE data.limit=12000
    python bench/table.py tiny-20k small-50k compact-100k gnap-158k --jobs 4
    python bench/table.py

Each training is an ordinary run, kept under ``--runs_dir``: one that is finished is not trained again, one that was
stopped goes on from its checkpoint. Its exits are then calibrated on its validation pictures (``--max_drop``) and
measured on the test pictures. A row of the table is the mean and the standard deviation (n - 1) over the seeds of one
preset with the same settings; beside it stand the row of the 2020 project and the best known at that many weights, from
``bench/results/known.json``. Figures are kept in ``bench/results/table.json``; without presets, the page alone is
written anew.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter

import ramify
from ramify.files import write_atomic
from ramify.ops.cost import cost
from ramify.presets import presets
from ramify.run.allocator import keep_freed_memory
from ramify.run.events import Event, Finished
from ramify.run.folder import is_run, read_summary
from ramify.run.readback import remeasure
from ramify.show.words import count, duration, percent, short

HERE = Path(__file__).parent
RECORD, KNOWN, PAGE = HERE / "results" / "table.json", HERE / "results" / "known.json", HERE.parent / "docs/results.md"


@dataclass(frozen=True)
class Row:
    """One run of a preset.

    Attributes:
        settings: what the preset was changed by, without the place of the pictures.
        source: the pictures in words, and how many of them trained, validated and tested.
        kept: weights kept; ``parameters`` counts everything that is learned.
        macs: of the last exit; ``training`` of all steps, forward and backward.
        exits: test accuracy of each, shallowest first.
        policy: test accuracy and average MACs of the calibrated policy.
        seconds: of training and validation.
    """

    preset: str
    settings: tuple[str, ...]
    seed: int
    epochs: int
    source: str
    pictures: tuple[int, int, int]
    kept: int
    parameters: int
    macs: int
    exits: tuple[float, ...]
    policy: tuple[float, float] | None
    seconds: float
    machine: str
    command: str


@dataclass(frozen=True)
class Known:
    """What others report at about as many weights: the 2020 project's row, and the best found."""

    seed: str | None
    best: str | None


def trained(preset: Path, seed: int, given: argparse.Namespace) -> Row:
    """The row of one run, which is trained, taken up again, or only read."""
    config = ramify.read_config([preset], given.settings)
    if given.rescale is not None:
        config = ramify.rescale(config, given.rescale)
    told = [text for text in given.settings if not text.startswith("data.source=")]
    if given.rescale is not None:
        told.append(f"rescaled to {given.rescale} epochs")
    name = "-".join([preset.stem, *(text.rpartition(".")[2] for text in told), f"seed{seed}"])
    name = "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in name)[:100]
    config = config.model_copy(update={"name": name, "seed": seed, "runs_dir": given.runs_dir})
    folder = Path(given.runs_dir) / name
    if read_summary(folder) is None:
        if is_run(folder):
            ramify.resume(folder, [ended])
        else:
            ramify.train(config, [ended])
    summary = read_summary(folder)
    assert summary is not None
    assert summary.pictures is not None
    if len(summary.exits) > 1:
        ramify.calibrate_run(folder, max_drop=given.max_drop)
    found = remeasure(folder)
    threads = f"{summary.machine['threads']} of {summary.machine['cores']} cores"
    return Row(
        preset=preset.stem,
        settings=tuple(told),
        seed=seed,
        epochs=summary.epochs,
        source=given.label or summary.source,
        pictures=summary.pictures,
        kept=summary.exits[-1].kept,
        parameters=summary.exits[-1].parameters,
        macs=cost(ramify.load(folder))[-1].macs,
        exits=tuple(each.test.top1 for each in found.exits if each.test is not None),
        policy=None if found.outcome is None else (found.outcome.accuracy, found.outcome.macs),
        seconds=summary.seconds,
        machine=f"{summary.machine['device']}, {threads}, {summary.machine['precision']}, torch {torch.__version__}",
        command=f"python bench/table.py {preset.stem}"
        + "".join(f" --rescale {given.rescale}" if given.rescale is not None else "")
        + (" --set " + " ".join(text for text in told if "=" in text) if any("=" in text for text in told) else ""),
    )


def ended(event: Event) -> None:
    """One line for a run that has ended."""
    if isinstance(event, Finished):
        last = event.summary.exits[-1]
        assert last.test is not None
        print(f"{event.summary.name}: {percent(last.test.top1)}, {duration(event.summary.seconds)}", flush=True)


def spread(values: Iterable[float]) -> str:
    """``84.19 ± 0.19``, of shares in [0, 1]."""
    found = [100 * value for value in values]
    if len(found) == 1:
        return f"{found[0]:.2f}"
    return f"{statistics.fmean(found):.2f} ± {statistics.stdev(found):.2f}"


def page(rows: Sequence[Row], known: dict[str, Known]) -> str:
    """``docs/results.md``."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.preset, *row.settings, row.source, row.machine), []).append(row)
    lines = [
        "# Results",
        "",
        "Written by `bench/table.py` from what was run, nothing else: a preset that has no row has not been trained to "
        "its end.",
        "Accuracy in % on the test pictures, which are read once, mean ± standard deviation over the seeds; epochs, "
        "masks and",
        "thresholds were chosen on held-out training pictures. MACs count every exit head.",
    ]
    for group in groups.values():
        first = group[0]
        exits = zip(*(row.exits for row in group), strict=True)
        about = known.get(first.preset, Known(None, None))
        changed = f" ({', '.join(first.settings)})" if first.settings else ""
        lines += [
            "",
            f"## {first.preset}{changed}",
            "",
            "| | |",
            "|---|---|",
            f"| pictures | {first.source}: {' / '.join(map(count, first.pictures))} trained, validated, tested |",
            f"| weights kept, parameters | {count(first.kept)}, {count(first.parameters)} |",
            f"| MACs, last exit | {short(first.macs)} |",
            f"| accuracy by exit | {', '.join(spread(values) for values in exits)} |",
        ]
        if first.policy is not None:
            obeyed = [row.policy for row in group if row.policy is not None]
            work = statistics.fmean(macs for _, macs in obeyed)
            lines.append(
                f"| by the calibrated policy | {spread(accuracy for accuracy, _ in obeyed)} at {short(work)} average "
                f"MACs ({percent(work / first.macs)} of the last exit's) |"
            )
        if about.seed is not None:
            lines.append(f"| the 2020 project | {about.seed} |")
        if about.best is not None:
            lines.append(f"| best known | {about.best} |")
        lines += [
            f"| epochs, time of a run | {first.epochs}, {duration(statistics.fmean(row.seconds for row in group))} |",
            f"| seeds | {', '.join(str(row.seed) for row in group)} |",
            f"| machine | {first.machine} |",
            f"| command | `{first.command} --seeds {len(group)}` |",
        ]
    return "\n".join(lines) + "\n"


def preset_of(name: str) -> Path:
    if name not in presets():
        raise argparse.ArgumentTypeError(f"got {name}; accepted: {', '.join(presets())}")
    return presets()[name]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("presets", nargs="*", type=preset_of, metavar="PRESET")
    parser.add_argument("--seeds", type=int, default=3, help="so many, from 0 on")
    parser.add_argument("--rescale", type=int, help="epochs to move the presets' schedules to")
    parser.add_argument("--set", nargs="*", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--label", help="how the page calls the pictures")
    parser.add_argument("--max_drop", type=float, default=0.005)
    parser.add_argument("--runs_dir", default="runs/table")
    parser.add_argument("--jobs", type=int, default=1, help="so many trainings side by side, in processes of their own")
    given = parser.parse_args()
    adapter = TypeAdapter(dict[str, Row])
    rows = adapter.validate_json(RECORD.read_bytes()) if RECORD.exists() else {}
    known = TypeAdapter(dict[str, Known]).validate_json(KNOWN.read_bytes())
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn"), keep_freed_memory) as pool:
        wanted = [(preset, seed) for seed in range(given.seeds) for preset in given.presets]
        for job in as_completed([pool.submit(trained, preset, seed, given) for preset, seed in wanted]):
            row = job.result()
            rows[" ".join((row.preset, *row.settings, str(row.seed)))] = row
            RECORD.parent.mkdir(exist_ok=True)
            told = {key: asdict(each) for key, each in sorted(rows.items())}
            write_atomic(RECORD, (json.dumps(told, indent=2) + "\n").encode())
    write_atomic(PAGE, page([rows[key] for key in sorted(rows)], known).encode())
    print(f"{PAGE.relative_to(HERE.parent)}: {len(rows)} runs; {platform.machine()}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
