"""A worker: it takes what is to be done next, does it, puts it on record, and may die at any moment.

A step is one trial trained to one rung. What is next follows from the record: first trials that were begun and have
no living worker, or that may go on to their next rung; then a new one, while there are to be more. Two workers never
train the same trial, as each is claimed first; were one to lose its claim underway, it would leave the trial alone.
"""

import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from ramify.errors import InputError, RamifyError, RunError
from ramify.run.events import EpochDone, Event, StepDone
from ramify.run.folder import METRICS, locked, read_lines
from ramify.search.ancestry import keep_rung
from ramify.search.leases import LEASE_SECONDS, Worker, this_worker
from ramify.search.measure import measure, train_up_to
from ramify.search.storage import patiently
from ramify.search.study import (
    Search,
    Trial,
    add_trial,
    began_fresh,
    finish_trial,
    record_result,
    trial_config,
    verdicts_of,
)

ASKING = "asking for a trial"
"""What a worker claims while it adds a trial, so that there are never more than were wanted."""
HOPELESS = 5
"""So many failures without one success are no accident."""
PAUSE = 1.0
"""Seconds between two looks at the record while there is nothing to do."""


@dataclass(frozen=True)
class StepTaken:
    """A trial has reached a rung."""

    trial: int
    rung: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class TrialEnded:
    """A trial is finished at a rung, or has ``failed`` for the reason told."""

    trial: int
    rung: int
    failed: str | None


@dataclass(frozen=True)
class WorkBegan:
    """A trial is about to train from ``epoch`` to ``rung``."""

    trial: int
    epoch: int
    rung: int


WorkEvent = WorkBegan | StepTaken | TrialEnded


class _LeavingError(Exception):
    """The worker is to leave what it does, at once."""


def work(
    search: Search,
    tell: Callable[[WorkEvent], None] = lambda event: None,
    *,
    leave: threading.Event | None = None,
    lease_seconds: float = LEASE_SECONDS,
) -> None:
    """Work on ``search`` until every trial is finished, it is stopped, or ``leave`` is set.

    Args:
        search: an open one.
        tell: called with every :data:`WorkEvent` of this worker.
        leave: set it, and the worker leaves after the step of training that it is in; others go on with its trial.
        lease_seconds: how long others wait for a worker that is not heard of.

    Raises:
        RunError: the first trials all failed, or the database is gone for good.
    """
    leave = leave or threading.Event()
    me = this_worker()
    while not leave.is_set() and not search.stopped():
        trials = search.trials()
        _give_up_if_hopeless(trials)
        left = verdicts_of(search, trials)
        for number, (verdict, rung) in left.items():
            if verdict == "finish" and finish_trial(search, number):
                tell(TrialEnded(number, rung, None))
        held = patiently(search.leases.held)
        ready = [trials[n] for n, (verdict, _) in left.items() if verdict == "train" and trials[n].name not in held]
        # The one that is farthest comes first; of those that are as far, the oldest.
        ready.sort(key=lambda trial: (-left[trial.number][1], trial.number))
        if any(_claimed(search, trial, me, tell, leave, lease_seconds) for trial in ready):
            continue
        open_trials = [number for number, (verdict, _) in left.items() if verdict != "finish"]
        if len(trials) < search.wanted():
            if not _add(search, me, lease_seconds):
                leave.wait(PAUSE / 5)
        elif not open_trials:
            return
        else:
            leave.wait(PAUSE)


def _add(search: Search, me: Worker, lease_seconds: float) -> bool:
    """Put a new trial on record, unless another worker is about to."""
    if not patiently(lambda: search.leases.claim(ASKING, me, lease_seconds)):
        return False
    try:
        if len(search.trials()) < search.wanted():
            add_trial(search, secrets.token_hex(8))
    finally:
        patiently(lambda: search.leases.release(ASKING, me))
    return True


