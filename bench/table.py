"""Train presets with several seeds, and write ``docs/results.md`` from the finished runs.

    python bench/table.py digits small-50k --seeds 3
    python bench/table.py cpu-cifar tiny-20k --seeds 1 --rescale 20 --set data.source=ARCHIVE data.limit=12000
    python bench/table.py tiny-20k small-50k compact-100k gnap-158k --jobs 4
    python bench/table.py --resume
    python bench/table.py

Each training is an ordinary run, kept under ``--runs_dir``: a finished one is not repeated, a stopped one continues
from its checkpoint. All requests are kept there in ``rows.json``, so that ``--resume`` continues with all of them, in
order, after any stop (``--note`` only keeps them). Exits are then calibrated on the validation pictures
(``--max_drop``), if there are any, and measured on the test pictures, in float32 and in int8; where int8 loses more
than 0.3 points, five epochs with ``train.quantize=int8`` follow, in another run. A row of the table is the mean and
the standard deviation (n - 1) over the seeds of one preset with the same settings, beside the row of the 2020 project
and the best known at that many weights, from ``bench/results/known.json``. Rows are kept in
``bench/results/table.json``; without presets, only the page is rewritten.

The training of a row costs ``6 x MACs x pictures x epochs``: a multiply-accumulate is two operations, and the backward
pass takes twice those of the forward pass. The MACs of an epoch are those of the stages that exist in it.
"""

import argparse
import multiprocessing
import os
import platform
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from common import RESULTS, int8_of, new_parser, spread, tested, write_json
from pydantic import TypeAdapter

import ramify
from ramify.config.keys import births, dotted
from ramify.config.presets import presets
from ramify.config.rules import Config, resolve
from ramify.errors import ConfigError, RamifyError
from ramify.files import write_atomic
from ramify.nn.network import Network
from ramify.ops.cost import cost
from ramify.run.derive import child_config
from ramify.run.distributed import ALONE
from ramify.run.events import EpochDone, Event, Finished
from ramify.run.folder import CONFIG, METRICS, is_run, read_lines, read_summary
from ramify.run.readback import remeasure
from ramify.run.summary import Summary
from ramify.show.words import count, duration, percent, short
from ramify.training.allocator import keep_freed_memory
from ramify.training.prepare import prepare_run

RECORD, KNOWN = RESULTS / "table.json", RESULTS / "known.json"
PAGE = Path(__file__).parents[1] / "docs" / "results.md"
ROWS = "rows.json"
PLACE_KEYS = ("name", "runs_dir", "data.source", "train.threads", "train.device", "train.compile")
"""Keys in which a run may differ from its preset: they say where it is computed, not what."""
INT8_LOSS = 0.003
"""Test accuracy that the last exit may lose in int8 before it is fine-tuned."""


@dataclass(frozen=True)
class Job:
    """One requested run.

    Attributes:
        preset: its name, without the ending.
        settings: ``key=value``, which change it.
        rescale: epochs to rescale its schedule to.
        label: name of the pictures on the page.
    """

    preset: str
    seed: int
    settings: tuple[str, ...] = ()
    rescale: int | None = None
    label: str | None = None

    @property
    def changes(self) -> tuple[str, ...]:
        """The changes to the preset, without :data:`PLACE_KEYS`."""
        changes = tuple(text for text in self.settings if text.partition("=")[0] not in PLACE_KEYS)
        return changes if self.rescale is None else (*changes, f"rescaled to {self.rescale} epochs")

    @property
    def name(self) -> str:
        """Name of the run."""
        name = "-".join([self.preset, *(text.rpartition(".")[2] for text in self.changes), f"seed{self.seed}"])
        return "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in name)[:100]

    def config(self, runs_dir: Path) -> Config:
        """The configuration of the run."""
        config = ramify.read_config([presets()[self.preset]], self.settings)
        if self.rescale is not None:
            config = ramify.rescale(config, self.rescale)
        return config.model_copy(update={"name": self.name, "seed": self.seed, "runs_dir": str(runs_dir)})


