"""The training loop: read it from top to bottom, it is what ``ramify train`` does.

Between steps the loop asks the schedule what is due, calls the operation, and tells the observers. Every draw
comes from the run's seed and the epoch (see :mod:`ramify.seeds`), and a checkpoint is written after every
epoch, so a run that is resumed ends with the same bits as one that was never stopped.
"""

import contextlib
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from ramify.config.read import read_config
from ramify.config.rules import Config
from ramify.data.augment import balanced, batches
from ramify.data.fetch import Progress
from ramify.data.pictures import Part
from ramify.errors import InputError, RunError
from ramify.files import readable_folder, replace_folder
from ramify.ops.cost import stage_density
from ramify.ops.freeze import train_what_learns
from ramify.ops.growing.grow import Growth
from ramify.ops.loss import class_weights
from ramify.ops.pruning.budget import Budget
from ramify.ops.pruning.compact import compact
from ramify.ops.pruning.prune import Pruning, PruningPlan, apply_pruning, plan_pruning
from ramify.ops.pruning.sparse import Shapes, weight_shapes
from ramify.ops.surgery import lay_state, revived
from ramify.run.checkpoint import card_with, pack_model, read_model
from ramify.run.device import computing_with, place
from ramify.run.distributed import ALONE, together
from ramify.run.evaluate import Score, evaluate, to_float
from ramify.run.events import (
    EpochDone,
    Event,
    ExitFigures,
    Finished,
    Grew,
    GrowthEnded,
    NewBest,
    Observer,
    Pruned,
    Started,
    StepDone,
    StoppedEarly,
    Widened,
)
from ramify.run.folder import (
    CONFIG,
    EVENTS,
    METRICS,
    append_line,
    keep_what_is_done,
    locked,
    new_run,
    read_summary,
    write_config,
    write_summary,
)
from ramify.run.pictures import Parts, keep_pictures, with_teacher
from ramify.run.receipt import receipt
from ramify.run.saved import find_checkpoint
from ramify.run.summary import Summary, describe_machine, summarise
from ramify.schedule import Verdict, exit_weights, last_alone, prune_targets, rate_at, ready_for_best
from ramify.seeds import derive, generator
from ramify.training.distillation import Guidance
from ramify.training.feeding import Feeder
from ramify.training.growing import (
    Due,
    balances,
    carry_out,
    freeze_what_rests,
    gradient_parity,
    growing_is_over,
    trunk_trains_alone,
    what_is_due,
)
from ramify.training.memory import device_peak, forget_device_peak, peak_memory
from ramify.training.prepare import prepare
from ramify.training.regrowing import Moves, become_sparse, is_dynamic
from ramify.training.state import PICTURES, State, begin, keep_beginning, restore
from ramify.training.step import Step
from ramify.training.teacher import Teacher, find_teacher, keep_teacher


def train(
    config: Config,
    observers: Iterable[Observer] = (),
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    strict: bool = False,
) -> Summary:
    """Train the network that ``config`` describes, keep it in its run folder, and tell what it came to.

    Under ``torchrun`` its processes share each batch; see :mod:`ramify.run.distributed`.

    Args:
        config: the run; what it leaves open is filled in by :func:`ramify.config.rules.resolve` and by the pictures.
        observers: called with every :data:`~ramify.run.events.Event`, in the first process alone.
        overwrite: replace a finished or broken run of the same name.
        progress: sees how far a download or the decoding of pictures is.
        strict: refuse pictures of which copies are in several parts or classes.

    Raises:
        InputError: the configuration does not fit the pictures or the machine, the pictures cannot be read, or
            the run exists.
        RunError: the loss is no longer a number, or the disk is full; the last good checkpoint is intact.
    """
    with together(place(config).device, config.data.batch_size) as team, contextlib.ExitStack() as stack:
        config, where, parts = prepare(config, team, progress, strict=strict)
        teacher = find_teacher(config, where, parts)
        if teacher is not None and config.train.teacher is not None:
            parts = with_teacher(parts, find_checkpoint(config.train.teacher, config.runs_dir).parent)

        def open_folder() -> Path:
            return stack.enter_context(new_run(config, overwrite))

        folder = team.decided(open_folder)
        stack.enter_context(computing_with(config))
        config = config.model_copy(update={"name": folder.name})
        state = begin(config, where, parts)
        if team.first:
            keep_pictures(folder, parts)
            write_config(folder, config)
        keep_beginning(state, folder)
        keep_teacher(teacher, folder)
        return _unfold(state, folder, parts, teacher, tuple(observers))


