"""Trackers: TensorBoard and W&B, switched on by name; a failure in one never ends a training."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ramify.errors import InputError, first_line, unknown_name
from ramify.run.events import Event, Observer, Started
from ramify.show.trackers import tensorboard, wandb
from ramify.show.trackers.tensorboard import TensorBoardLog
from ramify.show.trackers.wandb import WandbLog

Warn = Callable[[str], None]


class Forgiving:
    """An observer that calls another one until that fails; then it warns in one sentence, and the run goes on.

    Args:
        warn: called with the sentence, once in a run.
        failures: errors of a full disk or a lost network; any other error ends the run.

    Example:
        >>> from ramify.run.events import NewBest
        >>> def full(event):
        ...     raise OSError("no space left")
        >>> forgiving = Forgiving(full, "mine", print)
        >>> forgiving(NewBest(epoch=1, score=0.5))
        mine: logs no more (no space left); the training goes on
        >>> forgiving(NewBest(epoch=2, score=0.6))
    """

    def __init__(
        self, observer: Observer, name: str, warn: Warn, failures: tuple[type[Exception], ...] = (OSError,)
    ) -> None:
        self._observer, self._name, self._warn, self._failures = observer, name, warn, failures
        self._failed = False

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self._failed = False
        if self._failed:
            return
        try:
            self._observer(event)
        except self._failures as error:
            self._failed = True
            self._warn(f"{self._name}: logs no more ({first_line(error)}); the training goes on")


FOLDERS = {"tensorboard": tensorboard.FOLDER, "wandb": wandb.WANDB_FOLDER}
"""The folder of each tracker in the folder of a run."""


def _tensorboard(warn: Warn) -> Observer:
    return Forgiving(TensorBoardLog(), "tensorboard", warn)


def _wandb(warn: Warn) -> Observer:
    log = WandbLog(notice=warn)
    return Forgiving(log, "wandb", warn, log.failures)


TRACKERS: dict[str, Callable[[Warn], Observer]] = {"tensorboard": _tensorboard, "wandb": _wandb}
"""What ``--track`` accepts."""


def trackers(names: Sequence[str], warn: Warn, folder: Path | None = None) -> list[Observer]:
    """The trackers called ``names``, none of which ends a training by failing.

    Args:
        warn: called with sentences on failures.
        folder: of a run that is resumed: the trackers that it had are added, with a warning where that fails.

    Raises:
        InputError: a name is unknown, the package of a tracker is missing, or it needs a log-in.
    """
    unknown = [name for name in names if name not in TRACKERS]
    if unknown:
        raise InputError(unknown_name("--track", unknown[0], TRACKERS))
    observers = [TRACKERS[name](warn) for name in dict.fromkeys(names)]
    for name, place in FOLDERS.items():
        if folder is not None and (folder / place).is_dir() and name not in names:
            try:
                observers.append(TRACKERS[name](warn))
            except InputError as error:
                warn(f"{error}; the run goes on without")
    return observers