@dataclass(frozen=True)
class Row:
    """One run of a preset.

    Attributes:
        settings: the changes to the preset, see :attr:`Job.changes`.
        source: the pictures in words, and how many of them trained, validated and tested.
        kept: weights kept; ``parameters`` counts all trainable values.
        macs: of the last exit.
        pflop: of its training, in 1e15 operations.
        exits: test accuracy of each, shallowest first.
        policy: test accuracy and average MACs of the calibrated policy.
        seconds: of training and validation.
        int8: test accuracy of each exit as an int8 ONNX graph, and the bytes of the graph with all exits.
        tuned: the same after fine-tuning with ``train.quantize=int8``, where more than :data:`INT8_LOSS` is lost.
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
    int8: tuple[tuple[float, ...], int] | None = None
    tuned: tuple[tuple[float, ...], int] | None = None


def train_job(job: Job, runs_dir: Path, max_drop: float) -> Row:
    """The row of one run, which is trained, resumed, or only read.

    Raises:
        ConfigError: the folder holds a run with other settings than the preset.
    """
    config, folder = job.config(runs_dir), runs_dir / job.name
    if is_run(folder):
        _refuse_another(config, folder)
    summary = finished(config, folder)
    assert summary.pictures is not None
    if len(summary.exits) > 1 and summary.pictures[1]:
        ramify.calibrate_run(folder, max_drop=max_drop)
    measured = remeasure(folder)
    saved = ramify.read_config([folder / CONFIG])
    threads = f"{summary.machine['threads']} of {summary.machine['cores']} cores"
    exits, int8 = tested(measured.exits), int8_of(folder)
    tuned = int8_of(fine_tuned(folder)) if exits[-1] - int8[0][-1] > INT8_LOSS else None
    precision = f"{summary.machine['precision']}{', compiled' if saved.train.compile else ''}"
    settings = [text for text in job.changes if "=" in text]
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
        pflop=work(saved, summary.pictures[0], folder)[0],
        exits=exits,
        policy=None if measured.outcome is None else (measured.outcome.accuracy, measured.outcome.macs),
        seconds=summary.seconds,
        machine=f"{summary.machine['device']}, {threads}, {precision}, torch {torch.__version__}",
        command=f"python bench/table.py {job.preset}"
        + (f" --rescale {job.rescale}" if job.rescale is not None else "")
        + (" --set " + " ".join(settings) if settings else ""),
        int8=int8,
        tuned=tuned,
    )


def finished(config: Config, folder: Path) -> Summary:
    """The summary of the run in ``folder``, which is trained, resumed, or only read."""
    summary = read_summary(folder)
    if summary is None:
        summary = ramify.resume(folder, [report]) if is_run(folder) else ramify.train(config, [report])
    return summary


def fine_tuned(parent: Path) -> Path:
    """The run that trains the network of ``parent`` for five epochs more, rounded as the int8 export rounds."""
    folder = parent.with_name(f"{parent.name}-int8")
    finished(child_config(parent, ["prune.enabled=false", "train.quantize=int8", f"name={folder.name}"]), folder)
    return folder


def _refuse_another(config: Config, folder: Path) -> None:
    """Refuse to publish a run under a preset that has changed since."""
    saved = dotted(ramify.read_config([folder / CONFIG]).model_dump())
    for key, value in dotted(resolve(config).model_dump()).items():
        if key not in PLACE_KEYS and value is not None and value != saved[key]:
            raise ConfigError(f"{folder}: got a run with {key} {saved[key]}; accepted: {value}, as the preset says")


def work(config: Config, pictures: int, folder: Path) -> tuple[float, float]:
    """PFLOP of the training of a run: of its finished epochs, and of all.

    Args:
        config: as resolved, with the shape of the pictures.
        pictures: to train on.
        folder: of the run, whose metrics hold the stages of each finished epoch; the others are as planned.
    """
    macs = [exit_.macs for exit_ in cost(Network(config.network, stages=config.network.exits))]
    taken = config.data.in_epoch(pictures)
    stages = [int(str(line["stages"])) for line in read_lines(folder / METRICS)]
    born = births(config) if config.growth.mode == "scheduled" else (1,) * config.network.exits
    remaining = range(len(stages) + 1, config.train.epochs + 1)
    planned = [*stages, *(sum(birth <= epoch for birth in born) for epoch in remaining)]
    done, whole = (6 * taken * sum(macs[n - 1] for n in epochs) / 1e15 for epochs in (stages, planned))
    return done, whole


def progress(job: Job, runs_dir: Path) -> str:
    """One line about how far a run is."""
    config, _, parts = prepare_run(job.config(runs_dir), ALONE)
    folder = runs_dir / job.name
    done, whole = work(config, len(parts.train), folder)
    epochs = len(read_lines(folder / METRICS))
    return f"{job.name}: {epochs} of {config.train.epochs} epochs, {done:.3g} of {whole:.3g} PFLOP"


def report(event: Event) -> None:
    """Print a line for each tenth of the epochs, and one for a finished run."""
    if isinstance(event, EpochDone) and event.epoch % max(1, event.epochs // 10) == 0:
        print(f"epoch {event.epoch} of {event.epochs}: {event.pictures_per_second:.0f} pictures/s", flush=True)
    if isinstance(event, Finished):
        print(
            f"{event.summary.name}: {percent(tested(event.summary.exits)[-1])}, {duration(event.summary.seconds)}",
            flush=True,
        )


def page(rows: Sequence[Row], known: dict[str, dict[str, str | None]]) -> str:
    """``docs/results.md``."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.preset, *row.settings, row.source, row.machine), []).append(row)
    lines = [
        """# Results

Generated by `bench/table.py` from finished runs. Presets without a row have not been trained to completion.
Accuracy in % on the test pictures, which are read once, mean ± standard deviation over the seeds; epochs, masks and
thresholds were chosen on held-out training pictures; where none were held out, the last epoch is reported. MACs count
every exit head; the training counts 6 operations for each MAC, picture and epoch."""
    ]
    for group in groups.values():
        first = group[0]
        exits = zip(*(row.exits for row in group), strict=True)
        others = known.get(first.preset, {})
        changes = f" ({', '.join(first.settings)})" if first.settings else ""
        lines += [
            "",
            f"## {first.preset}{changes}",
            "",
            "| | |",
            "|---|---|",
            f"| pictures | {first.source}: {' / '.join(map(count, first.pictures))} trained, validated, tested |",
            f"| weights kept, parameters | {count(first.kept)}, {count(first.parameters)} |",
            f"| MACs, last exit | {short(first.macs)} |",
            f"| accuracy by exit | {', '.join(spread(100 * top1 for top1 in values) for values in exits)} |",
        ]
        if first.policy is not None:
            policies = [row.policy for row in group if row.policy is not None]
            accuracy = spread(100 * top1 for top1, _ in policies)
            macs = statistics.fmean(macs for _, macs in policies)
            lines.append(
                f"| by the calibrated policy | {accuracy} at {short(macs)} average MACs "
                f"({percent(macs / first.macs)} of the last exit's) |"
            )
        for graphs, name in (
            ([row.int8 for row in group if row.int8], "int8 ONNX graph: accuracy by exit, bytes"),
            ([row.tuned for row in group if row.tuned], "the same after 5 epochs with `train.quantize=int8`"),
        ):
            if graphs:
                some = "" if len(graphs) == len(group) else f", {len(graphs)} of {len(group)} seeds"
                by_exit = zip(*(accuracies for accuracies, _ in graphs), strict=True)
                lines.append(
                    f"| {name}{some} | {', '.join(spread(100 * top1 for top1 in values) for values in by_exit)}; "
                    f"{count(round(statistics.fmean(size for _, size in graphs)))} |"
                )
        for key, name in (("seed", "the 2020 project"), ("best", "best known")):
            if others.get(key):
                lines.append(f"| {name} | {others[key]} |")
        lines += [
            f"| epochs, time of a run | {first.epochs}, {duration(statistics.fmean(row.seconds for row in group))} |",
            f"| training | {statistics.fmean(row.pflop for row in group):.3g} PFLOP |",
            f"| seeds | {', '.join(str(row.seed) for row in group)} |",
            f"| machine | {first.machine} |",
            f"| command | `{first.command} --seeds {len(group)}` |",
        ]
    return "\n".join(lines) + "\n"


