"""The training loop: read it from top to bottom, it is what ``ramify train`` does.

Between steps the loop asks the schedule what is due, calls the operation, and tells the observers. Every draw
comes from the run's seed and the epoch (see :mod:`ramify.seeds`), and a checkpoint is written after every
epoch, so a run that is resumed ends with the same bits as one that was never stopped.
"""

import dataclasses
import math
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch

from ramify.config import Config, births
from ramify.configfile import read_config, to_yaml
from ramify.data.augment import augment, augmentation, batches
from ramify.data.fetch import Progress
from ramify.data.pictures import Part
from ramify.errors import RunError
from ramify.files import readable_folder, replace_folder, write_atomic
from ramify.ops.compact import compact
from ramify.ops.cost import stage_density
from ramify.ops.freeze import train_what_learns
from ramify.ops.grow import grow
from ramify.ops.loss import exit_losses, weighted_loss
from ramify.ops.prune import Pruning, prune
from ramify.ops.surgery import revived, set_learning_rate
from ramify.run.checkpoint import TrainerState, own_plans, pack_model, pack_trainer, read_model
from ramify.run.evaluate import Score, computing, evaluate, to_float
from ramify.run.events import (
    EpochDone,
    Event,
    ExitFigures,
    Finished,
    Grew,
    NewBest,
    Observer,
    Pruned,
    Started,
    StepDone,
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
from ramify.run.prepare import Parts, computing_with, prepare
from ramify.run.receipt import receipt
from ramify.run.state import State, begin, card_of, restore
from ramify.run.summary import Summary, describe_machine, summarise
from ramify.schedule import exit_weights, growth_due, learning_rate, prune_targets, ready_for_best
from ramify.seeds import derive, generator


def train(
    config: Config, observers: Iterable[Observer] = (), *, overwrite: bool = False, progress: Progress | None = None
) -> Summary:
    """Train the network that ``config`` describes, keep it in its run folder, and tell what it came to.

    Args:
        config: the run; what it leaves open is filled in by :func:`ramify.config.resolve` and by the pictures.
        observers: called with every :data:`~ramify.run.events.Event`.
        overwrite: replace a finished or broken run of the same name.
        progress: told how far a download is, where the pictures must be fetched.

    Raises:
        InputError: the configuration does not fit the pictures or the machine, the pictures cannot be read, or
            the run exists.
        RunError: the loss is no longer a number, or the disk is full; the last good checkpoint is intact.
    """
    config, where, parts = prepare(config, progress)
    with new_run(config, overwrite) as folder, computing_with(config):
        config = config.model_copy(update={"name": folder.name})
        write_atomic(folder / CONFIG, to_yaml(config).encode())
        return _unfold(begin(config, where, parts, folder), folder, parts, tuple(observers))


def resume(folder: Path, observers: Iterable[Observer] = (), *, progress: Progress | None = None) -> Summary:
    """Go on with the run in ``folder`` from its last checkpoint; a finished run gives its summary at once.

    On the same machine the weights end bitwise equal to those of a run that was never stopped: the run computes
    with the number of threads it began with.

    Raises:
        InputError: another process is in the folder, a file of it is damaged, or the pictures have changed.
        RunError: as :func:`train`.
    """
    config = read_config([folder / CONFIG])
    with locked(folder):
        done = read_summary(folder)
        if done is not None:
            return done
        config, where, parts = prepare(config, progress)
        with computing_with(config):
            started = readable_folder(folder / "last").exists()
            state = (restore if started else begin)(config, where, parts, folder)
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
    train_part, valid_part = parts.train.to(where.device), parts.valid.to(where.device)

    def tell(event: Event) -> None:
        for observer in observers:
            observer(event)

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
    growths, prunings = config.growth.epochs or (), config.prune.epochs if config.prune.enabled else ()
    for epoch in range(state.epoch + 1, config.train.epochs + 1):
        if growth_due(epoch, growths):
            growth = grow(state.network, state.optimizer, seed=config.seed)
            state.grown = (*state.grown, (growth.stage, epoch))
            append_line(folder / EVENTS, {"event": "grew", "epoch": epoch, **asdict(growth)})
            tell(Grew(epoch, growth))

        if epoch in prunings:
            pruning = _prune(state, train_part, epoch)
            density = tuple(stage_density(state.network))
            append_line(folder / EVENTS, _pruned_line(epoch, pruning, density))
            tell(Pruned(epoch, pruning, density))

        began = time.perf_counter()
        done = _train_epoch(state, train_part, epoch, tell)
        valid = tuple(evaluate(state.network, valid_part, where.precision)) if len(valid_part) else None
        _stop_if_broken(done, valid, folder)
        figures = _with_valid(done, valid)
        state.epoch, state.valid = epoch, valid
        state.seconds += time.perf_counter() - began

        score = depth_weighted(valid) if valid else None
        best = ready_for_best(epoch, growths, prunings) and (
            state.best_score is None or score is None or score > state.best_score
        )
        model = pack_model(state.network, card_of(state))
        if best:
            state.best_epoch, state.best_score = epoch, score
            replace_folder(folder / "best", model)
        append_line(folder / METRICS, asdict(figures))
        if best:
            append_line(folder / EVENTS, {"event": "best", "epoch": epoch, "score": score})
        saved = TrainerState(epoch, state.seconds, state.best_epoch, state.best_score)
        replace_folder(folder / "last", model | pack_trainer(state.network, state.optimizer, saved))
        tell(figures)
        if best and score is not None:
            tell(NewBest(epoch, score))

    summary = _finish(state, folder, parts)
    tell(Finished(summary))
    return summary


def _prune(state: State, part: Part, epoch: int) -> Pruning:
    """The pruning due at ``epoch``, scored on seeded training pictures that are not augmented."""
    config, chosen = state.config, state.config.prune
    targets = prune_targets(chosen.policy, epoch, chosen.epochs, births(config), chosen.keep_ratio, chosen.min_ratio)
    order = torch.randperm(len(part), generator=generator(config.seed, "prune", epoch))
    drawn = [part[index.to(part.labels.device)] for index in order.split(chosen.batch_size)[: chosen.batches]]
    return prune(
        state.network,
        targets,
        chosen.criterion,
        [(to_float(batch.images), batch.labels) for batch in drawn],
        state.optimizer,
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


def _train_epoch(state: State, part: Part, epoch: int, tell: Observer) -> EpochDone:
    """One pass over the training pictures. Nothing waits for the device before the epoch is over."""
    config, network, optimizer = state.config, state.network, state.optimizer
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

    shuffling, changing = generator(config.seed, "order", epoch), generator(config.seed, "augment", epoch)
    sums = torch.zeros(2, exits, device=state.where.device)  # of the losses and of the right answers
    began, done = time.perf_counter(), 0
    for index in batches(len(part), config.data.batch_size, shuffling):
        batch = part[index.to(state.where.device)]
        images = to_float(augment(batch.images, how, changing))
        with computing(state.where.device, state.where.precision):
            logits = network(images)  # [E, B, C]
        losses = exit_losses(logits, batch.labels)  # [E]
        optimizer.zero_grad(set_to_none=True)
        weighted_loss(losses, weights).backward()
        optimizer.step()
        right = (logits.detach().argmax(dim=2) == batch.labels).sum(dim=1)  # [E]
        sums += torch.stack((losses.detach() * len(batch), right))
        done += len(batch)
        tell(StepDone(epoch, done, len(part)))
    losses_mean, top1 = (sums / done).tolist()
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
