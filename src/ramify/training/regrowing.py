"""Dynamic sparse training in a run: when stages become sparse, and at which steps their connections move.

Everything follows from the configuration, the seed and the number of the step, so nothing is saved for it, and every
process moves the same connections.
"""

from functools import partial

from ramify.config.rules import Config
from ramify.nn.branching import Branching
from ramify.nn.masked import masked_layers
from ramify.ops.pruning.policies import DYNAMIC, POLICIES
from ramify.ops.pruning.prune import Pruning, apply_pruning, layer_names
from ramify.ops.pruning.regrow import Regrowth, regrow
from ramify.ops.pruning.sparse import Shapes, plan_start, weight_shapes
from ramify.run.events import Regrown
from ramify.schedule import prune_targets, regrowth, regrowth_interval
from ramify.seeds import derive
from ramify.training.state import State


def is_dynamic(config: Config) -> bool:
    """Whether ``prune.policy`` moves connections."""
    return config.prune.enabled and config.prune.policy in DYNAMIC


def become_sparse(state: State, epoch: int, known: Shapes) -> Pruning | None:
    """Draw the masks that are due before the first step of ``epoch``, after a growth of the same epoch.

    At the start these are of the whole network, later of a stage that has just grown or been widened.

    Args:
        state: the run.
        epoch: the coming one.
        known: the shapes of all weights before that growth (:func:`ramify.ops.pruning.sparse.weight_shapes`).

    Returns:
        What was masked; None where nothing is due.
    """
    config, network = state.config, state.network
    chosen, start = config.prune, config.prune.epochs[0]
    stages = list(range(len(network.stages))) if epoch == start else _changed(network, known)
    if epoch < start or not stages:
        return None
    targets = prune_targets(chosen.policy, epoch, (start,), [1] * len(network.stages), chosen.keep_ratio)
    assert isinstance(targets, dict)
    plan = state.where.team.decided(
        partial(
            plan_start,
            network,
            {stage: targets[stage] for stage in stages},
            chosen.criterion,
            known=None if epoch == 1 and config.parent is None else known,
            widened=epoch > start,
            floor=chosen.floor,
            seed=derive(config.seed, "prune", epoch),
        )
    )
    return apply_pruning(network, plan, state.optimizer, followers=state.followers)


def _changed(network: Branching, known: Shapes) -> list[int]:
    """The stages that have layers of other shapes than ``known``."""
    now = weight_shapes(network)
    return [
        stage
        for stage in range(len(network.stages))
        if any(now[name] != known.get(name) for name in layer_names(network, stage))
    ]


class Moves:
    """The moves of connections in one epoch; :meth:`begin` and :meth:`finish` enclose a training step.

    Args:
        state: the run.
        epoch: from 1.
        steps: in an epoch.
    """

    def __init__(self, state: State, epoch: int, steps: int) -> None:
        config = state.config
        self._state = state
        self._chosen = config.prune
        self._regrowths: list[Regrowth] = []
        self._share = 0.0
        total = config.train.epochs * steps
        self._step = (epoch - 1) * steps
        self._start, self._end = 0, 0
        if is_dynamic(config):
            self._start, self._end = (self._chosen.epochs[0] - 1) * steps, round(self._chosen.until * total)
        self._interval = self._chosen.interval or regrowth_interval(total)

    def begin(self) -> bool:
        """Count a step; whether its forward pass must be :func:`ramify.ops.pruning.regrow.dense_forward`."""
        self._step += 1
        self._share = regrowth(self._step, self._start, self._end, self._interval, self._chosen.fraction)
        return self.due and POLICIES[self._chosen.policy].regrows == "gradient"

    @property
    def due(self) -> bool:
        """Whether connections move at the current step."""
        return self._share > 0

    def finish(self) -> None:
        """After the backward pass: move what is due, before anything else reads the gradients."""
        state, how = self._state, POLICIES[self._chosen.policy].regrows
        if self.due and how is not None:
            network, optimizer, seed = state.network, state.optimizer, derive(state.config.seed, "regrow", self._step)
            self._regrowths.append(
                regrow(network, optimizer, self._share, how, seed=seed, followers=state.followers, dense=True)
            )

    def summary(self) -> Regrown | None:
        """What moved in the epoch; None where nothing was due."""
        if not self._regrowths:
            return None
        network = self._state.network
        layers = masked_layers(network)
        stages = [layer_names(network, stage) for stage in range(len(network.stages))]
        return Regrown(
            times=len(self._regrowths),
            moved=tuple(
                sum(moved.layers[name].moved for moved in self._regrowths for name in names if name in moved.layers)
                for names in stages
            ),
            kept=tuple(sum(int(layers[name].mask.sum()) for name in names) for names in stages),
        )
