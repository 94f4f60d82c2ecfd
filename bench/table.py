"""Presets by seeds: trains what is not there yet, and writes ``docs/results.md`` from what was run.

    python bench/table.py digits small-50k --seeds 3
    python bench/table.py cpu-cifar tiny-20k --seeds 1 --rescale 20 --set data.source=ARCHIVE data.limit=12000
    python bench/table.py tiny-20k small-50k compact-100k gnap-158k --jobs 4
    python bench/table.py --resume
    python bench/table.py

Each training is an ordinary run, kept under ``--runs_dir``: one that is finished is not trained again, one that was
stopped goes on from its checkpoint. What was asked for is noted there as well, in ``rows.json``, so that ``--resume``
goes on with all of it, in that order, after any stop. Exits are then calibrated on the validation pictures
(``--max_drop``), if there are any, and measured on the test pictures. A row of the table is the mean and the standard
deviation (n - 1) over the seeds of one preset with the same settings; beside it stand the row of the 2020 project and
the best known at that many weights, from ``bench/results/known.json``. Figures are kept in
``bench/results/table.json``; without presets, the page alone is written anew.

The training of a row costs ``6 x MACs x pictures x epochs``: a multiply-accumulate is two operations, and the backward
pass takes two for each one of the forward pass. The MACs of an epoch are those of the stages that exist in it.
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
from ramify.config.keys import births, keys
from ramify.config.presets import presets
from ramify.config.rules import Config, resolve
from ramify.errors import ConfigError, RamifyError
from ramify.files import write_atomic
from ramify.nn.network import Network
from ramify.ops.cost import cost
from ramify.run.distributed import ALONE
from ramify.run.events import EpochDone, Event, Finished
from ramify.run.folder import CONFIG, METRICS, is_run, read_lines, read_summary
from ramify.run.readback import remeasure
from ramify.show.words import count, duration, percent, short
from ramify.training.allocator import keep_freed_memory
from ramify.training.prepare import prepare_run

HERE = Path(__file__).parent
RECORD, KNOWN, PAGE = HERE / "results" / "table.json", HERE / "results" / "known.json", HERE.parent / "docs/results.md"
ROWS = "rows.json"
OF_THE_PLACE = ("name", "runs_dir", "data.source", "train.threads", "train.device", "train.compile")
"""Keys in which a run may differ from its preset: where and how it is computed, not what."""


@dataclass(frozen=True)
class Job:
    """One run that is asked for.

    Attributes:
        preset: its name, without the ending.
        settings: ``key=value``, by which it is changed.
        rescale: epochs to move its schedule to.
        label: how the page calls the pictures.
    """

    preset: str
    seed: int
    settings: tuple[str, ...] = ()
    rescale: int | None = None
    label: str | None = None

    @property
    def changes(self) -> tuple[str, ...]:
        """What the preset is changed by, without :data:`OF_THE_PLACE`."""
        told = [text for text in self.settings if text.partition("=")[0] not in OF_THE_PLACE]
        return (*told, f"rescaled to {self.rescale} epochs") if self.rescale is not None else tuple(told)

    @property
    def name(self) -> str:
        """Name of the run."""
        name = "-".join([self.preset, *(text.rpartition(".")[2] for text in self.changes), f"seed{self.seed}"])
        return "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in name)[:100]

    def config(self, runs_dir: Path) -> Config:
        """The run, as it is to be."""
        config = ramify.read_config([presets()[self.preset]], self.settings)
        if self.rescale is not None:
            config = ramify.rescale(config, self.rescale)
        return config.model_copy(update={"name": self.name, "seed": self.seed, "runs_dir": str(runs_dir)})


@dataclass(frozen=True)
class Row:
    """One run of a preset.

    Attributes:
        settings: what the preset was changed by, without the place of the pictures.
        source: the pictures in words, and how many of them trained, validated and tested.
        kept: weights kept; ``parameters`` counts everything that is learned.
        macs: of the last exit.
        pflop: of its training, in 1e15 operations.
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
    pflop: float
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


