"""What a GPU can train in a few minutes, several networks side by side; started by ``bench/gpu.sh run``.

    python bench/gpu.py ARCHIVE --minutes 9 --out OUT compact-100k:2.6 small-50k:2.6 gnap-158k:2.6 seed-full-ic

Each preset is asked for with the length of its training in PFLOP (``6 x MACs x pictures x epochs / 1e15``), or, without
one, with its own epochs. They run in waves of ``--side_by_side`` processes, in the order given. A wave has a share of
the time that is left, by its longest training. In its time a run first trains a trial of a few epochs, which says how
many epochs fit; its schedule is then moved to as many, or to those asked for if these are fewer. A run that is not
ready in its time stops after an epoch, and can go on elsewhere from ``OUT/runs.tar.gz``. ``OUT/NAME.json`` says what
came out.
"""

import argparse
import json
import multiprocessing
import sys
import tarfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from table import work

import ramify
from ramify.config.presets import presets
from ramify.config.rules import Config
from ramify.data.sources import load_pictures
from ramify.errors import ConfigError, InputError, RamifyError, RunError
from ramify.files import write_atomic
from ramify.run.distributed import ALONE
from ramify.run.events import EpochDone, Event
from ramify.run.folder import CONFIG
from ramify.training.allocator import keep_freed_memory
from ramify.training.prepare import prepare_run

RECORD = ("compact-100k:2.6", "small-50k:2.6", "gnap-158k:2.6", "tiny-20k:1.3", "seed-full-ic", "seed-iterative")
"""By value: the first two at the length of the record at 100,000 weights, cifar10-tiniest."""


@dataclass(frozen=True)
class Wanted:
    """A run that is asked for: a preset, and the length of its training, None for its own."""

    preset: str
    pflop: float | None
    settings: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        """Name of the run and of its file."""
        return f"{self.preset}-seed{self.seed}"

    def config(self, archive: str, runs_dir: str, epochs: int | None = None) -> Config:
        """The run in so many epochs."""
        fixed = [f"data.source={archive}", f"runs_dir={runs_dir}", f"name={self.name}", f"seed={self.seed}"]
        config = ramify.read_config([presets()[self.preset]], [*fixed, *self.settings])
        return config if epochs is None else ramify.rescale(config, epochs)


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        wanted: epochs that were asked for; ``planned`` those that fitted, and ``epochs`` those that were trained.
        pflop: of these.
        finished: whether it was tested; else ``why`` says what happened.
        exits: test accuracy of each exit in [0, 1], and ``valid`` the same on the validation pictures, if any.
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


def run(wanted: Wanted, archive: str, runs_dir: str, out: Path, seconds: float) -> Outcome:
    """Train one preset as long as asked for, or as long as fits into ``seconds``."""
    ends = time.monotonic() + seconds
    config, _, parts = prepare_run(wanted.config(archive, runs_dir), ALONE)
    pictures = len(parts.train)
    _, whole = work(config, pictures, Path(runs_dir) / "none")
    asked = config.train.epochs if wanted.pflop is None else max(1, round(config.train.epochs * wanted.pflop / whole))
    planned, why = 0, ""
    try:
        fitting = ramify.rescale_to_minutes(wanted.config(archive, runs_dir), (ends - time.monotonic()) / 60)
        planned = min(asked, fitting.train.epochs)
    except ConfigError as error:
        why = str(error)
    began, done = time.monotonic(), 0

    def watch(event: Event) -> None:
        nonlocal done
        if isinstance(event, EpochDone):
            done = event.epoch
            each = (time.monotonic() - began) / event.epoch
            if event.epoch < event.epochs and time.monotonic() + each > ends:
                raise RunError(f"its time was over after epoch {event.epoch} of {event.epochs}")

    if planned:
        try:
            ramify.train(wanted.config(archive, runs_dir, planned), [watch], overwrite=True)
        except RunError as error:
            why = str(error)
    took = time.monotonic() - began
    folder = Path(runs_dir) / wanted.name
    there = (folder / "last").exists()
    summary = ramify.describe(folder) if there else None
    exits = () if summary is None else summary.exits
    outcome = Outcome(
        name=wanted.name,
        wanted=asked,
        planned=planned,
        epochs=done,
        pflop=work(ramify.read_config([folder / CONFIG]), pictures, folder)[0] if there else 0.0,
        finished=not why,
        why=why,
        kept=exits[-1].kept if exits else None,
        parameters=exits[-1].parameters if exits else None,
        exits=tuple(exit_.test.top1 for exit_ in exits if exit_.test is not None),
        valid=tuple(exit_.valid.top1 for exit_ in exits if exit_.valid is not None),
        seconds=took,
        pictures_per_second=done * pictures / took if done else 0.0,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        settings=wanted.settings,
    )
    write_atomic(out / f"{wanted.name}.json", (json.dumps(asdict(outcome), indent=2) + "\n").encode())
    return outcome


