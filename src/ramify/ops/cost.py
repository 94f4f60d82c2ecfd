"""What a network costs: parameters, weights and multiply-accumulates for each exit."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ramify.config import NetworkConfig
from ramify.errors import ConfigError
from ramify.nn.masked import MaskedConv2d, MaskedLinear, masked_layers
from ramify.nn.network import Network
from ramify.ops.surgery import stage_modules
from ramify.yamltext import to_text


@dataclass(frozen=True)
class Cost:
    """The cost of a network that answers at one exit: everything up to it, all heads on the way included.

    Attributes:
        parameters: every parameter, biases, batch norm and pooling shares included.
        weights: convolution and linear weights.
        kept: those of them that no mask removes.
        macs: multiply-accumulates of the convolution and linear layers for one picture. A masked weight is
            multiplied like any other, so pruning weights leaves them as they are.
    """

    parameters: int
    weights: int
    kept: int
    macs: int

    @property
    def density(self) -> float:
        """The fraction of weights that are kept."""
        return self.kept / self.weights


def cost(network: Network) -> list[Cost]:
    """The cost of answering at each exit that exists, shallowest first.

    The MACs are those that ``torch.utils.flop_counter`` counts (it says FLOPs for twice as many).

    Example:
        >>> from ramify.config import NetworkConfig
        >>> config = NetworkConfig(kind="full", structure=(0,) * 9, input_shape=(3, 32, 32), classes=10)
        >>> cost(Network(config))[-1].weights
        44464
    """
    macs = _layer_macs(network)
    costs: list[Cost] = []
    parameters = weights = kept = total = 0
    for stage in range(len(network.stages)):
        for prefix, module in stage_modules(network, stage).items():
            parameters += sum(parameter.numel() for parameter in module.parameters())
            for name, layer in masked_layers(module).items():
                weights += layer.weight.numel()
                kept += int(layer.mask.sum())
                total += macs[f"{prefix}.{name}"]
        costs.append(Cost(parameters, weights, kept, total))
    return costs


def place_exits(config: NetworkConfig) -> NetworkConfig:
    """``config`` with the internal classifiers where ``exits_at`` wants them; as it is where that is null.

    Each stands behind another cell, not the last, chosen so that the fractions of its MACs that the network without
    internal classifiers has computed by then are nearest, their distances summed.

    Raises:
        ConfigError: there are more fractions than cells for them.

    Example:
        >>> config = NetworkConfig(structure=(0,) * 9, exits_at=(0.3, 0.6), input_shape=(3, 32, 32), classes=10)
        >>> place_exits(config).structure
        (0, 0, 1, 0, 1, 0, 0, 0, 0)
    """
    if config.exits_at is None or config.has_backbone:
        return config
    cells = len(config.structure)
    bare = config.model_copy(update={"kind": "dense" if config.kind == "dense" else "full_ic", "exits_at": None})
    # On the meta device shapes flow through, and nothing is computed.
    with torch.device("meta"):
        network = Network(bare.model_copy(update={"structure": (0,) * cells}), stages=1)
    macs = _layer_macs(network)
    at = list(itertools.accumulate(sum(_of(macs, f"stages.0.cells.{i}.")) for i in range(cells)))
    stem, total = sum(_of(macs, "stem.")), sum(macs.values())
    shares = [(stem + done) / total for done in at[:-1]]
    # For each cell the best places of the exits so far of which the last is behind it: (distance, cells).
    best: dict[int, tuple[float, tuple[int, ...]]] = {-1: (0.0, ())}
    for asked in config.exits_at:
        best = {
            i: min((far + abs(share - float(asked)), (*chosen, i)) for j, (far, chosen) in best.items() if j < i)
            for i, share in enumerate(shares)
            if i > min(best, default=cells)
        }
    if not best:
        raise ConfigError(
            f"network.exits_at: got {to_text(config.exits_at)}; accepted: up to {cells - 1}, the cells but the last"
        )
    _, behind = min(best.values())
    return config.model_copy(update={"structure": tuple(int(i in behind) for i in range(cells))})


def _of(macs: dict[str, int], prefix: str) -> list[int]:
    return [count for name, count in macs.items() if name.startswith(prefix)]


def stage_density(network: Network) -> list[float]:
    """The fraction of weights kept in each stage that exists; the stem counts to the first."""
    densities: list[float] = []
    for stage in range(len(network.stages)):
        modules = stage_modules(network, stage).values()
        masks = [layer.mask for module in modules for layer in masked_layers(module).values()]
        densities.append(sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks))
    return densities


def _layer_macs(network: Network) -> dict[str, int]:
    """MACs of each masked layer for one picture, read off the sizes that flow through it."""
    macs: dict[str, int] = {}

    def record(name: str, layer: nn.Module, output: Tensor) -> None:
        if isinstance(layer, MaskedConv2d):
            each = layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
        elif isinstance(layer, MaskedLinear):
            each = layer.in_features
        macs[name] = output[0].numel() * each

    hooks = [
        layer.register_forward_hook(lambda layer, _, output, name=name: record(name, layer, output))
        for name, layer in masked_layers(network).items()
    ]
    training = network.training
    assert network.config.input_shape is not None
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, *network.config.input_shape, device=network.mean.device))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return macs
