"""Trackers: TensorBoard and W&B, switched on by name; what fails in one never ends a training."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ramify.errors import InputError, unknown_name
from ramify.run.events import Event, Observer, Started
from ramify.show.trackers import tensorboard, wandb
from ramify.show.trackers.tensorboard import TensorBoardLog
from ramify.show.trackers.wandb import WandbLog

Tell = Callable[[str], None]


class Forgiving:
    """An observer that calls another one, until that fails: then it says so in one sentence, and the run goes on.

    Args:
        observer: the tracker.
        name: what it is called in the sentence.
        tell: called with the sentence, once in a run.
        failures: what it may fail with, as on a full disk or where the network is gone; all else is a fault, and ends
            the run.

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
        self, observer: Observer, name: str, tell: Tell, failures: tuple[type[Exception], ...] = (OSError,)
    ) -> None:
        self._observer, self._name, self._tell, self._failures = observer, name, tell, failures
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
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            self._tell(f"{self._name}: logs no more ({first}); the training goes on")


FOLDERS = {"tensorboard": tensorboard.FOLDER, "wandb": wandb.WANDB_FOLDER}
"""Where each tracker keeps its files, in the folder of a run."""


def _tensorboard(tell: Tell) -> Observer:
    return Forgiving(TensorBoardLog(), "tensorboard", tell)


def _wandb(tell: Tell) -> Observer:
    log = WandbLog(tell=tell)
    return Forgiving(log, "wandb", tell, log.failures)


TRACKERS: dict[str, Callable[[Tell], Observer]] = {"tensorboard": _tensorboard, "wandb": _wandb}
"""What ``--track`` accepts."""


def trackers(names: Sequence[str], tell: Tell, folder: Path | None = None) -> list[Observer]:
    """The trackers called ``names``, none of which ends a training by failing.

    Args:
        names: in :data:`TRACKERS`.
        tell: called with what fails.
        folder: of a run that goes on: what has followed it so far is added, or what prevents it is said.

    Raises:
        InputError: a name is unknown, the package of a tracker is missing, or it needs a log-in.
    """
    unknown = [name for name in names if name not in TRACKERS]
    if unknown:
        raise InputError(unknown_name("--track", unknown[0], TRACKERS))
    found = [TRACKERS[name](tell) for name in dict.fromkeys(names)]
    for name, place in FOLDERS.items():
        if folder is not None and (folder / place).is_dir() and name not in names:
            try:
                found.append(TRACKERS[name](tell))
            except InputError as error:
                tell(f"{error}; the run goes on without")
    return found
