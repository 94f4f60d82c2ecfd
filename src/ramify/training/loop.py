"""The training loop, top to bottom: what ``ramify train`` does.

Between steps the loop asks the schedule what is due, calls the operation, and notifies the observers. Every draw comes
from the run's seed and the epoch (see :mod:`ramify.seeds`), and every epoch ends with a checkpoint, so a resumed run
ends with the same bits as an uninterrupted one.
"""

import functools
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from ramify.data.pictures import Part
from ramify.files import replace_folder
from ramify.ops.cost import stage_density
from ramify.ops.growing.grow import Growth
from ramify.ops.loss import class_weights
from ramify.ops.pruning.sparse import weight_shapes
from ramify.ops.surgery import align_state
from ramify.run.evaluate import Score, evaluate, to_float
from ramify.run.events import (
    EpochDone,
    Event,
    Finished,
    Grew,
    GrowthEnded,
    NewBest,
    Observer,
    Pruned,
    Started,
    StoppedEarly,
    Widened,
)
from ramify.run.folder import EVENTS, METRICS, append_line
from ramify.run.pictures import Parts
from ramify.run.summary import Summary
from ramify.schedule import GrowthVerdict, ready_for_best
from ramify.training.distillation import Guidance
from ramify.training.epoch import stop_if_broken, train_epoch, with_valid
from ramify.training.growing import (
    GrowthDue,
    due_growth,
    freeze_for,
    gradient_sharing,
    grow_network,
    growing_is_over,
    trunk_trains_alone,
)
from ramify.training.outcome import finish
from ramify.training.pruning import prune_if_due, pruned_line, some_pictures
from ramify.training.state import PICTURES, State
from ramify.training.step import Step
from ramify.training.teacher import Teacher


class _Record:
    """The observers, logs and checkpoints of a run; the first process alone has them."""

    def __init__(self, folder: Path, observers: tuple[Observer, ...], first: bool) -> None:
        self.folder, self._observers, self._first = folder, observers if first else (), first

    def tell(self, event: Event) -> None:
        for observer in self._observers:
            observer(event)

    def note(self, name: str, record: dict[str, object]) -> None:
        if self._first:
            append_line(self.folder / name, record)

    def keep(self, name: str, files: Callable[[], dict[str, bytes]]) -> None:
        if self._first:
            replace_folder(self.folder / name, files())


def run_epochs(
    state: State, folder: Path, parts: Parts, teacher: Teacher | None, observers: tuple[Observer, ...]
) -> Summary:
    """Train the remaining epochs, then test."""
    config, where = state.config, state.where
    record = _Record(folder, observers, where.team.first)
    train_part, valid_part = parts.train.to(where.device), parts.valid.to(where.device)
    larger_part = train_part if parts.larger is None else parts.larger.to(where.device)
    record.tell(_started(state, folder, parts))
    guidance = Guidance(state, train_part, teacher)
    step = Step(state, guidance, class_weights(config.train.class_weights, train_part.labels, len(parts.classes)))
    for epoch in range(state.epoch + 1, config.train.epochs + 1):
        if _stops_early(state):
            record.note(EVENTS, {"event": "stopped_early", "epoch": state.epoch, "best": state.best_epoch})
            record.tell(StoppedEarly(state.epoch, state.best_epoch or state.epoch))
            break
        changed = _change_network(state, train_part, epoch, record)
        freeze_for(state, epoch)
        align_state(state.optimizer)
        step.renew(state, gradient_sharing(state, epoch))
        if changed:
            where.team.compare(state.network, f"epoch {epoch}, before its first step")
        began = time.perf_counter()
        done = train_epoch(state, step, larger_part, epoch, record.tell)
        for network in (state.network, *state.followers):
            where.team.average_buffers(network)
            where.team.compare(network, f"epoch {epoch}")
        scores = partial(evaluate, state.answering, valid_part, where.precision, where.team, config.train.flip_test)
        valid = tuple(scores()) if len(valid_part) else None
        stop_if_broken(done, valid, folder)
        state.epoch, state.valid = epoch, valid
        state.seconds += time.perf_counter() - began
        if valid is not None:
            state.losses = (*state.losses, valid[-1].loss)
        _keep_epoch(state, with_valid(done, valid), record)

    summary = where.team.decided(partial(finish, state, folder, parts))
    record.tell(Finished(summary))
    return summary