def _claimed(
    search: Search,
    trial: Trial,
    me: Worker,
    tell: Callable[[WorkEvent], None],
    leave: threading.Event,
    lease_seconds: float,
) -> bool:
    """Claim ``trial``, and do its next step if it is still to be done; whether anything was done."""
    if not patiently(lambda: search.leases.claim(trial.name, me, lease_seconds)):
        return False
    with _renewing(search, trial.name, me, lease_seconds, leave) as lost:
        # Since it was chosen, another may have done the step.
        trials = search.trials()
        verdict, rung = verdicts_of(search, trials).get(trial.number, ("finish", 0))
        if verdict != "train":
            return True
        if _in_use(search, trial):
            return False  # its last worker was taken for dead, and is not: it will notice, or finish the step
        try:
            _step(search, trials[trial.number], rung, tell, lost)
        except _LeavingError:
            pass
        except (RamifyError, RuntimeError, MemoryError) as error:
            if lost.is_set() or _in_use(search, trial):
                return False
            if isinstance(error.__cause__, OSError):
                raise  # a full disk or a missing file says nothing about the trial: it is left to others
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            if finish_trial(search, trial.number, failed=reason):
                tell(TrialEnded(trial.number, rung, reason))
    return True


def _in_use(search: Search, trial: Trial) -> bool:
    folder = search.runs / trial.name
    if not folder.is_dir():
        return False
    try:
        with locked(folder):
            return False
    except InputError:
        return True


def _step(search: Search, trial: Trial, rung: int, tell: Callable[[WorkEvent], None], lost: threading.Event) -> None:
    config = trial_config(search, trial)

    def watch(event: Event) -> None:
        if lost.is_set() and isinstance(event, StepDone | EpochDone):
            raise _LeavingError

    if trial.ancestor is not None and config.parent is None:
        began_fresh(search, trial.number)
    done = len(read_lines(search.runs / trial.name / METRICS))
    tell(WorkBegan(trial.number, min(done, rung), rung))
    folder = train_up_to(config, rung, [watch])
    values = measure(folder, _needed(search), search.space.max_drop)
    if lost.is_set():
        raise _LeavingError
    if search.space.inherit:
        keep_rung(folder, rung)
    record_result(search, trial.number, rung, values)
    tell(StepTaken(trial.number, rung, values))


def _needed(search: Search) -> tuple[str, ...]:
    """Objectives, and what constraints speak of."""
    return (*search.space.objectives, *(constraint.name for constraint in search.space.constraints))


@contextmanager
def _renewing(
    search: Search, name: str, me: Worker, seconds: float, leave: threading.Event
) -> Iterator[threading.Event]:
    """Renew a claim in the background; gives an event that is set once the trial is to be left alone."""
    lost, over = threading.Event(), threading.Event()

    def renew() -> None:
        while not over.wait(seconds / 4):
            try:
                if not search.leases.renew(name, me, seconds) or search.stopped():
                    lost.set()
                    return
            except Exception:  # the database is away; the claim holds for a while, so try again
                continue

    def follow() -> None:
        while not over.is_set():
            if leave.wait(0.2):
                lost.set()
                return

    threads = [threading.Thread(target=each, daemon=True) for each in (renew, follow)]
    for thread in threads:
        thread.start()
    try:
        yield lost
    finally:
        over.set()
        for thread in threads:
            thread.join()
        patiently(lambda: search.leases.release(name, me))


def _give_up_if_hopeless(trials: list[Trial]) -> None:
    failed = [trial.failed for trial in trials if trial.failed is not None]
    if len(failed) >= HOPELESS and not any(trial.results for trial in trials):
        raise RunError(f"the first {len(failed)} trials all failed, the last because of: {failed[-1]}")


@contextmanager
def leaving_on_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, within the block."""
    leave = threading.Event()

    def set_it(number: int, frame: FrameType | None) -> None:
        leave.set()

    before = {number: signal.signal(number, set_it) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield leave
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