def resume(
    folder: Path, observers: Iterable[Observer] = (), *, trust: bool = False, progress: Progress | None = None
) -> Summary:
    """Go on with the run in ``folder`` from its last checkpoint; a finished run gives its summary at once.

    On the same machine the weights end bitwise equal to those of a run that was never stopped: the run computes
    with the number of threads it began with. The number of processes may be another one; the sums of floats are then
    rounded differently.

    Args:
        folder: of the run.
        observers: as in :func:`train`.
        trust: import what ``network.module`` of the folder names, where the run was stopped before its first epoch and
            has no network yet. From its first epoch on, nothing is imported.
        progress: as in :func:`train`.

    Raises:
        InputError: another process is in the folder, a file of it is damaged, the pictures have changed, or there is
            no network yet and its code is not trusted.
        RunError: as :func:`train`.
    """
    config = read_config([folder / CONFIG])
    begun = readable_folder(folder / "last").exists()
    if config.network.module is not None and config.parent is None and not begun and not trust:
        raise InputError(untrusted(str(folder), config.network.module))
    with together(place(config).device, config.data.batch_size) as team, contextlib.ExitStack() as stack:

        def open_folder() -> Summary | None:
            stack.enter_context(locked(folder))
            return read_summary(folder)

        done = team.decided(open_folder)
        if done is not None:
            return done
        config, where, parts = prepare(config, team, progress, resumed=folder)
        stack.enter_context(computing_with(config))
        teacher = find_teacher(config, where, parts, folder)
        keep_teacher(teacher, folder)
        started = readable_folder(folder / "last").exists()
        if started:
            state = restore(config, where, parts, folder)
        else:
            state = begin(config, where, parts)
            keep_beginning(state, folder)
        if team.first:
            parts = replace(parts, notes=(*parts.notes, *keep_what_is_done(folder, state.epoch)))
            if state.epoch:
                append_line(folder / EVENTS, {"event": "resumed", "epoch": state.epoch})
        return _unfold(state, folder, parts, teacher, tuple(observers))


def untrusted(where: str, module: str) -> str:
    """The sentence for a folder that names code which nobody has said to trust."""
    return (
        f"{where}: names code in network.module={module}, which would be imported to make its network; accepted: "
        "--trust (trust=True from Python), where you know that code"
    )


