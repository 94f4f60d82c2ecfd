"""Train several networks side by side on a GPU for a few minutes; started by ``bench/gpu.sh run``.

    python bench/gpu.py ARCHIVE --minutes 9 --out OUT compact-100k:2.6 small-50k:2.6 gnap-158k:2.6 seed-full-ic

The length of each training is given in PFLOP (``6 x MACs x pictures x epochs / 1e15``); without one, the preset keeps
its epochs. Runs train in waves of ``--side_by_side`` processes, in the given order. A wave gets a share of the
remaining time by its longest training. Each run first measures in a trial of a few epochs how many epochs fit, and
trains these, or those requested if these are fewer. A run that exceeds its time stops after an epoch, and can continue
elsewhere from ``OUT/runs.tar.gz``. Results are written to ``OUT/NAME.json``.
"""

import multiprocessing
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from common import new_parser, tested, write_json
from table import work

import ramify
from ramify.config.presets import presets
from ramify.config.rules import Config
from ramify.data.sources import load_pictures
from ramify.errors import ConfigError, InputError, RamifyError, RunError
from ramify.run.distributed import ALONE
from ramify.run.events import EpochDone, Event
from ramify.run.folder import CONFIG
from ramify.training.allocator import keep_freed_memory
from ramify.training.prepare import prepare_run

RECORD = ("compact-100k:2.6", "small-50k:2.6", "gnap-158k:2.6", "tiny-20k:1.3", "seed-full-ic", "seed-iterative")
"""Most valuable first; the first two as long as the record at 100,000 weights, cifar10-tiniest."""