def add_jobs(runs_dir: Path, new: Sequence[Job]) -> list[Job]:
    """All jobs ever requested under ``runs_dir``, in that order, ``new`` among them; they are kept."""
    path = runs_dir / ROWS
    jobs = TypeAdapter(list[Job]).validate_json(path.read_bytes()) if path.exists() else []
    jobs += [job for job in new if job not in jobs]
    if new:
        write_json(path, [asdict(job) for job in jobs])
    return jobs


def publish(new: Sequence[Row] = ()) -> int:
    """Add rows to the record, write the page, and return the number of rows."""
    rows = TypeAdapter(dict[str, Row]).validate_json(RECORD.read_bytes()) if RECORD.exists() else {}
    rows |= {" ".join((row.preset, *row.settings, str(row.seed))): row for row in new}
    rows = dict(sorted(rows.items()))
    if new:
        write_json(RECORD, {key: asdict(row) for key, row in rows.items()})
    known = TypeAdapter(dict[str, dict[str, str | None]]).validate_json(KNOWN.read_bytes())
    write_atomic(PAGE, page(list(rows.values()), known).encode())
    return len(rows)


def known_preset(name: str) -> str:
    """``name``, if it is that of a preset."""
    if name not in presets():
        raise argparse.ArgumentTypeError(f"got {name}; accepted: {', '.join(presets())}")
    return name


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("presets", nargs="*", type=known_preset, metavar="PRESET")
    parser.add_argument("--resume", action="store_true", help="continue with all requests under --runs_dir")
    parser.add_argument("--note", action="store_true", help="only keep the requests, for a later --resume")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0 on")
    parser.add_argument("--rescale", type=int, help="epochs to rescale the presets' schedules to")
    parser.add_argument("--set", nargs="*", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--label", help="name of the pictures on the page")
    parser.add_argument("--max_drop", type=float, default=0.005)
    parser.add_argument("--runs_dir", default=Path("runs/table"), type=Path)
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side, in processes of their own")
    args = parser.parse_args()
    jobs = [
        Job(preset, seed, tuple(args.settings), args.rescale, args.label)
        for seed in range(args.seeds)
        for preset in args.presets
    ]
    all_jobs = add_jobs(args.runs_dir, jobs)
    if args.note:
        jobs = []
    elif args.resume:
        jobs = all_jobs
        print(*(progress(job, args.runs_dir) for job in jobs), sep="\n", flush=True)
    failed = 0
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn"), keep_freed_memory) as pool:
        futures = [pool.submit(train_job, job, args.runs_dir, args.max_drop) for job in jobs]
        for future in as_completed(futures):
            try:
                publish([future.result()])
            except RamifyError as error:
                failed += 1
                print(f"error: {error}", flush=True)
    print(f"docs/{PAGE.name}: {publish()} runs; {platform.machine()}, {os.cpu_count()} cores")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
