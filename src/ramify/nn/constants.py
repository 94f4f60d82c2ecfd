"""What a network computes whatever the picture: the network is run on a picture of NaN, which stands for "it depends".

Every operation computes as always, so a value that is no NaN is exactly what the network gives there for every
picture. Two things differ: a masked weight keeps NaN out, and zero times NaN is zero.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ramify.nn.masked import masked_layers
from ramify.nn.recording import Operation, OperationRecorder, flat_tensors, run


class LayerInput(NamedTuple):
    """What a convolution or linear layer reads: bool ``[input channels or features]``.

    Attributes:
        constant: where it is the same for all pictures.
        zero: where it is 0 for all pictures, at every place of the map.
    """

    constant: Tensor
    zero: Tensor


class Constants(NamedTuple):
    """What does not depend on the picture.

    Attributes:
        inputs: of each masked layer that ran, by its name.
        output: what the network gave, with NaN where it depends.
    """

    inputs: dict[str, LayerInput]
    output: Tensor


def constants(network: nn.Module, pictures: Tensor, forward: Callable[[Tensor], Tensor] | None = None) -> Constants:
    """What ``network``, in evaluation mode, computes whatever the picture.

    Args:
        network: ``pictures -> Tensor``.
        pictures: one or more, whose values are of no account.
        forward: what to run in place of ``network``: a part of what it does.

    Example:
        >>> from ramify.nn.masked import MaskedConv2d
        >>> network = nn.Sequential(MaskedConv2d(1, 2, 3), nn.ReLU(), MaskedConv2d(2, 1, 3)).eval()
        >>> _ = network[0].mask[1].fill_(False)
        >>> constants(network, torch.rand(1, 1, 8, 8)).inputs["2"].zero.tolist()
        [False, True]
    """
    layers = masked_layers(network)
    weights = {id(layer.weight): name for name, layer in layers.items()}
    found: dict[str, LayerInput] = {}
    products: dict[int, tuple[Tensor, str]] = {}  # weight times mask; kept, so that no id is given twice
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
        before = found.get(name, now)
        found[name] = LayerInput(now.constant & before.constant, now.zero & before.zero)
        return _layer(operation, weight, layers[name].mask)

    with torch.inference_mode(), OperationRecorder(follow, compute):
        output: Tensor = (forward or network)(torch.full_like(pictures, torch.nan))
    return Constants(found, output)


def _layer(operation: Operation, weight: Tensor, mask: Tensor) -> object:
    """A layer, whose masked weights read nothing."""
    value = operation.tensor("input")
    replaced: Mapping[int, Tensor] = {id(value): value.nan_to_num(0.0)}
    output = operation.on(lambda tensor: replaced.get(id(tensor), tensor))
    counted = {id(value): value.isnan().to(value.dtype), id(weight): mask.to(value.dtype)}
    bias = operation.argument("bias")
    if isinstance(bias, Tensor):
        counted[id(bias)] = torch.zeros_like(bias)
    depends = operation.on(lambda tensor: counted.get(id(tensor), tensor))
    assert isinstance(output, Tensor)
    assert isinstance(depends, Tensor)
    return output.masked_fill(depends > 0.5, torch.nan)


def _computed(operation: Operation, decided: dict[int, Tensor]) -> object:
    """Any other operation; none may lose a NaN, but for a product with zero.

    A comparison does, and so does what reads its answer: all of that then counts as what depends on the picture.
    """
    values = [value for value in operation.tensors if value.is_floating_point()]
    nan = [value.isnan() for value in values]
    zero = [value == 0 for value in values] if operation.name == "mul" else []
    lost = any(id(value) in decided for value in operation.tensors)
    output = run(operation)
    for value in flat_tensors(output):
        if value.is_floating_point() and lost:
            value.fill_(torch.nan)
        elif value.is_floating_point() and operation.pointwise:
            for each in nan:
                value.masked_fill_(each, torch.nan)
            for each in zero:
                value.masked_fill_(each, 0)
        elif not value.is_floating_point() and (lost or any(bool(each.any()) for each in nan)):
            decided[id(value)] = value
    return output
