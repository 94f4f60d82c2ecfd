"""Growth: a network gains its next stage while it trains."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from ramify.errors import InputError
from ramify.nn.branching import Branching
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.ops.growing.inherit import can_copy as can_copy
from ramify.ops.growing.inherit import can_keep as can_keep
from ramify.ops.growing.inherit import check_pictures, copy_previous, keep_function
from ramify.ops.pruning.channels import dead_trunk, mask_dead_inputs
from ramify.ops.schedulers import check_schedulers, schedulers_of
from ramify.ops.surgery import add_stage, check_followers

Init = Literal["random", "identity", "copy"]
"""How a new stage starts."""


@dataclass(frozen=True)
class Growth:
    """The report of one growth.

    Attributes:
        stage: index of the new stage, from 0; also of its exit.
        cells: how many cells it has.
        final: whether its exit is the final classifier.
        parameters: how many parameters it added, biases and batch norm included.
        weights: how many unmasked convolution and linear weights it added.
        init: how it started.
    """

    stage: int
    cells: int
    final: bool
    parameters: int
    weights: int
    init: Init


def grow(
    network: Branching,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    init: Init = "random",
    seed: int | None = None,
    images: Tensor | None = None,
    followers: Sequence[nn.Module] = (),
    schedulers: Sequence[LRScheduler] = (),
) -> Growth:
    """Append the next stage to ``network`` and add its parameters to ``optimizer``.

    Existing weights, batch norm and optimizer state stay, bit for bit. New weights that would read a pruned channel are
    masked; new parameters take the options of the optimizer's groups. A stage starts

    - ``random``: with He normal weights;
    - ``identity``: so that in evaluation mode its exit answers what the exit before it answers, see
      :mod:`ramify.ops.growing.inherit`. In a cascade the cells are random and the exit adds nothing at first;
    - ``copy``: each cell with the weights and batch norms of the last cell before it, and its exit with those of the
      exit before it, as in progressive stacking (ICML 2019). Layers of another shape stay random.

    Args:
        network: a network that is not complete.
        optimizer: any ``torch.optim`` optimizer over the network's parameters, or None.
        init: how the stage starts.
        seed: seed of the new weights, as in :class:`~ramify.nn.network.Network`.
        images: for ``identity``, pictures ``[B, C, H, W]`` in [0, 1] on which the statistics of its batch norms are
            measured, so that training mode changes little either. Without, they start at 0 and 1.
        followers: networks with the same stages, such as the ``module`` of a
            ``torch.optim.swa_utils.AveragedModel``, that get a copy of the new stage.
        schedulers: of ``optimizer``; others are looked up, see :mod:`ramify.ops.schedulers`.

    Raises:
        InputError: the network is complete, the stage cannot start in this way (:func:`can_keep`, :func:`can_copy`), or
            ``images``, ``followers`` or ``schedulers`` do not fit.

    Example:
        >>> from ramify.config.rules import NetworkConfig
        >>> network = Network(NetworkConfig(structure=(1, 0), final="mixed", input_shape=(1, 8, 8), classes=10))
        >>> growth = grow(network, torch.optim.SGD(network.parameters(), lr=0.1), init="identity")
        >>> growth.stage, growth.cells, growth.final
        (1, 1, True)
        >>> logits = network.eval()(torch.rand(5, 1, 8, 8))
        >>> torch.equal(logits[0], logits[1])
        True
    """
    index = len(network.stages)
    if network.complete:
        raise InputError(f"grow: got a network with all its {index} stages; accepted: one that lacks some")
    if init not in get_args(Init):
        raise InputError(f"grow: got init {init}; accepted: {', '.join(get_args(Init))}")
    if init != "random" and (obstacle := _obstacle(network, init)):
        raise InputError(f"grow: got init {init}; accepted: random for stage {index + 1}, as {obstacle}")
    check_pictures(network, images)
    following = check_followers(network, followers)
    driving = [] if optimizer is None else schedulers_of(optimizer, schedulers)
    if optimizer is not None:
        check_schedulers(optimizer, (*schedulers, *driving))
    pruned = any(not layer.mask.all() for layer in masked_layers(network).values())
    dead = dead_trunk(network) if init == "identity" else torch.zeros(0, dtype=torch.bool)
    stage = network.append_stage(seed)
    if pruned:
        mask_dead_inputs(network, index)
    if isinstance(network, Network):
        if init == "identity":
            keep_function(network, dead, images)
        elif init == "copy":
            copy_previous(network)
    for follower in following:
        follower.append_stage(seed=0).load_state_dict(stage.state_dict())
    if optimizer is not None:
        add_stage(optimizer, network, index, driving)
    return Growth(
        stage=index,
        cells=len(network.plans[index].cells) if isinstance(network, Network) else 0,
        final=network.complete,
        parameters=sum(parameter.numel() for parameter in stage.parameters()),
        weights=sum(int(layer.mask.sum()) for layer in masked_layers(stage).values()),
        init=init,
    )


def _obstacle(network: Branching, init: Init) -> str:
    """Why the next stage cannot start with ``init``, identity or copy; empty if it can."""
    if not isinstance(network, Network):
        return "it is made of your own layers"
    return can_keep(network) if init == "identity" else can_copy(network)