def waves(wanted: Sequence[Wanted], side_by_side: int) -> list[list[Wanted]]:
    """The runs in groups that train at the same time."""
    return [list(wanted[at : at + side_by_side]) for at in range(0, len(wanted), side_by_side)]


def length(wave: Sequence[Wanted]) -> float:
    """PFLOP of the longest training of a wave; a preset's own length counts as 1."""
    return max(each.pflop or 1.0 for each in wave)


def told(outcome: Outcome) -> str:
    """One line for a run."""
    exits = ", ".join(f"{100 * share:.2f}" for share in outcome.exits or outcome.valid) or "nothing"
    where = "test" if outcome.exits else "validation"
    epochs = f"{outcome.epochs} of {outcome.planned} epochs ({outcome.wanted} wanted)"
    speed = f"{outcome.pflop:.3g} PFLOP, {outcome.pictures_per_second:.0f} pictures/s"
    return f"{outcome.name}: {exits} % on {where}, {epochs}, {speed} {outcome.why}".rstrip()


def keep(runs_dir: Path, path: Path) -> None:
    """All runs in one file, as far as they are, so that they can be looked at, and go on."""
    fresh = path.with_name(f"{path.name}.new")
    with tarfile.open(fresh, "w:gz") as archive:
        archive.add(runs_dir, "runs")
    fresh.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("archive")
    parser.add_argument("wanted", nargs="*", default=list(RECORD), metavar="PRESET[:PFLOP]")
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything")
    parser.add_argument("--out", type=Path, default=Path("gpu"))
    parser.add_argument("--side_by_side", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], dest="settings", metavar="KEY=VALUE")
    given = parser.parse_args()
    ends = time.monotonic() + 60 * given.minutes
    runs_dir = given.out / "runs"
    runs_dir.mkdir(parents=True, exist_ok=True)
    wanted: list[Wanted] = []
    for text in given.wanted:
        preset, _, pflop = text.partition(":")
        if preset not in presets():
            raise ConfigError(f"{text}: got the preset {preset!r}; accepted: {', '.join(presets())}")
        try:
            wanted.append(Wanted(preset, float(pflop) if pflop else None, tuple(given.settings), given.seed))
        except ValueError:
            raise ConfigError(f"{text}: got {pflop!r}; accepted: PRESET or PRESET:PFLOP, as small-50k:2.6") from None
    for each in wanted:  # what is wrong is said before anything runs
        config = each.config(given.archive, str(runs_dir))
    load_pictures(config.data)  # once, into the cache
    left, failed = waves(wanted, given.side_by_side), 0
    with ProcessPoolExecutor(given.side_by_side, multiprocessing.get_context("spawn"), keep_freed_memory) as pool:
        while left:
            share = length(left[0]) / sum(map(length, left))
            seconds = share * (ends - time.monotonic())
            wave = left.pop(0)
            jobs = [pool.submit(run, each, given.archive, str(runs_dir), given.out, seconds) for each in wave]
            for each, job in zip(wave, jobs, strict=True):
                try:
                    print(told(job.result()), flush=True)
                except RamifyError as error:
                    failed += 1
                    print(f"{each.name}: error: {error}", flush=True)
            keep(runs_dir, given.out / "runs.tar.gz")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
