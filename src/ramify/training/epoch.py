"""One pass over the training pictures."""

import math
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ramify.config.rules import Config
from ramify.data.augment import SAMPLERS, batches
from ramify.data.pictures import Part
from ramify.errors import RunError
from ramify.ops.cost import stage_density
from ramify.ops.freeze import train_what_learns
from ramify.ops.surgery import revived
from ramify.run.evaluate import Score
from ramify.run.events import EpochDone, ExitFigures, Observer, StepDone
from ramify.schedule import exit_weights, last_alone, rate_at
from ramify.seeds import drawing, generator
from ramify.training.allocator import peak_memory
from ramify.training.feeding import Feeder
from ramify.training.growing import gradient_parity, trunk_trains_alone
from ramify.training.regrowing import Moves
from ramify.training.state import State
from ramify.training.step import Step


def train_epoch(state: State, step: Step, part: Part, epoch: int, tell: Observer) -> EpochDone:
    """One pass over the training pictures. Nothing waits for the device before the epoch is over."""
    config, network, team = state.config, state.network, state.where.team
    train = config.train
    exits = len(network.stages)
    weights = loss_weights(state, epoch)
    train_what_learns(network)
    follow = None if state.average is None else state.average.following(network)

    device = state.where.device
    indices = _batches(config, part, epoch, 2 * team.size)
    feeder = Feeder(config, epoch, network, part, indices)
    pictures = config.data.in_epoch(len(part))
    moves = Moves(state, epoch, len(indices))
    taus = torch.tensor(weights, device=device)
    sums = torch.zeros(3, exits, device=device)  # of the cross-entropies, the losses and the right answers
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    began, done = time.perf_counter(), 0
    rate = rate_at(epoch, 0.0, train)
    with drawing(config.seed, "steps", epoch, team.rank):  # dropout draws from PyTorch's own generator
        for index in indices:
            size = len(index)
            share = (done + size / 2) / pictures
            rate = rate_at(epoch, share, train)
            batch = feeder.feed(team.share(size), share)
            sums += step.take(batch, size, taus, rate, moves)
            if follow is not None:
                follow()
            done += size
            with torch.random.fork_rng(devices=[]):  # what observers draw on the CPU is theirs
                tell(StepDone(epoch, done, pictures))
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
        device_memory=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        regrown=moves.summary(),
    )


def loss_weights(state: State, epoch: int) -> tuple[float, ...]:
    """The weight of each exit that exists in the loss of ``epoch``."""
    train, exits = state.config.train, len(state.network.stages)
    if train.exits_only:
        return (1.0,) * (exits - 1) + (0.0,)
    if trunk_trains_alone(state, epoch):
        return last_alone(exits)
    # The exits of a parent's network are trained: their weights do not start over.
    ramp, ramps = (epoch, train.epochs) if state.config.parent is None else (2, 2)
    return exit_weights(ramp, ramps, exits, train.tau_max)


def _batches(config: Config, part: Part, epoch: int, least: int) -> list[Tensor]:
    """The pictures of each batch of ``epoch``; none has fewer than ``least``, two for each process."""
    data = config.data
    order = batches(len(part), data.batch_size, generator(config.seed, "order", epoch), data.in_epoch(len(part)))
    sample = SAMPLERS[data.sampler](part.labels.cpu(), generator(config.seed, "sampler", epoch))
    return [sample[index] for index in order if len(index) >= least]  # batch norm needs two pictures


def with_valid(done: EpochDone, valid: tuple[Score, ...] | None) -> EpochDone:
    """``done`` with the validation scores of its exits."""
    if valid is None:
        return done
    return replace(done, exits=tuple(ExitFigures(e.train, score) for e, score in zip(done.exits, valid, strict=True)))


def stop_if_broken(done: EpochDone, valid: tuple[Score, ...] | None, folder: Path) -> None:
    """Stop before a broken network overwrites the last good checkpoint."""
    epoch = done.epoch
    kept = f"the checkpoint of epoch {epoch - 1} is kept in {folder / 'last'}" if epoch > 1 else "no epoch is kept yet"
    for name, losses in (("loss", [done.loss]), ("validation loss", [score.loss for score in valid or ()])):
        broken = [loss for loss in losses if not math.isfinite(loss)]
        if broken:
            reason = f"the {name} is {broken[0]}, not a number to learn from"
            raise RunError(f"epoch {epoch}: {reason}; {kept}; try a lower train.learning_rate")
    if done.revived:
        raise RunError(f"epoch {epoch}: {done.revived:,} masked weights are not zero any more; {kept}")
