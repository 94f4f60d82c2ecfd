"""Growth in a run: what is due, and doing it."""

import contextlib
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ramify.config.rules import Config
from ramify.errors import InputError
from ramify.nn.equilibrium import Sharing
from ramify.nn.network import Network
from ramify.ops.freeze import freeze, freeze_backbone, freeze_trunk, unfreeze
from ramify.ops.growing.grow import Growth, can_copy, can_keep, grow
from ramify.ops.growing.widen import Widening, widen
from ramify.ops.surgery import stage_parameters
from ramify.schedule import GrowthVerdict, LossRule, growth_by_loss, growth_due, trunk_alone
from ramify.training.state import State, to_channels_last


@dataclass(frozen=True)
class GrowthDue:
    """A growth that is due: ``deeper``, ``wider`` or ``wider:<stage>``, and why now."""

    action: str
    reason: str


def loss_rule(config: Config) -> LossRule:
    """The numbers of growth by loss."""
    growth = config.growth
    assert growth.patience is not None
    until = round(growth.until * config.train.epochs)
    return LossRule(growth.patience, growth.min_improvement, growth.min_epochs, growth.max_epochs, until)


def growing_is_over(state: State) -> bool:
    """Whether no growth is to come."""
    return state.stopped is not None or len(state.moments) >= state.config.growths


def due_growth(state: State, epoch: int) -> GrowthDue | GrowthVerdict | None:
    """The growth that is due before ``epoch``, the verdict that ends growth, or None."""
    config = state.config
    if growing_is_over(state):
        return None
    assert config.growth.plan is not None
    action = config.growth.plan[len(state.moments)]
    if config.growth.mode == "scheduled":
        return (
            GrowthDue(action, f"growth.epochs has {epoch}") if growth_due(epoch, config.growth.epochs or ()) else None
        )
    verdict = growth_by_loss(state.losses, state.moments, loss_rule(config))
    if verdict.action == "grow":
        return GrowthDue(action, verdict.reason)
    return verdict if verdict.action == "stop" else None


def grow_network(state: State, due: GrowthDue, epoch: int, images: Tensor) -> Growth | Widening:
    """Grow as ``due`` says, before the first step of ``epoch``; ``images`` are training pictures in [0, 1]."""
    change = _change(state, due, epoch, images)
    to_channels_last(state.network, state.where.device)
    if state.average is not None:
        to_channels_last(state.average.network, state.where.device)
        state.average.renew(state.network, [change.stage])
    return change


def _change(state: State, due: GrowthDue, epoch: int, images: Tensor) -> Growth | Widening:
    config, network = state.config, state.network
    state.moments = (*state.moments, epoch)
    if due.action == "deeper":
        init = config.growth.init
        # A stage that changes the shape of the map cannot start as an identity; that is told, and no reason to stop.
        celled = network if isinstance(network, Network) else None
        if celled and ((init == "identity" and can_keep(celled)) or (init == "copy" and can_copy(celled))):
            init = "random"
        growth = grow(network, state.optimizer, init=init, seed=config.seed, images=images, followers=state.followers)
        state.grown = (*state.grown, (growth.stage, epoch))
        return growth
    named = due.action.partition(":")[2]
    stage = int(named) - 1 if named else len(network.stages) - 1
    assert config.growth.widen is not None
    seed = config.seed + len(state.moments)
    wider = partial(
        widen,
        network,
        stage,
        config.growth.widen,
        state.optimizer,
        seed=seed,
        images=images,
        followers=state.followers,
    )
    if config.growth.init == "copy":
        # Where pruning has taken every inner channel of a cell, there is none to copy.
        with contextlib.suppress(InputError):
            return wider(init="copy")
    return wider()


def trunk_trains_alone(state: State, epoch: int) -> bool:
    """Whether the deepest exit trains alone in ``epoch``, as ``train.trunk_first`` says."""
    return trunk_alone(epoch, state.config.train.trunk_first, state.moments, not growing_is_over(state))


def gradient_sharing(state: State, epoch: int) -> Sharing | None:
    """Whose gradients reach the trunk in ``epoch``; None: their sum. An exit that trains alone shares with none."""
    wanted = state.config.train.exit_gradients
    return None if wanted == "sum" or trunk_trains_alone(state, epoch) else wanted


def freeze_what_rests(state: State, epoch: int) -> None:
    """Freeze what does not learn in ``epoch``, and let the rest learn.

    ``growth.freeze`` says so of what stands before the newest stage, ``train.trunk_first`` of all but the deepest exit,
    ``train.freeze_epochs`` of what a backbone brings.
    """
    config, network = state.config, state.network
    if config.train.exits_only:
        freeze_trunk(network)
        return
    unfreeze(network)
    if epoch <= config.train.freeze_epochs:
        freeze_backbone(network)
    rests = config.growth.freeze == "before" or (config.growth.freeze == "until_next" and not growing_is_over(state))
    if state.moments and rests:
        for stage in range(len(network.stages) - 1):
            freeze(network.stage_modules(stage).values())
    if trunk_trains_alone(state, epoch):
        # A weight of 0 in the loss would not do: they would still decay.
        freeze(stage.get_submodule("exit") for stage in network.stages[:-1])


def gradient_parity(state: State) -> float | None:
    """Root mean square of the gradient in the newest stage over that in all stages before it.

    None before the first growth, and where either has no gradient.
    """
    stages = len(state.network.stages)
    if not state.grown or stages == 1:
        return None
    squares: list[tuple[Tensor, int]] = []
    for stage in range(stages):
        found = stage_parameters(state.network, stage)
        grads = [each.grad for each in (*found.decay.values(), *found.spared.values()) if each.grad is not None]
        norms = [torch.linalg.vector_norm(grad.detach().float()) ** 2 for grad in grads]
        squares.append((torch.stack(norms).sum() if norms else torch.zeros(()), sum(grad.numel() for grad in grads)))
    new, new_count = squares[-1]
    old, old_count = sum(float(square) for square, _ in squares[:-1]), sum(count for _, count in squares[:-1])
    if not new_count or not old_count or old == 0:
        return None
    return float((float(new) / new_count / (old / old_count)) ** 0.5)