def trained(job: Job, runs_dir: Path, max_drop: float) -> Row:
    """The row of one run, which is trained, taken up again, or only read.

    Raises:
        ConfigError: the run that is there is another one than its preset says.
    """
    config, folder = job.config(runs_dir), runs_dir / job.name
    if is_run(folder):
        _refuse_another(config, folder)
    if read_summary(folder) is None:
        if is_run(folder):
            ramify.resume(folder, [say])
        else:
            ramify.train(config, [say])
    summary = read_summary(folder)
    assert summary is not None
    assert summary.pictures is not None
    if len(summary.exits) > 1 and summary.pictures[1]:
        ramify.calibrate_run(folder, max_drop=max_drop)
    found = remeasure(folder)
    kept = ramify.read_config([folder / CONFIG])
    threads = f"{summary.machine['threads']} of {summary.machine['cores']} cores"
    how = f"{summary.machine['precision']}{', compiled' if kept.train.compile else ''}"
    given = [text for text in job.changes if "=" in text]
    return Row(
        preset=job.preset,
        settings=job.changes,
        seed=job.seed,
        epochs=summary.epochs,
        source=job.label or summary.source,
        pictures=summary.pictures,
        kept=summary.exits[-1].kept,
        parameters=summary.exits[-1].parameters,
        macs=cost(ramify.load(folder))[-1].macs,
        pflop=work(kept, summary.pictures[0], folder)[0],
        exits=tuple(each.test.top1 for each in found.exits if each.test is not None),
        policy=None if found.outcome is None else (found.outcome.accuracy, found.outcome.macs),
        seconds=summary.seconds,
        machine=f"{summary.machine['device']}, {threads}, {how}, torch {torch.__version__}",
        command=f"python bench/table.py {job.preset}"
        + (f" --rescale {job.rescale}" if job.rescale is not None else "")
        + (" --set " + " ".join(given) if given else ""),
    )


def _refuse_another(config: Config, folder: Path) -> None:
    """Refuse to publish a run under a preset that has changed since."""
    there, wanted = ramify.read_config([folder / CONFIG]), resolve(config)
    for key, _ in keys():
        section, _, leaf = key.rpartition(".")
        asked, is_ = (getattr(getattr(each, section) if section else each, leaf) for each in (wanted, there))
        if key not in OF_THE_PLACE and asked is not None and asked != is_:
            raise ConfigError(f"{folder}: got a run with {key} {is_}; accepted: {asked}, as the preset says")


def work(config: Config, pictures: int, folder: Path) -> tuple[float, float]:
    """PFLOP of the training of a run: of the epochs that are done, and of all.

    Args:
        config: as the run was resolved, with the shape of the pictures.
        pictures: in an epoch.
        folder: of the run, which tells the stages of each epoch so far; those to come are as planned.
    """
    macs = [each.macs for each in cost(Network(config.network, stages=config.network.exits))]
    stages = [int(str(line["stages"])) for line in read_lines(folder / METRICS)]
    born = births(config) if config.growth.mode == "scheduled" else (1,) * config.network.exits
    coming = range(len(stages) + 1, config.train.epochs + 1)
    planned = [*stages, *(sum(birth <= epoch for birth in born) for epoch in coming)]
    done, whole = (6 * pictures * sum(macs[count - 1] for count in each) / 1e15 for each in (stages, planned))
    return done, whole


def standing(job: Job, runs_dir: Path) -> str:
    """One line: how far a run is."""
    config, _, parts = prepare_run(job.config(runs_dir), ALONE)
    folder = runs_dir / job.name
    done, whole = work(config, len(parts.train), folder)
    epochs = len(read_lines(folder / METRICS))
    return f"{job.name}: {epochs} of {config.train.epochs} epochs, {done:.3g} of {whole:.3g} PFLOP"