def _started(state: State, folder: Path, parts: Parts) -> Started:
    return Started(
        name=folder.name,
        folder=str(folder),
        config=state.config,
        device=str(state.where.device),
        precision=state.where.precision,
        pictures=parts.counts,
        classes=len(parts.classes),
        stages=len(state.network.stages),
        epoch=state.epoch,
        notes=parts.notes,
    )


def _change_network(state: State, part: Part, epoch: int, record: _Record) -> bool:
    """Grow, widen or prune before the first step of ``epoch`` if that is due; whether anything changed."""
    known = weight_shapes(state.network)
    due = state.where.team.decided(partial(due_growth, state, epoch))
    if isinstance(due, GrowthVerdict):
        state.stopped = due.reason
        record.note(EVENTS, {"event": "growth_ended", "epoch": epoch, "reason": due.reason})
        record.tell(GrowthEnded(epoch, due.reason))
    elif isinstance(due, GrowthDue):
        images = to_float(some_pictures(state, part, "grow", epoch, PICTURES).images)
        change = grow_network(state, due, epoch, images)
        line = {"epoch": epoch, **asdict(change), "reason": due.reason}
        if isinstance(change, Growth):
            record.note(EVENTS, {"event": "grew", **line})
            record.tell(Grew(epoch, change, due.reason))
        else:
            record.note(EVENTS, {"event": "widened", **line})
            record.tell(Widened(epoch, change, due.reason))
    pruning = prune_if_due(state, part, epoch, known)
    if pruning is not None:
        density = tuple(stage_density(state.network))
        record.note(EVENTS, pruned_line(epoch, pruning, density))
        record.tell(Pruned(epoch, pruning, density))
    return isinstance(due, GrowthDue) or pruning is not None


def _keep_epoch(state: State, figures: EpochDone, record: _Record) -> None:
    """Record a finished epoch: the best network so far, the line of figures, and the checkpoint to resume from."""
    epoch = figures.epoch
    score = depth_weighted(state.valid) if state.valid else None
    best = _settled(state, epoch) and _is_better(state, score)
    model = functools.cache(lambda: state.model)
    if best:
        state.best_epoch, state.best_score = epoch, score
        record.keep("best", model)
    record.note(METRICS, asdict(figures))
    if best:
        record.note(EVENTS, {"event": "best", "epoch": epoch, "score": score})
    record.keep("last", lambda: model() | state.trainer)
    record.tell(figures)
    if best and score is not None and state.config.train.keep == "best":
        record.tell(NewBest(epoch, score))


def _settled(state: State, epoch: int) -> bool:
    """Whether ``epoch`` may be the best one: growth and pruning are done, and every exit trains."""
    if trunk_trains_alone(state, epoch):
        return False
    prunings = state.config.prune.epochs if state.config.prune.enabled else ()
    if state.config.growth.mode == "loss":
        return growing_is_over(state) and ready_for_best(epoch, state.growth_epochs, prunings)
    return ready_for_best(epoch, state.config.growth.epochs or (), prunings)


def _is_better(state: State, score: float | None) -> bool:
    """Whether a settled epoch with this validation ``score`` replaces the best one."""
    if score is None or state.best_score is None or state.config.train.keep == "last":
        return True
    return score > state.best_score


def _stops_early(state: State) -> bool:
    """Whether ``train.patience`` settled epochs have passed without a better one."""
    patience = state.config.train.patience
    if patience is None or state.best_epoch is None or not _settled(state, state.epoch):
        return False
    return state.epoch - state.best_epoch >= patience


def depth_weighted(scores: Iterable[Score]) -> float:
    """``sum_i (i + 1) top1_i / sum_i (i + 1)``, which selects the best epoch; a deeper exit counts more."""
    weighed = [(depth, score.top1) for depth, score in enumerate(scores, start=1)]
    return sum(depth * top1 for depth, top1 in weighed) / sum(depth for depth, _ in weighed)