def _unfold(
    state: State, folder: Path, parts: Parts, teacher: Teacher | None, observers: tuple[Observer, ...]
) -> Summary:
    """The epochs that are left, then the test."""
    config, where = state.config, state.where
    team = where.team
    train_part, valid_part = parts.train.to(where.device), parts.valid.to(where.device)
    fed_part = train_part if parts.larger is None else parts.larger.to(where.device)

    def tell(event: Event) -> None:
        if team.first:
            for observer in observers:
                observer(event)

    def note(name: str, record: dict[str, object]) -> None:
        if team.first:
            append_line(folder / name, record)

    def keep(name: str, files: dict[str, bytes]) -> None:
        if team.first:
            replace_folder(folder / name, files)

    tell(
        Started(
            name=folder.name,
            folder=str(folder),
            config=config,
            device=str(where.device),
            precision=where.precision,
            pictures=parts.counts,
            classes=len(parts.classes),
            stages=len(state.network.stages),
            epoch=state.epoch,
            notes=parts.notes,
        )
    )
    prunings = config.prune.epochs if config.prune.enabled else ()
    guidance = Guidance(state, train_part, teacher)
    step = Step(state, guidance, class_weights(config.train.class_weights, train_part.labels, len(parts.classes)))
    for epoch in range(state.epoch + 1, config.train.epochs + 1):
        if _stops_early(state, prunings):
            note(EVENTS, {"event": "stopped_early", "epoch": state.epoch, "best": state.best_epoch})
            tell(StoppedEarly(state.epoch, state.best_epoch or state.epoch))
            break
        known = weight_shapes(state.network)
        due = team.decided(partial(what_is_due, state, epoch))
        if isinstance(due, Verdict):
            state.stopped = due.reason
            note(EVENTS, {"event": "growth_ended", "epoch": epoch, "reason": due.reason})
            tell(GrowthEnded(epoch, due.reason))
        elif isinstance(due, Due):
            change = carry_out(state, due, epoch, to_float(_some(state, train_part, "grow", epoch, PICTURES).images))
            kind = "grew" if isinstance(change, Growth) else "widened"
            note(EVENTS, {"event": kind, "epoch": epoch, **asdict(change), "reason": due.reason})
            tell(Grew(epoch, change, due.reason) if isinstance(change, Growth) else Widened(epoch, change, due.reason))

        pruning = _prune_if_due(state, train_part, epoch, known)
        if pruning is not None:
            density = tuple(stage_density(state.network))
            note(EVENTS, _pruned_line(epoch, pruning, density))
            tell(Pruned(epoch, pruning, density))

        freeze_what_rests(state, epoch)
        lay_state(state.optimizer)
        step.renew(state, balances(state, epoch))
        if isinstance(due, Due) or pruning is not None:
            team.compare(state.network, f"epoch {epoch}, before its first step")
        began = time.perf_counter()
        done = _train_epoch(state, step, guidance, fed_part, epoch, tell)
        team.average_buffers(state.network)
        team.compare(state.network, f"epoch {epoch}")
        for follower in state.followers:
            team.average_buffers(follower)
            team.compare(follower, f"epoch {epoch}")
        scores = partial(evaluate, state.answering, valid_part, where.precision, team, config.train.flip_test)
        valid = tuple(scores()) if len(valid_part) else None
        _stop_if_broken(done, valid, folder)
        figures = _with_valid(done, valid)
        state.epoch, state.valid = epoch, valid
        state.seconds += time.perf_counter() - began
        if valid is not None:
            state.losses = (*state.losses, valid[-1].loss)

        score = depth_weighted(valid) if valid else None
        best = _settled(state, epoch, prunings) and _is_better(state, score)
        model = state.model if team.first else {}
        if best:
            state.best_epoch, state.best_score = epoch, score
            keep("best", model)
        note(METRICS, asdict(figures))
        if best:
            note(EVENTS, {"event": "best", "epoch": epoch, "score": score})
        if team.first:
            keep("last", model | state.trainer)
        tell(figures)
        if best and score is not None and config.train.keep == "best":
            tell(NewBest(epoch, score))

    summary = team.decided(partial(_finish, state, folder, parts))
    tell(Finished(summary))
    return summary


def _settled(state: State, epoch: int, prunings: Sequence[int]) -> bool:
    """Whether ``epoch`` may be the best one: nothing is left to grow or to prune, and every exit trains."""
    if trunk_trains_alone(state, epoch):
        return False
    if state.config.growth.mode == "loss":
        return growing_is_over(state) and ready_for_best(epoch, state.moments, prunings)
    return ready_for_best(epoch, state.config.growth.epochs or (), prunings)


def _is_better(state: State, score: float | None) -> bool:
    """Whether a settled epoch with this validation ``score`` replaces the one that is kept."""
    if score is None or state.best_score is None or state.config.train.keep == "last":
        return True
    return score > state.best_score


def _stops_early(state: State, prunings: Sequence[int]) -> bool:
    """Whether ``train.patience`` is over: so many epochs without a better one, since the last change of the network.

    An epoch before the last growth or pruning, or in which the trunk trains alone, is no candidate for the best one,
    and none to be patient about.
    """
    patience = state.config.train.patience
    if patience is None or state.best_epoch is None or not _settled(state, state.epoch, prunings):
        return False
    return state.epoch - state.best_epoch >= patience