def say(event: Event) -> None:
    """A line for each tenth of the epochs, and one for a run that has ended."""
    if isinstance(event, EpochDone) and event.epoch % max(1, event.epochs // 10) == 0:
        print(f"epoch {event.epoch} of {event.epochs}: {event.pictures_per_second:.0f} pictures/s", flush=True)
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
        "thresholds were chosen on held-out training pictures; where none were held out, the last epoch is reported. "
        "MACs count",
        "every exit head; the training counts 6 operations for each MAC, picture and epoch.",
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
            f"| training | {statistics.fmean(row.pflop for row in group):.3g} PFLOP |",
            f"| seeds | {', '.join(str(row.seed) for row in group)} |",
            f"| machine | {first.machine} |",
            f"| command | `{first.command} --seeds {len(group)}` |",
        ]
    return "\n".join(lines) + "\n"


def noted(runs_dir: Path, wanted: Sequence[Job]) -> list[Job]:
    """All jobs that were ever asked for under ``runs_dir``, in that order, ``wanted`` among them; they are noted."""
    adapter, path = TypeAdapter(list[Job]), runs_dir / ROWS
    jobs = adapter.validate_json(path.read_bytes()) if path.exists() else []
    jobs += [job for job in wanted if job not in jobs]
    if wanted:
        runs_dir.mkdir(parents=True, exist_ok=True)
        write_atomic(path, (json.dumps([asdict(job) for job in jobs], indent=2) + "\n").encode())
    return jobs


def publish(new: Sequence[Row] = ()) -> int:
    """Keep the rows, write the page, and tell how many rows there are."""
    adapter = TypeAdapter(dict[str, Row])
    rows = adapter.validate_json(RECORD.read_bytes()) if RECORD.exists() else {}
    rows |= {" ".join((row.preset, *row.settings, str(row.seed))): row for row in new}
    known = TypeAdapter(dict[str, Known]).validate_json(KNOWN.read_bytes())
    if new:
        told = {key: asdict(each) for key, each in sorted(rows.items())}
        write_atomic(RECORD, (json.dumps(told, indent=2) + "\n").encode())
    write_atomic(PAGE, page([rows[key] for key in sorted(rows)], known).encode())
    return len(rows)


def known_preset(name: str) -> str:
    """``name``, if it is that of a preset."""
    if name not in presets():
        raise argparse.ArgumentTypeError(f"got {name}; accepted: {', '.join(presets())}")
    return name


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("presets", nargs="*", type=known_preset, metavar="PRESET")
    parser.add_argument("--resume", action="store_true", help="go on with all that was asked for under --runs_dir")
    parser.add_argument("--note", action="store_true", help="only note the runs, for a later --resume")
    parser.add_argument("--seeds", type=int, default=3, help="so many, from 0 on")
    parser.add_argument("--rescale", type=int, help="epochs to move the presets' schedules to")
    parser.add_argument("--set", nargs="*", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--label", help="how the page calls the pictures")
    parser.add_argument("--max_drop", type=float, default=0.005)
    parser.add_argument("--runs_dir", default=Path("runs/table"), type=Path)
    parser.add_argument("--jobs", type=int, default=1, help="so many trainings side by side, in processes of their own")
    given = parser.parse_args()
    wanted = [
        Job(preset, seed, tuple(given.settings), given.rescale, given.label)
        for seed in range(given.seeds)
        for preset in given.presets
    ]
    jobs = noted(given.runs_dir, wanted)
    if given.note:
        wanted = []
    elif given.resume:
        wanted = jobs
        print(*(standing(job, given.runs_dir) for job in jobs), sep="\n", flush=True)
    failed = 0
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn"), keep_freed_memory) as pool:
        for done in as_completed([pool.submit(trained, job, given.runs_dir, given.max_drop) for job in wanted]):
            try:
                publish([done.result()])
            except RamifyError as error:
                failed += 1
                print(f"error: {error}", flush=True)
    print(f"{PAGE.relative_to(HERE.parent)}: {publish()} runs; {platform.machine()}, {os.cpu_count()} cores")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
