"""Pruning in a run: whether it is due, and the training pictures that it is scored on."""

from dataclasses import asdict
from functools import partial

import torch

from ramify.data.pictures import Part
from ramify.ops.pruning.budget import Budget
from ramify.ops.pruning.prune import Pruning, PruningPlan, apply_pruning, plan_pruning
from ramify.ops.pruning.sparse import Shapes
from ramify.run.evaluate import to_float
from ramify.schedule import prune_targets
from ramify.seeds import derive, drawing, generator
from ramify.training.regrowing import become_sparse, is_dynamic
from ramify.training.state import State


def prune_if_due(state: State, part: Part, epoch: int, known: Shapes) -> Pruning | None:
    """Prune before the first step of ``epoch`` if that is due; ``known`` are the shapes of all weights before it."""
    prune = state.config.prune
    if is_dynamic(state.config):
        return become_sparse(state, epoch, known)
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
    grown = dict(state.grown) if config.parent is None else {}
    born = [grown.get(stage, 1) for stage in range(len(state.network.stages))]
    targets = prune_targets(chosen.policy, epoch, chosen.epochs, born, chosen.keep_ratio, chosen.min_ratio)
    drawn = some_pictures(state, part, "prune", epoch, chosen.batch_size * chosen.batches)
    if len(drawn) % chosen.batch_size == 1 < len(drawn):
        drawn = drawn[: len(drawn) - 1]  # batch norm needs two pictures
    batches = zip(drawn.images.split(chosen.batch_size), drawn.labels.split(chosen.batch_size), strict=True)
    with drawing(config.seed, "saliency", epoch):  # for dropout
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


def some_pictures(state: State, part: Part, purpose: str, epoch: int, count: int) -> Part:
    """Seeded training pictures that are not augmented."""
    order = torch.randperm(len(part), generator=generator(state.config.seed, purpose, epoch))[:count]
    return part[order.to(part.labels.device)]


def pruned_line(epoch: int, pruning: Pruning, density: tuple[float, ...]) -> dict[str, object]:
    totals = {"weights": pruning.weights, "before": pruning.before, "after": pruning.after, "changed": pruning.changed}
    return {"event": "pruned", "epoch": epoch, **asdict(pruning), **totals, "density": density}
