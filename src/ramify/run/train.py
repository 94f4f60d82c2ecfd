"""The training loop: read it from top to bottom, it is what ``ramify train`` does.

Between steps the loop asks the schedule what is due, calls the operation, and tells the observers. Every draw
comes from the run's seed and the epoch (see :mod:`ramify.seeds`), and a checkpoint is written after every
epoch, so a run that is resumed ends with the same bits as one that was never stopped.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from ramify.config import Config
from ramify.configfile import read_config, to_yaml
from ramify.data.augment import augmentation, batches, changed, draw_changes
from ramify.data.fetch import Progress
from ramify.data.pictures import Part
from ramify.errors import RunError
from ramify.files import readable_folder, replace_folder, write_atomic
from ramify.ops.compact import compact
from ramify.ops.cost import stage_density
from ramify.ops.freeze import train_what_learns
from ramify.ops.grow import Growth
from ramify.ops.loss import exit_losses, weighted_loss
from ramify.ops.prune import Pruning, PruningPlan, apply_pruning, plan_pruning
from ramify.ops.surgery import lay_state, revived, set_learning_rate
from ramify.run.checkpoint import own_plans, pack_model, pack_trainer, read_model
from ramify.run.distributed import together
from ramify.run.evaluate import Score, computing, evaluate, to_float
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
    Widened,
)
from ramify.run.folder import (
    CONFIG,
    EVENTS,
    METRICS,
    append_line,
    keep_lines,
    locked,
    new_run,
    read_summary,
    write_summary,
)
from ramify.run.growing import (
    Due,
    carry_out,
    freeze_what_rests,
    gradient_parity,
    growing_is_over,
    what_is_due,
)
from ramify.run.memory import device_peak, forget_device_peak, peak_memory
from ramify.run.prepare import Parts, computing_with, place, prepare
from ramify.run.receipt import receipt
from ramify.run.state import PICTURES, State, begin, card_of, keep_beginning, restore
from ramify.run.step import Step
from ramify.run.summary import Summary, describe_machine, summarise
from ramify.schedule import Verdict, exit_weights, learning_rate, prune_targets, ready_for_best
from ramify.seeds import derive, generator


def train(
    config: Config, observers: Iterable[Observer] = (), *, overwrite: bool = False, progress: Progress | None = None
) -> Summary:
    """Train the network that ``config`` describes, keep it in its run folder, and tell what it came to.

    Under ``torchrun`` its processes share each batch; see :mod:`ramify.run.distributed`.

    Args:
        config: the run; what it leaves open is filled in by :func:`ramify.config.resolve` and by the pictures.
        observers: called with every :data:`~ramify.run.events.Event`, in the first process alone.
        overwrite: replace a finished or broken run of the same name.
        progress: told how far a download is, where the pictures must be fetched.

    Raises:
        InputError: the configuration does not fit the pictures or the machine, the pictures cannot be read, or
            the run exists.
        RunError: the loss is no longer a number, or the disk is full; the last good checkpoint is intact.
    """
    with together(place(config).device, config.data.batch_size) as team, contextlib.ExitStack() as stack:
        config, where, parts = prepare(config, team, progress)

        def open_folder() -> Path:
            return stack.enter_context(new_run(config, overwrite))

        folder = team.decided(open_folder)
        stack.enter_context(computing_with(config))
        config = config.model_copy(update={"name": folder.name})
        state = begin(config, where, parts)
        if team.first:
            write_atomic(folder / CONFIG, to_yaml(config).encode())
        keep_beginning(state, folder)
        return _unfold(state, folder, parts, tuple(observers))


def resume(folder: Path, observers: Iterable[Observer] = (), *, progress: Progress | None = None) -> Summary:
    """Go on with the run in ``folder`` from its last checkpoint; a finished run gives its summary at once.

    On the same machine the weights end bitwise equal to those of a run that was never stopped: the run computes
    with the number of threads it began with. The number of processes may be another one; the sums of floats are then
    rounded differently.

    Raises:
        InputError: another process is in the folder, a file of it is damaged, or the pictures have changed.
        RunError: as :func:`train`.
    """
    config = read_config([folder / CONFIG])
    with together(place(config).device, config.data.batch_size) as team, contextlib.ExitStack() as stack:

        def open_folder() -> Summary | None:
            stack.enter_context(locked(folder))
            return read_summary(folder)

        done = team.decided(open_folder)
        if done is not None:
            return done
        config, where, parts = prepare(config, team, progress)
        stack.enter_context(computing_with(config))
        started = readable_folder(folder / "last").exists()
        if started:
            state = restore(config, where, parts, folder)
        else:
            state = begin(config, where, parts)
            keep_beginning(state, folder)
        if team.first:
            # What follows the last checkpoint is done again, and so is compaction.
            for name in (METRICS, EVENTS):
                keep_lines(
                    folder / name,
                    lambda record: int(str(record["epoch"])) <= state.epoch and record.get("event") != "compacted",
                )
            if state.epoch:
                append_line(folder / EVENTS, {"event": "resumed", "epoch": state.epoch})
        return _unfold(state, folder, parts, tuple(observers))


def _unfold(state: State, folder: Path, parts: Parts, observers: tuple[Observer, ...]) -> Summary:
    """The epochs that are left, then the test."""
    config, where = state.config, state.where
    team = where.team
    train_part, valid_part = parts.train.to(where.device), parts.valid.to(where.device)

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
        )
    )
    prunings = config.prune.epochs if config.prune.enabled else ()
    step = Step(state)
    for epoch in range(state.epoch + 1, config.train.epochs + 1):
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

        if epoch in prunings:
            planned = team.decided(partial(_plan_pruning, state, train_part, epoch))
            pruning = apply_pruning(state.network, planned, state.optimizer)
            density = tuple(stage_density(state.network))
            note(EVENTS, _pruned_line(epoch, pruning, density))
            tell(Pruned(epoch, pruning, density))

        freeze_what_rests(state)
        step.renew(state)
        lay_state(state.optimizer)
        if isinstance(due, Due) or epoch in prunings:
            team.compare(state.network, f"epoch {epoch}, before its first step")
        began = time.perf_counter()
        done = _train_epoch(state, step, train_part, epoch, tell)
        team.average_buffers(state.network)
        team.compare(state.network, f"epoch {epoch}")
        valid = tuple(evaluate(state.network, valid_part, where.precision, team)) if len(valid_part) else None
        _stop_if_broken(done, valid, folder)
        figures = _with_valid(done, valid)
        state.epoch, state.valid = epoch, valid
        state.seconds += time.perf_counter() - began
        if valid is not None:
            state.losses = (*state.losses, valid[-1].loss)

        score = depth_weighted(valid) if valid else None
        best = _settled(state, epoch, prunings) and (
            state.best_score is None or score is None or score > state.best_score
        )
        model = pack_model(state.network, card_of(state)) if team.first else {}
        if best:
            state.best_epoch, state.best_score = epoch, score
            keep("best", model)
        note(METRICS, asdict(figures))
        if best:
            note(EVENTS, {"event": "best", "epoch": epoch, "score": score})
        if team.first:
            keep("last", model | pack_trainer(state.network, state.optimizer, state.progress))
        tell(figures)
        if best and score is not None:
            tell(NewBest(epoch, score))

    summary = team.decided(partial(_finish, state, folder, parts))
    tell(Finished(summary))
    return summary


def _settled(state: State, epoch: int, prunings: Sequence[int]) -> bool:
    """Whether ``epoch`` may be the best one: nothing is left to grow or to prune."""
    if state.config.growth.mode == "loss":
        return growing_is_over(state) and ready_for_best(epoch, state.moments, prunings)
    return ready_for_best(epoch, state.config.growth.epochs or (), prunings)


def _some(state: State, part: Part, purpose: str, epoch: int, count: int) -> Part:
    """Seeded training pictures that are not augmented."""
    order = torch.randperm(len(part), generator=generator(state.config.seed, purpose, epoch))[:count]
    return part[order.to(part.labels.device)]


def _plan_pruning(state: State, part: Part, epoch: int) -> PruningPlan:
    """The pruning due at ``epoch``, scored on seeded training pictures that are not augmented."""
    config, chosen = state.config, state.config.prune
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
    )


def _pruned_line(epoch: int, pruning: Pruning, density: tuple[float, ...]) -> dict[str, object]:
    totals = {"weights": pruning.weights, "before": pruning.before, "after": pruning.after, "changed": pruning.changed}
    return {"event": "pruned", "epoch": epoch, **asdict(pruning), **totals, "density": density}


def _train_epoch(state: State, step: Step, part: Part, epoch: int, tell: Observer) -> EpochDone:
    """One pass over the training pictures. Nothing waits for the device before the epoch is over."""
    config, network, optimizer, team = state.config, state.network, state.optimizer, state.where.team
    train = config.train
    assert train.milestones is not None
    assert isinstance(train.gammas, tuple)
    assert train.tau_max is not None
    exits = len(network.stages)
    rate = learning_rate(epoch, train.learning_rate, train.milestones, train.gammas)
    # The exits of a parent's network have learned already: their weights do not start over.
    ramp = epoch if config.parent is None else train.epochs
    weights = exit_weights(ramp, train.epochs, exits, train.tau_max)
    if train.exits_only:
        weights = (1.0,) * (exits - 1) + (0.0,)
    how = augmentation(config.data.augment, config.data.source)
    set_learning_rate(optimizer, rate)
    train_what_learns(network)

    # All that is drawn is drawn, and sent to the device, before the first step.
    device, height = state.where.device, part.images.shape[2]
    shuffling, changing = generator(config.seed, "order", epoch), generator(config.seed, "augment", epoch)
    # Batch norm needs two pictures in each process; fewer are too few to share out.
    dealt = [each for each in batches(len(part), config.data.batch_size, shuffling) if len(each) >= 2 * team.size]
    changes = torch.cat([draw_changes(len(index), height, how, changing) for index in dealt], dim=1).to(device)
    order, sizes = torch.cat(dealt).to(device), [len(index) for index in dealt]
    taus = torch.tensor(weights, device=device)
    sums = torch.zeros(2, exits, device=device)  # of the losses and of the right answers
    forget_device_peak(device)
    began, done = time.perf_counter(), 0
    for index, numbers in zip(order.split(sizes), changes.split(sizes, dim=1), strict=True):
        batch = part[index]
        mine = team.share(len(batch))
        # Every process draws for the whole batch, so that their number changes no picture.
        images, labels = to_float(changed(batch.images, how, numbers)[mine]), batch.labels[mine]
        with computing(device, state.where.precision):
            logits = step.forward(images)  # [E, B, C]
        losses = exit_losses(logits, labels)  # [E]
        optimizer.zero_grad(set_to_none=True)
        # The processes' gradients are averaged with equal weight, whatever their shares of the last batch.
        (weighted_loss(losses, taus) * (len(labels) * team.size / len(batch))).backward()
        if train.clip is not None:
            torch.nn.utils.clip_grad_norm_(network.parameters(), train.clip)
        optimizer.step()
        right = (logits.detach().argmax(dim=2) == labels).sum(dim=1)  # [E]
        sums += torch.stack((losses.detach() * len(labels), right))
        done += len(batch)
        tell(StepDone(epoch, done, len(part)))
    losses_mean, top1 = (team.summed(sums) / done).tolist()
    seconds = time.perf_counter() - began
    return EpochDone(
        epoch=epoch,
        epochs=train.epochs,
        stages=exits,
        learning_rate=rate,
        loss=math.fsum(weight * loss for weight, loss in zip(weights, losses_mean, strict=True)),
        seconds=seconds,
        pictures_per_second=done / seconds,
        exits=tuple(ExitFigures(Score(loss, share), None) for loss, share in zip(losses_mean, top1, strict=True)),
        density=tuple(stage_density(network)),
        revived=revived(network),
        gradient_parity=gradient_parity(state),
        compilations=step.compilations,
        memory=peak_memory(),
        device_memory=device_peak(state.where.device),
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
        card = dataclasses.replace(card, plans=own_plans(network))
        replace_folder(folder / "compact", pack_model(network, card))
        found = receipt(masked, network, compaction)
        append_line(folder / EVENTS, {"event": "compacted", "epoch": state.epoch, **asdict(found)})
    scores = evaluate(network, parts.test, state.where.precision)
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
    write_summary(folder, summary)
    append_line(folder / EVENTS, {"event": "finished", "epoch": state.epoch})
    return summary
