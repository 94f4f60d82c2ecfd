"""The tasks of workers: one step of a trial, or one whole run, from its last checkpoint."""

import contextlib
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ramify.config.keys import dotted
from ramify.config.rules import Config
from ramify.errors import ConfigError, InputError, RamifyError, RunError, first_line
from ramify.files import write_atomic
from ramify.run.device import place_of
from ramify.run.events import EpochDone, Event, Started
from ramify.run.folder import is_run, locked, read_summary
from ramify.run.summary import describe_machine
from ramify.sealed import check_seal, parse_object, sealed_json
from ramify.search.ancestry import keep_rung
from ramify.search.goals import Objective
from ramify.search.measure import epochs_done, measure
from ramify.training.run import resume, train

ASKED = "asked.json"
"""The file with the requested configuration of a run, before it was resolved."""


@dataclass(frozen=True)
class TaskResult:
    """``values`` of a trial measured on ``device``, a ``finished`` run, why it ``failed``, or nothing after a stop."""

    values: dict[str, float] | None = None
    failed: str | None = None
    finished: bool = False
    device: str | None = None


class _LeavingError(Exception):
    """Ends a training whose checkpoint is on disk."""


def train_up_to(config: Config, epoch: int | None = None, stop: Path | None = None) -> Path:
    """Train the run of ``config`` up to ``epoch``, or to its end, from its last checkpoint; returns its folder.

    The run is bitwise the one that trains without a pause: rates, growth and pruning follow ``train.epochs``. An
    unfinished run of that name with another configuration is replaced. Another process in the folder, such as one that
    lost its connection, is waited for.

    Args:
        stop: a file; once it exists, training ends after the current epoch.

    Raises:
        ConfigError: a finished run of that name has another configuration.
        RamifyError: as :func:`ramify.training.run.train`.
    """
    assert config.name is not None
    folder = Path(config.runs_dir) / config.name

    def watch(event: Event) -> None:
        if isinstance(event, Started):
            write_atomic(folder / ASKED, sealed_json(_asked(config)))
        elif isinstance(event, EpochDone) and (event.epoch == epoch or (stop is not None and stop.exists())):
            raise _LeavingError

    while True:
        same = is_same(folder, config)
        if same and epoch is not None and epochs_done(folder) >= epoch and not in_use(folder):
            return folder
        if not same and read_summary(folder) is not None:
            keys = ", ".join(_other_keys(folder, config) or ["keys"])
            accepts = f"another name, or remove {folder}"
            raise ConfigError(f"name: got {config.name}, a finished run with other {keys}; accepted: {accepts}")
        try:
            with contextlib.suppress(_LeavingError):
                if same:
                    resume(folder, [watch])
                else:
                    train(config, [watch], overwrite=True)
        except InputError:
            if not in_use(folder) or (stop is not None and stop.exists()):
                raise
            time.sleep(1)
            continue
        return folder


def _asked(config: Config) -> dict[str, object]:
    return config.model_dump(mode="json", exclude={"runs_dir", "parent"})


def is_same(folder: Path, config: Config) -> bool:
    """Whether the run in ``folder`` is that of ``config``.

    Raises:
        CheckpointError: the file with its requested configuration is damaged.
    """
    return _other_keys(folder, config) == []


def _other_keys(folder: Path, config: Config) -> list[str] | None:
    """The keys in which the run in ``folder`` differs from ``config``; None where nobody knows, or there is no run."""
    path = folder / ASKED
    if not (is_run(folder) and path.is_file()):
        return None
    kept = check_seal(parse_object(path.read_bytes(), str(path)), str(path), needed=True)
    # Keys that the ramify which wrote it did not have yet are as by default.
    was, asked = {**dotted(_asked(Config())), **dotted(kept)}, dotted(_asked(config))
    return sorted(key for key in {*was, *asked} if was.get(key) != asked.get(key))


def in_use(folder: Path) -> bool:
    """Whether a process works in the folder of a run."""
    if not folder.is_dir():
        return False
    try:
        with locked(folder):
            return False
    except InputError:
        return True


@dataclass(frozen=True)
class TrialStep:
    """The task to train a trial to a rung and measure it.

    Attributes:
        needed: names of the values to measure, and ``functions`` those of the user.
        keep: whether the network at the rung is kept for later trials.
        stop: the stop file.
    """

    config: Config
    rung: int
    needed: tuple[str, ...]
    functions: tuple[Objective, ...]
    max_drop: float
    keep: bool
    stop: Path


def train_trial(step: TrialStep) -> TaskResult:
    """Train a trial to its rung and measure it.

    Raises:
        RunError: the machine failed, not the trial: the folder is missing, or the disk is full.
    """

    def work() -> TaskResult:
        folder = train_up_to(step.config, step.rung, stop=step.stop)
        if epochs_done(folder) < step.rung:
            return TaskResult()
        values = measure(folder, step.needed, step.max_drop, step.functions)
        if step.keep:
            keep_rung(folder, step.rung)
        where = place_of(step.config)
        return TaskResult(values, device=str(describe_machine(where.device, where.precision)["device"]))

    return _guarded(work, step.stop.parent)


def train_run(config: Config, stop: Path) -> TaskResult:
    """Train the run of ``config`` to its end; errors as :func:`train_trial`."""
    return _guarded(lambda: TaskResult(finished=read_summary(train_up_to(config, stop=stop)) is not None), stop.parent)


def _guarded(work: Callable[[], TaskResult], shared: Path) -> TaskResult:
    if not shared.is_dir():
        raise RunError(f"{shared}: is not there on {platform.node()}; accepted: a folder that every worker sees")
    try:
        return work()
    except (RamifyError, RuntimeError, MemoryError, ValueError, TypeError, ArithmeticError) as error:
        if isinstance(error.__cause__, OSError):
            # A full disk or a missing file is no failure of the run.
            raise RunError(first_line(error)) from None
        return TaskResult(failed=first_line(error))
