"""What a network costs: parameters, weights and multiply-accumulates for each exit."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ramify.config.rules import NetworkConfig
from ramify.config.yamltext import to_text
from ramify.errors import ConfigError
from ramify.nn.branching import Branching
from ramify.nn.graph import attention_in_parts
from ramify.nn.masked import masked_layers
from ramify.nn.modes import keeping_modes
from ramify.nn.network import Network
from ramify.nn.recording import Operation, OperationRecorder


@dataclass(frozen=True)
class Cost:
    """The cost of a network that answers at one exit: everything up to it, all heads on the way included.

    Attributes:
        parameters: every parameter, biases, batch norm and pooling shares included.
        weights: convolution and linear weights.
        kept: weights that are not masked.
        macs: multiply-accumulates of convolutions, linear layers and attention for one picture; masked weights count.
    """

    parameters: int
    weights: int
    kept: int
    macs: int

    @property
    def density(self) -> float:
        """The fraction of weights that are kept."""
        return self.kept / self.weights


def cost(network: Branching) -> list[Cost]:
    """The cost of answering at each exit that exists, shallowest first.

    The MACs are those that ``torch.utils.flop_counter`` counts (it says FLOPs for twice as many).

    Example:
        >>> config = NetworkConfig(kind="full", structure=(0,) * 9, input_shape=(3, 32, 32), classes=10)
        >>> cost(Network(config))[-1].weights
        44464
    """
    counter = MacCounter()
    macs: list[int] = []
    with attention_in_parts(), keeping_modes(network), torch.inference_mode(), counter:
        network.eval()
        trunk, logits = network.enter(network.blank()), None
        for stage in range(len(network.stages)):
            trunk, logits = network.run_stage(stage, trunk, logits)
            macs.append(counter.macs)
    costs: list[Cost] = []
    parameters = weights = kept = 0
    for stage, so_far in enumerate(macs):
        for module in network.stage_modules(stage).values():
            parameters += sum(parameter.numel() for parameter in module.parameters())
            for layer in masked_layers(module).values():
                weights += layer.weight.numel()
                kept += int(layer.mask.sum())
        costs.append(Cost(parameters, weights, kept, so_far))
    return costs


def place_exits(config: NetworkConfig) -> NetworkConfig:
    """``config`` with the internal classifiers where ``exits_at`` asks for them; unchanged where that is null.

    Each fraction gets a cell of its own, not the last, so that the distances to the fractions of MACs computed by then
    have the smallest sum.

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
    network = Network(bare.model_copy(update={"structure": (0,) * cells}), stages=1, seed=0)
    counter = MacCounter()
    at: list[int] = []
    for cell in network.get_submodule("stages.0.cells").children():
        cell.register_forward_hook(lambda *_: at.append(counter.macs))
    with torch.inference_mode(), counter:
        network.eval()(network.blank())
    shares = [done / counter.macs for done in at[:-1]]
    # By the cell of the last exit so far: the least distance and its cells.
    best: dict[int, tuple[float, tuple[int, ...]]] = {-1: (0.0, ())}
    for fraction in config.exits_at:
        best = {
            i: min((far + abs(share - float(fraction)), (*chosen, i)) for j, (far, chosen) in best.items() if j < i)
            for i, share in enumerate(shares)
            if i > min(best, default=cells)
        }
    if not best:
        raise ConfigError(
            f"network.exits_at: got {to_text(config.exits_at)}; accepted: up to {cells - 1}, the cells but the last"
        )
    _, behind = min(best.values())
    return config.model_copy(update={"structure": tuple(int(i in behind) for i in range(cells))})


def stage_density(network: Branching) -> list[float]:
    """The fraction of weights kept in each stage that exists; the stem counts to the first."""
    densities: list[float] = []
    for stage in range(len(network.stages)):
        modules = network.stage_modules(stage).values()
        masks = [layer.mask for module in modules for layer in masked_layers(module).values()]
        densities.append(sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks))
    return densities


class MacCounter(OperationRecorder):
    """Counts the multiply-accumulates of convolutions, linear layers and products of matrices inside a ``with`` block.

    Example:
        >>> with torch.inference_mode(), MacCounter() as counter:
        ...     _ = torch.nn.Linear(3, 5)(torch.rand(1, 3))
        >>> counter.macs
        15
    """

    def __init__(self) -> None:
        super().__init__(self._count)
        self.macs = 0

    def _count(self, operation: Operation) -> None:
        output = operation.output
        if not isinstance(output, Tensor):
            return
        match operation.name:
            case "conv1d" | "conv2d" | "conv3d" | "linear":
                self.macs += output.numel() * operation.tensor("weight")[0].numel()
            case "conv_transpose1d" | "conv_transpose2d" | "conv_transpose3d":
                self.macs += operation.tensor("input").numel() * operation.tensor("weight")[0].numel()
            case "matmul" | "mm" | "bmm" | "addmm" | "baddbmm":
                self.macs += output.numel() * operation.tensors[-2].shape[-1]
            case "einsum":
                with MacCounter() as products:
                    operation.func.decompose(*operation.args, **operation.kwargs)
                self.macs += products.macs
            case "scaled_dot_product_attention":
                query, value = operation.tensor("query"), operation.tensor("value")
                tokens = value.shape[-2]
                self.macs += query.numel() * tokens + output.numel() * tokens