def _some(state: State, part: Part, purpose: str, epoch: int, count: int) -> Part:
    """Seeded training pictures that are not augmented."""
    order = torch.randperm(len(part), generator=generator(state.config.seed, purpose, epoch))[:count]
    return part[order.to(part.labels.device)]


def _prune_if_due(state: State, part: Part, epoch: int, known: Shapes) -> Pruning | None:
    """What is masked before the first step of ``epoch``, ``known`` being the shapes of all weights before it."""
    prune = state.config.prune
    if is_dynamic(state.config):
        return become_sparse(state, epoch, known, state.followers)
    if not prune.enabled or epoch not in prune.epochs:
        return None
    planned = state.where.team.decided(partial(_plan_pruning, state, part, epoch))
    pruning = apply_pruning(state.network, planned, state.optimizer, followers=state.followers)
    if planned.reinit and state.average is not None:
        state.average.renew(state.network, planned.stages)
    return pruning


def _plan_pruning(state: State, part: Part, epoch: int) -> PruningPlan:
    """The pruning due at ``epoch``, scored on seeded training pictures that are not augmented."""
    config, chosen = state.config, state.config.prune
    assert chosen.criterion is not None
    grown = dict(state.grown) if config.parent is None else {}
    born = [grown.get(stage, 1) for stage in range(len(state.network.stages))]
    targets = prune_targets(chosen.policy, epoch, chosen.epochs, born, chosen.keep_ratio, chosen.min_ratio)
    drawn = _some(state, part, "prune", epoch, chosen.batch_size * chosen.batches)
    batches = zip(drawn.images.split(chosen.batch_size), drawn.labels.split(chosen.batch_size), strict=True)
    return plan_pruning(
        state.network,
        targets,
        chosen.criterion,
        [(to_float(images), labels) for images, labels in batches],
        unit=chosen.unit,
        rounds=chosen.rounds,
        floor=chosen.floor,
        control=chosen.control,
        reinit=chosen.reinit,
        seed=derive(config.seed, "prune", epoch),
        budget=Budget(chosen.max_parameters, chosen.max_macs) if chosen.max_parameters or chosen.max_macs else None,
    )


def _pruned_line(epoch: int, pruning: Pruning, density: tuple[float, ...]) -> dict[str, object]:
    totals = {"weights": pruning.weights, "before": pruning.before, "after": pruning.after, "changed": pruning.changed}
    return {"event": "pruned", "epoch": epoch, **asdict(pruning), **totals, "density": density}


def _train_epoch(state: State, step: Step, guidance: Guidance, part: Part, epoch: int, tell: Observer) -> EpochDone:
    """One pass over the training pictures. Nothing waits for the device before the epoch is over."""
    config, network, team = state.config, state.network, state.where.team
    train = config.train
    assert train.tau_max is not None
    exits = len(network.stages)
    rate = rate_at(epoch, 0.0, train)
    # The exits of a parent's network have learned already: their weights do not start over.
    ramp = epoch if config.parent is None else train.epochs
    weights = exit_weights(ramp, train.epochs, exits, train.tau_max)
    if train.exits_only:
        weights = (1.0,) * (exits - 1) + (0.0,)
    elif trunk_trains_alone(state, epoch):
        weights = last_alone(exits)
    train_what_learns(network)
    follow = None if state.average is None else state.average.following(network)

    device = state.where.device
    shuffling = generator(config.seed, "order", epoch)
    # Batch norm needs two pictures in each process; fewer are too few to share out.
    dealt = [each for each in batches(len(part), config.data.batch_size, shuffling) if len(each) >= 2 * team.size]
    if config.data.sampler == "balanced":
        drawn = balanced(part.labels.cpu(), generator(config.seed, "sampler", epoch))
        dealt = [drawn[each] for each in dealt]
    feeder = Feeder(config, epoch, network.mean, part, dealt)
    moves = Moves(state, epoch, len(part))
    guidance.begin(state, epoch)
    taus = torch.tensor(weights, device=device)
    sums = torch.zeros(3, exits, device=device)  # of the cross-entropies, the losses and the right answers
    forget_device_peak(device)
    began, done = time.perf_counter(), 0
    for index in dealt:
        size = len(index)
        share = (done + size / 2) / len(part)
        rate = rate_at(epoch, share, train)
        fed = feeder.feed(team.share(size), share)
        sums += step.take(fed, size, taus, rate, moves)
        if follow is not None:
            follow()
        done += size
        tell(StepDone(epoch, done, len(part)))
    guidance.end()
    entropies_mean, losses_mean, top1 = (team.summed(sums) / done).tolist()
    seconds = time.perf_counter() - began
    return EpochDone(
        epoch=epoch,
        epochs=train.epochs,
        stages=exits,
        learning_rate=rate,
        loss=math.fsum(weight * loss for weight, loss in zip(weights, losses_mean, strict=True)),
        seconds=seconds,
        pictures_per_second=done / seconds,
        exits=tuple(ExitFigures(Score(loss, share), None) for loss, share in zip(entropies_mean, top1, strict=True)),
        density=tuple(stage_density(network)),
        revived=revived(network) + sum(revived(follower) for follower in state.followers),
        gradient_parity=gradient_parity(state),
        compilations=step.compilations,
        memory=peak_memory(),
        device_memory=device_peak(state.where.device),
        regrown=moves.told(),
    )