@dataclass(frozen=True)
class Job:
    """A requested run: a preset, and the length of its training (None: that of the preset)."""

    preset: str
    pflop: float | None
    settings: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        """Name of the run and of its file."""
        return f"{self.preset}-seed{self.seed}"

    def config(self, archive: str, runs_dir: str, epochs: int | None = None) -> Config:
        """The configuration, rescaled to ``epochs``."""
        fixed = [f"data.source={archive}", f"runs_dir={runs_dir}", f"name={self.name}", f"seed={self.seed}"]
        config = ramify.read_config([presets()[self.preset]], [*fixed, *self.settings])
        return config if epochs is None else ramify.rescale(config, epochs)


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
        wanted: requested epochs; ``planned`` are those that fit, and ``epochs`` those that were trained.
        pflop: of the trained epochs.
        finished: whether it was tested; if not, ``why`` is the reason.
        exits: test accuracy of each exit in [0, 1], and ``valid`` that on the validation pictures, if any.
        pictures_per_second: over its epochs, validation included.
    """

    name: str
    wanted: int
    planned: int
    epochs: int
    pflop: float
    finished: bool
    why: str
    kept: int | None
    parameters: int | None
    exits: tuple[float, ...]
    valid: tuple[float, ...]
    seconds: float
    pictures_per_second: float
    device: str
    settings: tuple[str, ...]


def run(job: Job, archive: str, runs_dir: str, out: Path, seconds: float) -> Result:
    """Train one preset as long as requested, or as long as fits into ``seconds``."""
    end = time.monotonic() + seconds
    resolved, _, parts = prepare_run(job.config(archive, runs_dir), ALONE)
    pictures = len(parts.train)
    _, whole = work(resolved, pictures, Path(runs_dir) / "none")
    wanted = resolved.train.epochs
    if job.pflop is not None:
        wanted = max(1, round(wanted * job.pflop / whole))
    planned, why = 0, ""
    try:
        config = ramify.rescale_to_minutes(job.config(archive, runs_dir), (end - time.monotonic()) / 60)
        if config.train.epochs > wanted:
            config = job.config(archive, runs_dir, wanted)
        planned = config.train.epochs
    except ConfigError as error:
        why = str(error)
    start, done = time.monotonic(), 0

    def watch(event: Event) -> None:
        nonlocal done
        if isinstance(event, EpochDone):
            done = event.epoch
            epoch_seconds = (time.monotonic() - start) / event.epoch
            if event.epoch < event.epochs and time.monotonic() + epoch_seconds > end:
                raise RunError(f"its time was over after epoch {event.epoch} of {event.epochs}")

    if planned:
        try:
            ramify.train(config, [watch], overwrite=True)
        except RunError as error:
            why = str(error)
    training_seconds = time.monotonic() - start
    folder = Path(runs_dir) / job.name
    started = (folder / "last").exists()
    exits = ramify.describe(folder).exits if started else ()
    result = Result(
        name=job.name,
        wanted=wanted,
        planned=planned,
        epochs=done,
        pflop=work(ramify.read_config([folder / CONFIG]), pictures, folder)[0] if started else 0.0,
        finished=not why,
        why=why,
        kept=exits[-1].kept if exits else None,
        parameters=exits[-1].parameters if exits else None,
        exits=tested(exits),
        valid=tuple(exit_.valid.top1 for exit_ in exits if exit_.valid is not None),
        seconds=training_seconds,
        pictures_per_second=done * config.data.in_epoch(pictures) / training_seconds if done else 0.0,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        settings=job.settings,
    )
    write_json(out / f"{job.name}.json", asdict(result))
    return result


def describe(result: Result) -> str:
    """One line about a run."""
    exits = ", ".join(f"{100 * top1:.2f}" for top1 in result.exits or result.valid) or "nothing"
    part = "test" if result.exits else "validation"
    epochs = f"{result.epochs} of {result.planned} epochs ({result.wanted} requested)"
    speed = f"{result.pflop:.3g} PFLOP, {result.pictures_per_second:.0f} pictures/s"
    return f"{result.name}: {exits} % on {part}, {epochs}, {speed} {result.why}".rstrip()


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("archive")
    parser.add_argument("jobs", nargs="*", default=list(RECORD), metavar="PRESET[:PFLOP]")
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything")
    parser.add_argument("--out", type=Path, default=Path("gpu"))
    parser.add_argument("--side_by_side", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], dest="settings", metavar="KEY=VALUE")
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes
    runs_dir = args.out / "runs"
    runs_dir.mkdir(parents=True, exist_ok=True)
    jobs: list[Job] = []
    for text in args.jobs:
        preset, _, pflop = text.partition(":")
        if preset not in presets():
            raise ConfigError(f"{text}: got the preset {preset!r}; accepted: {', '.join(presets())}")
        try:
            jobs.append(Job(preset, float(pflop) if pflop else None, tuple(args.settings), args.seed))
        except ValueError:
            raise ConfigError(f"{text}: got {pflop!r}; accepted: PRESET or PRESET:PFLOP, as small-50k:2.6") from None
    configs = [job.config(args.archive, str(runs_dir)) for job in jobs]  # checks all before anything runs
    load_pictures(configs[-1].data)  # once, into the cache
    waves = [jobs[i : i + args.side_by_side] for i in range(0, len(jobs), args.side_by_side)]
    lengths = [max(job.pflop or 1.0 for job in wave) for wave in waves]  # a preset's own length counts as 1
    failed = 0
    with ProcessPoolExecutor(args.side_by_side, multiprocessing.get_context("spawn"), keep_freed_memory) as pool:
        for index, wave in enumerate(waves):
            seconds = lengths[index] / sum(lengths[index:]) * (end - time.monotonic())
            futures = [pool.submit(run, job, args.archive, str(runs_dir), args.out, seconds) for job in wave]
            for job, future in zip(wave, futures, strict=True):
                try:
                    print(describe(future.result()), flush=True)
                except RamifyError as error:
                    failed += 1
                    print(f"{job.name}: error: {error}", flush=True)
            packed = shutil.make_archive(str(args.out / "new"), "gztar", args.out, "runs")
            Path(packed).replace(args.out / "runs.tar.gz")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
