"""Growth: a network gains its next stage while it trains."""

from dataclasses import dataclass

import torch

from ramify.errors import InputError
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.ops.channels import mask_dead_inputs
from ramify.ops.surgery import add_stage


@dataclass(frozen=True)
class Growth:
    """What one growth did.

    Attributes:
        stage: index of the new stage, from 0; also of its exit.
        cells: how many cells it has.
        final: whether its exit is the final classifier.
        parameters: how many parameters it added, biases and batch norm included.
        weights: how many convolution and linear weights it added, masked ones left out.
    """

    stage: int
    cells: int
    final: bool
    parameters: int
    weights: int


def grow(network: Network, optimizer: torch.optim.Optimizer | None = None, *, seed: int | None = None) -> Growth:
    """Append the next stage to ``network`` and hand its parameters to ``optimizer``.

    Weights, batch norm and optimizer state of what was there stay as they are, bit for bit. The stage starts
    with random weights (He normal), masked where they would read a channel that pruning has taken away. It takes
    the options of the optimizer's groups, so it learns at the same rate as the rest.

    Args:
        network: a network that is not complete.
        optimizer: any ``torch.optim`` optimizer over the network's parameters, or None.
        seed: seed of the new weights, as in :class:`~ramify.nn.network.Network`.

    Raises:
        InputError: the network is complete.

    Example:
        >>> from ramify.config import NetworkConfig
        >>> network = Network(NetworkConfig(structure=(1, 0), input_shape=(1, 8, 8), classes=10))
        >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        >>> growth = grow(network, optimizer)
        >>> growth.stage, growth.cells, growth.final, network.complete
        (1, 1, True, True)
    """
    if network.complete:
        raise InputError(
            f"grow: got a network with all its {len(network.stages)} stages; accepted: one that lacks some"
        )
    stage = network.append_stage(seed)
    index = len(network.stages) - 1
    mask_dead_inputs(network, index)
    if optimizer is not None:
        add_stage(optimizer, network, index)
    return Growth(
        stage=index,
        cells=len(stage.cells),
        final=stage.plan.final,
        parameters=sum(parameter.numel() for parameter in stage.parameters()),
        weights=sum(int(layer.mask.sum()) for layer in masked_layers(stage).values()),
    )