def _with_valid(done: EpochDone, valid: tuple[Score, ...] | None) -> EpochDone:
    if valid is None:
        return done
    exits = tuple(ExitFigures(figures.train, score) for figures, score in zip(done.exits, valid, strict=True))
    return EpochDone(**{**vars(done), "exits": exits})


def _stop_if_broken(done: EpochDone, valid: tuple[Score, ...] | None, folder: Path) -> None:
    """Stop before a broken network overwrites the last good checkpoint."""
    epoch = done.epoch
    kept = f"the checkpoint of epoch {epoch - 1} is kept in {folder / 'last'}" if epoch > 1 else "no epoch is kept yet"
    if not (math.isfinite(done.loss) and all(math.isfinite(score.loss) for score in valid or ())):
        what = f"the loss is {done.loss}, not a number to learn from"
        raise RunError(f"epoch {epoch}: {what}; {kept}; try a lower train.learning_rate")
    if done.revived:
        raise RunError(f"epoch {epoch}: {done.revived:,} masked weights are not zero any more; {kept}")


def depth_weighted(scores: Iterable[Score]) -> float:
    """``sum_i (i + 1) top1_i / sum_i (i + 1)``, by which the best epoch is selected: a deeper exit counts more."""
    weighed = [(depth, score.top1) for depth, score in enumerate(scores, start=1)]
    return sum(depth * top1 for depth, top1 in weighed) / sum(depth for depth, _ in weighed)


def _finish(state: State, folder: Path, parts: Parts) -> Summary:
    """Read the test set, once, with the best network."""
    # A run without epochs has no best one: it is there to compact what its parent left.
    best = folder / "best"
    network, card = read_model(best if readable_folder(best).exists() else folder / "last")
    network.to(state.where.device)
    found = None
    if state.config.prune.compact:
        masked = network
        network, compaction = compact(masked)
        card = card_with(card, network)
        replace_folder(folder / "compact", pack_model(network, card))
        found = receipt(masked, network, compaction)
        append_line(folder / EVENTS, {"event": "compacted", "epoch": state.epoch, **asdict(found)})
    scores = evaluate(network, parts.test, state.where.precision, ALONE, state.config.train.flip_test)
    summary = summarise(
        folder.name,
        str(folder),
        state.config,
        network,
        card,
        epochs=state.epoch,
        seconds=state.seconds,
        test=scores,
        pictures=parts.counts,
        receipt=found,
        machine=describe_machine(state.where.device, state.where.precision),
    )
    # The summary comes last: a run that has one has its last line, and one that was killed before ends again.
    append_line(folder / EVENTS, {"event": "finished", "epoch": state.epoch})
    write_summary(folder, summary)
    return summary
