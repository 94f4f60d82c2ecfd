"""Growth in a run: whether it is due, and applying it."""

import contextlib
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ramify.errors import InputError
from ramify.nn.equilibrium import Sharing
from ramify.nn.network import Network
from ramify.ops.freeze import freeze, freeze_backbone, freeze_trunk, unfreeze
from ramify.ops.growing.grow import Growth, can_copy, can_keep, grow
from ramify.ops.growing.widen import Widening, widen
from ramify.ops.surgery import stage_parameters
from ramify.schedule import GrowthVerdict, LossRule, growth_by_loss, trunk_alone
from ramify.training.state import State, to_channels_last


@dataclass(frozen=True)
class GrowthDue:
    """A growth that is due: ``deeper``, ``wider`` or ``wider:<stage>``, and why now."""

    action: str
    reason: str


def growing_is_over(state: State) -> bool:
    """Whether the network will not grow any more."""
    return state.stopped is not None or len(state.growth_epochs) >= state.config.growths


def due_growth(state: State, epoch: int) -> GrowthDue | GrowthVerdict | None:
    """The growth that is due before ``epoch``, the verdict that ends growth, or None."""
    config = state.config
    if growing_is_over(state):
        return None
    growth = config.growth
    action = growth.plan[len(state.growth_epochs)]
    if growth.mode == "scheduled":
        return GrowthDue(action, f"growth.epochs has {epoch}") if epoch in (growth.epochs or ()) else None
    until = round(growth.until * config.train.epochs)
    rule = LossRule(growth.patience, growth.min_improvement, growth.min_epochs, growth.max_epochs, until)
    verdict = growth_by_loss(state.losses, state.growth_epochs, rule)
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
    state.growth_epochs = (*state.growth_epochs, epoch)
    if due.action == "deeper":
        init = config.growth.init
        # A stage that changes the shape of the map starts at random instead, and the record says so.
        celled = network if isinstance(network, Network) else None
        if celled and ((init == "identity" and can_keep(celled)) or (init == "copy" and can_copy(celled))):
            init = "random"
        growth = grow(network, state.optimizer, init=init, seed=config.seed, images=images, followers=state.followers)
        state.grown = (*state.grown, (growth.stage, epoch))
        return growth
    number = due.action.partition(":")[2]
    stage = int(number) - 1 if number else len(network.stages) - 1
    seed = config.seed + len(state.growth_epochs)
    wider = partial(
        widen, network, stage, config.growth.widen, state.optimizer, seed=seed, images=images, followers=state.followers
    )
    if config.growth.init == "copy":
        # After pruning, a cell may have no inner channel left to copy.
        with contextlib.suppress(InputError):
            return wider(init="copy")
    return wider()


def trunk_trains_alone(state: State, epoch: int) -> bool:
    """Whether the deepest exit trains alone in ``epoch``, as ``train.trunk_first`` says."""
    return trunk_alone(epoch, state.config.train.trunk_first, state.growth_epochs, not growing_is_over(state))


def gradient_sharing(state: State, epoch: int) -> Sharing | None:
    """How the exits share the trunk's gradient in ``epoch``; None: their sum, and for an exit that trains alone."""
    sharing = state.config.train.exit_gradients
    return None if sharing == "sum" or trunk_trains_alone(state, epoch) else sharing


def freeze_for(state: State, epoch: int) -> None:
    """Freeze what does not learn in ``epoch``, and unfreeze the rest.

    ``growth.freeze`` concerns the stages before the newest, ``train.trunk_first`` all exits but the deepest,
    ``train.freeze_epochs`` the layers of a backbone.
    """
    config, network = state.config, state.network
    if config.train.exits_only:
        freeze_trunk(network)
        return
    unfreeze(network)
    if epoch <= config.train.freeze_epochs:
        freeze_backbone(network)
    frozen = config.growth.freeze == "before" or (config.growth.freeze == "until_next" and not growing_is_over(state))
    if state.growth_epochs and frozen:
        for stage in range(len(network.stages) - 1):
            freeze(network.stage_modules(stage).values())
    if trunk_trains_alone(state, epoch):
        # With a weight of 0 in the loss they would still decay.
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
        parameters = stage_parameters(state.network, stage)
        everything = (*parameters.decay.values(), *parameters.spared.values())
        grads = [parameter.grad for parameter in everything if parameter.grad is not None]
        norms = [torch.linalg.vector_norm(grad.detach().float()) ** 2 for grad in grads]
        squares.append((torch.stack(norms).sum() if norms else torch.zeros(()), sum(grad.numel() for grad in grads)))
    new, new_count = squares[-1]
    old, old_count = sum(float(square) for square, _ in squares[:-1]), sum(count for _, count in squares[:-1])
    if not new_count or not old_count or old == 0:
        return None
    return float((float(new) / new_count / (old / old_count)) ** 0.5)
