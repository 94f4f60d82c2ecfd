"""The coordinator of a search: it alone asks, decides and writes, and workers train what it hands out.

A step is one trial trained to one rung. What is next follows from the record: first what was begun or may go on to its
next rung, then a new trial, while there are to be more. It may be killed at any moment: what is started again reads
the record and goes on; steps that were under way go on from their checkpoints.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import FrameType

from ramify.errors import RunError
from ramify.search.engine import TaskEngine, TaskLostError, Tasks
from ramify.search.measure import epochs_done
from ramify.search.study import STOP, Search, trial_config, verdicts_of
from ramify.search.task import TaskResult, TrialStep, train_trial
from ramify.search.trial import Trial

HOPELESS = 5
"""So many failures without one success are no accident."""
_PAUSE = 1.0
"""Seconds after which the coordinator looks around while no step ends."""


@dataclass(frozen=True)
class WorkBegan:
    """A trial is about to train from ``epoch`` to ``rung``."""

    trial: int
    epoch: int
    rung: int


@dataclass(frozen=True)
class StepTaken:
    """A trial has reached a rung."""

    trial: int
    rung: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class TrialEnded:
    """A trial is finished at a rung, or has ``failed`` for the reason given."""

    trial: int
    rung: int
    failed: str | None


WorkEvent = WorkBegan | StepTaken | TrialEnded
Notify = Callable[[WorkEvent], None]


def coordinate(
    search: Search,
    engine: TaskEngine,
    notify: Notify = lambda event: None,
    *,
    leave: threading.Event | None = None,
    step: Callable[[TrialStep], TaskResult] = train_trial,
) -> None:
    """Work on ``search`` until every trial is finished, it is asked to stop, or ``leave`` is set.

    Args:
        search: from :func:`ramify.search.study.start_search`.
        engine: where steps are computed.
        notify: called with every :data:`WorkEvent`.
        leave: set it, and the coordinator leaves; steps under way are broken off, and go on when it is started again.
        step: what is done with a trial, called on a worker.

    Raises:
        RunError: the first trials all failed, the engine is gone, or the database is gone for good.
        InputError: another process has taken the search.
    """
    leave, stop = leave or threading.Event(), search.folder / STOP
    tasks: Tasks[tuple[int, int], TaskResult] = Tasks(engine)
    while not leave.is_set() and not stop.exists():
        assert search.owner is not None
        search.owner.check()
        if not _hand_out(search, tasks, notify, step):
            return
        for (number, rung), outcome in tasks.ended(_PAUSE):
            _take_in(search, number, rung, outcome, notify)
    with contextlib.suppress(OSError):
        # Steps on other machines leave with the epoch that they are in.
        stop.touch()


def _hand_out(
    search: Search, tasks: Tasks[tuple[int, int], TaskResult], notify: Notify, step: Callable[[TrialStep], TaskResult]
) -> bool:
    """Give every free worker something to do; whether anything is still to be done."""
    _give_up_if_hopeless(search.trials())
    left = verdicts_of(search)
    for number, (verdict, rung) in list(left.items()):
        if verdict == "finish":
            search.finish(number)
            notify(TrialEnded(number, rung, None))
            del left[number]
    running = {number for number, _ in tasks.running}
    # The one that is farthest comes first; of those that are as far, the oldest.
    ready = sorted((-rung, number) for number, (verdict, rung) in left.items() if verdict == "train")
    waiting = [(number, -rung) for rung, number in ready if number not in running]
    for _ in range(tasks.free):
        if waiting:
            number, rung = waiting.pop(0)
        elif len(search.trials()) < search.wanted:
            number, rung = search.add().number, search.space.rungs[0]
        else:
            break
        _start(search, tasks, search.trials()[number], rung, notify, step)
    return bool(left or tasks.running) or len(search.trials()) < search.wanted


def _start(
    search: Search,
    tasks: Tasks[tuple[int, int], TaskResult],
    trial: Trial,
    rung: int,
    notify: Notify,
    step: Callable[[TrialStep], TaskResult],
) -> None:
    space = search.space
    config = trial_config(search, trial)
    if trial.ancestor is not None and config.parent is None:
        search.begin_fresh(trial.number)
    folder = search.runs / trial.name
    needed = {*space.names, *(constraint.name for constraint in space.constraints)}
    functions = tuple(each for each in space.objectives if each.function is not None)
    given = TrialStep(
        config, rung, tuple(sorted(needed)), functions, space.max_drop, space.inherit, search.folder.resolve() / STOP
    )
    notify(WorkBegan(trial.number, min(epochs_done(folder), rung), rung))
    tasks.start((trial.number, rung), partial(step, given), partial(epochs_done, folder))


def _take_in(search: Search, number: int, rung: int, outcome: TaskResult | TaskLostError, notify: Notify) -> None:
    if isinstance(outcome, TaskLostError):
        outcome = TaskResult(failed=outcome.problems[0])
    if outcome.failed is not None:
        search.finish(number, outcome.failed)
        notify(TrialEnded(number, rung, outcome.failed))
    elif outcome.values is not None:
        device = outcome.device if "latency" in search.space.names else None
        search.record(number, rung, outcome.values, device)
        notify(StepTaken(number, rung, outcome.values))


def _give_up_if_hopeless(trials: list[Trial]) -> None:
    failed = [trial.failed for trial in trials if trial.failed is not None]
    if len(failed) >= HOPELESS and not any(trial.results for trial in trials):
        raise RunError(f"the first {len(failed)} trials all failed, the last because of: {failed[-1]}")


@contextlib.contextmanager
def leaving_on_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, within the block; a second Ctrl-C breaks off at once."""
    leave = threading.Event()

    def set_it(number: int, frame: FrameType | None) -> None:
        if leave.is_set():
            raise KeyboardInterrupt
        leave.set()

    before = {number: signal.signal(number, set_it) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield leave
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
