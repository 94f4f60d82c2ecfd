"""The values of a network that do not depend on the picture: those that are no NaN where the picture is all NaN.

Every operation computes as always, but a masked weight keeps NaN out, and zero times NaN is zero.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ramify.nn.masked import masked_layers
from ramify.nn.recording import Operation, OperationRecorder, flat_tensors, run


class LayerInput(NamedTuple):
    """The input of a convolution or linear layer: bool ``[input channels or features]``.

    Attributes:
        constant: where it is the same for all pictures.
        zero: where it is 0 for all pictures, at every place of the map.
    """

    constant: Tensor
    zero: Tensor


class Constants(NamedTuple):
    """Values that do not depend on the picture.

    Attributes:
        inputs: of each masked layer that ran, by its name.
        output: of the network, with NaN where it depends on the picture.
    """

    inputs: dict[str, LayerInput]
    output: Tensor


def constants(network: nn.Module, pictures: Tensor, forward: Callable[[Tensor], Tensor] | None = None) -> Constants:
    """The values of ``network``, in evaluation mode, that do not depend on the picture.

    The values of ``pictures`` do not matter. A part of the network, ``forward``, may run in place of all of it.

    Example:
        >>> from ramify.nn.masked import MaskedConv2d
        >>> network = nn.Sequential(MaskedConv2d(1, 2, 3), nn.ReLU(), MaskedConv2d(2, 1, 3)).eval()
        >>> _ = network[0].mask[1].fill_(False)
        >>> constants(network, torch.rand(1, 1, 8, 8)).inputs["2"].zero.tolist()
        [False, True]
    """
    layers = masked_layers(network)
    weights = {id(layer.weight): name for name, layer in layers.items()}
    inputs: dict[str, LayerInput] = {}
    products: dict[int, tuple[Tensor, str]] = {}  # weight times mask; kept, so that no id is used twice
    decided: dict[int, Tensor] = {}  # whole numbers and booleans, which hold no NaN, made of what depends

    def follow(operation: Operation) -> None:
        if operation.name == "mul" and isinstance(operation.output, Tensor):
            name = next((weights[id(value)] for value in operation.tensors if id(value) in weights), None)
            if name is not None:
                products[id(operation.output)] = (operation.output, name)

    def compute(operation: Operation) -> object:
        if operation.name not in ("linear", "conv1d", "conv2d", "conv3d"):
            return _computed(operation, decided)
        weight = operation.tensor("weight")
        name = products[id(weight)][1] if id(weight) in products else weights.get(id(weight))
        value = operation.tensor("input")
        rows = value.movedim(-1 if operation.name == "linear" else 1, 0).flatten(1)
        now = LayerInput(~rows.isnan().any(dim=1), (rows == 0).all(dim=1))
        if name is None:
            return run(operation)
        before = inputs.get(name, now)
        inputs[name] = LayerInput(now.constant & before.constant, now.zero & before.zero)
        return _masked_layer(operation, weight, layers[name].mask)

    with torch.inference_mode(), OperationRecorder(follow, compute):
        output: Tensor = (forward or network)(torch.full_like(pictures, torch.nan))
    return Constants(inputs, output)


def _masked_layer(operation: Operation, weight: Tensor, mask: Tensor) -> Tensor:
    """A layer whose masked weights read nothing."""
    value = operation.tensor("input")
    without_nan = value.nan_to_num(0.0)
    output = operation.on(lambda tensor: without_nan if tensor is value else tensor)
    counted = {id(value): value.isnan().to(value.dtype), id(weight): mask.to(value.dtype)}
    bias = operation.argument("bias")
    if isinstance(bias, Tensor):
        counted[id(bias)] = torch.zeros_like(bias)
    depends = operation.on(lambda tensor: counted.get(id(tensor), tensor))
    assert isinstance(output, Tensor)
    assert isinstance(depends, Tensor)
    return output.masked_fill(depends > 0.5, torch.nan)


def _computed(operation: Operation, decided: dict[int, Tensor]) -> object:
    """Any other operation. What reads the result of a comparison, which has no NaN, depends on the picture as well."""
    values = [value for value in operation.tensors if value.is_floating_point()]
    nan = [value.isnan() for value in values]
    zero = [value == 0 for value in values] if operation.name == "mul" else []
    lost = any(id(value) in decided for value in operation.tensors)
    output = run(operation)
    for value in flat_tensors(output):
        if value.is_floating_point() and lost:
            value.fill_(torch.nan)
        elif value.is_floating_point() and operation.pointwise:
            for mask in nan:
                value.masked_fill_(mask, torch.nan)
            for mask in zero:
                value.masked_fill_(mask, 0)
        elif not value.is_floating_point() and (lost or any(bool(mask.any()) for mask in nan)):
            decided[id(value)] = value
    return output
