"""The coordinator of a search: it alone draws, decides and writes; workers train.

A step is one trial trained to one rung. The record decides what is next: first trials that were begun or are promoted
to their next rung, then new trials. The coordinator may be killed at any moment: started again, it reads the record,
and steps that were under way continue from their checkpoints.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import FrameType

from ramify.errors import RunError
from ramify.search.engine import TaskEngine, Tasks
from ramify.search.halving import verdicts
from ramify.search.measure import epochs_done
from ramify.search.study import STOP, Search, trial_config
from ramify.search.task import TaskResult, TrialStep, train_trial
from ramify.search.trial import Trial

HOPELESS = 5
"""Failures without a success after which a search is given up."""
_PAUSE = 1.0
"""Seconds that the coordinator waits for a step to end."""


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
    """A trial is finished at a rung, or has ``failed`` for a reason."""

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
    """Run ``search`` until every trial is finished, its stop file is there, or ``leave`` is set.

    Args:
        search: from :func:`ramify.search.study.start_search`.
        notify: called with every :data:`WorkEvent`.
        leave: set it to end; steps under way are interrupted, and continue when the search is started again.
        step: trains a trial to a rung and measures it, on a worker.

    Raises:
        RunError: the first trials all failed, the engine is gone, or the database is gone for good.
        InputError: another process has taken the search.
    """
    leave, stop = leave or threading.Event(), search.folder / STOP
    work = _Work(search, Tasks(engine, lambda why: TaskResult(failed=why)), notify, step)
    while not leave.is_set() and not stop.exists():
        assert search.owner is not None
        search.owner.check()
        if not work.hand_out():
            return
        work.take_in()
    with contextlib.suppress(OSError):
        # Steps on other machines end with the epoch that they are in.
        stop.touch()


@dataclass(frozen=True)
class _Work:
    """The steps under way."""

    search: Search
    tasks: Tasks[tuple[int, int], TaskResult]
    notify: Notify
    step: Callable[[TrialStep], TaskResult]

    def hand_out(self) -> bool:
        """Start a step on every free worker; whether anything is still to be done."""
        search, trials = self.search, self.search.trials()
        failed = [trial.failed for trial in trials if trial.failed is not None]
        if len(failed) >= HOPELESS and not any(trial.results for trial in trials):
            raise RunError(f"the first {len(failed)} trials all failed, the last because of: {failed[-1]}")
        left = verdicts(search.space, trials, search.planned)
        for number, (verdict, rung) in list(left.items()):
            if verdict == "finish":
                search.finish(number)
                self.notify(TrialEnded(number, rung, None))
                del left[number]
        running = {number for number, _ in self.tasks.running}
        # The one that is farthest comes first; of those that are as far, the oldest.
        ready = sorted((-rung, number) for number, (verdict, rung) in left.items() if verdict == "train")
        waiting = [(number, -rung) for rung, number in ready if number not in running]
        for _ in range(self.tasks.free):
            if waiting:
                number, rung = waiting.pop(0)
            elif len(search.trials()) < search.planned:
                number, rung = search.add().number, search.space.rungs[0]
            else:
                break
            self._start(search.trials()[number], rung)
        return bool(left or self.tasks.running) or len(search.trials()) < search.planned

    def _start(self, trial: Trial, rung: int) -> None:
        search, space = self.search, self.search.space
        config = trial_config(search, trial)
        if trial.ancestor is not None and config.parent is None:
            search.begin_fresh(trial.number)
        needed = {*space.names, *(constraint.name for constraint in space.constraints)}
        functions = tuple(objective for objective in space.objectives if objective.function is not None)
        stop = search.folder.resolve() / STOP
        step = TrialStep(config, rung, tuple(sorted(needed)), functions, space.max_drop, space.inherit, stop)
        epochs = partial(epochs_done, search.runs / trial.name)
        self.notify(WorkBegan(trial.number, min(epochs(), rung), rung))
        self.tasks.start((trial.number, rung), partial(self.step, step), epochs)

    def take_in(self) -> None:
        """Put on record the results of steps that have ended."""
        for (number, rung), outcome in self.tasks.ended(_PAUSE):
            if outcome.failed is not None:
                self.search.finish(number, outcome.failed)
                self.notify(TrialEnded(number, rung, outcome.failed))
            elif outcome.values is not None:
                device = outcome.device if "latency" in self.search.space.names else None
                self.search.record(number, rung, outcome.values, device)
                self.notify(StepTaken(number, rung, outcome.values))


@contextlib.contextmanager
def leaving_on_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, within the block; a second Ctrl-C interrupts at once."""
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
