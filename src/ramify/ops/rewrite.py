"""Rewriting of a module in evaluation mode as fewer operations.

Convolution, linear layer and batch norm in evaluation mode are affine, so one layer with a bias computes two of them
in a row (``w * s`` and ``shift - mean * s``, with ``s = scale / sqrt(variance + eps)``), and a factor for each channel
before them. Factors are combined in float64 and rounded once.
"""

import operator
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Argument
from torch.nn import functional as F

from ramify.nn.attached import as_map
from ramify.ops.traced import CONVOLUTIONS, Function, Traced, trace

_LAYER = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
_DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d)
_FLATTENING = ("flatten", "view", "reshape", torch.flatten, torch.reshape)
_FLAGGED = (F.relu6, F.silu, F.hardswish, F.hardsigmoid, F.hardtanh, F.leaky_relu, F.elu)
"""Activations that take ``inplace=True``."""

_MUL, _DIV = (operator.mul, torch.mul), (operator.truediv, torch.div)
_UNARY: dict[object, Function] = {F.relu: torch.relu_, torch.relu: torch.relu_, torch.sigmoid: torch.sigmoid_}
_BINARY: dict[object, str] = {
    **dict.fromkeys((operator.add, torch.add), "add_"),
    **dict.fromkeys((operator.sub, torch.sub), "sub_"),
    **dict.fromkeys(_MUL, "mul_"),
    **dict.fromkeys(_DIV, "div_"),
    torch.lerp: "lerp_",
}
"""Operations, and their form that writes into the first operand."""

_NEUTRAL = {"add_": 0.0, "sub_": 0.0, "mul_": 1.0, "div_": 1.0}
_POOLS = (F.avg_pool2d, F.max_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d)
_PRODUCTS = (F.linear, torch.matmul, operator.matmul)
_NORMS = (F.batch_norm, F.layer_norm)
_FRESH = {*CONVOLUTIONS, *_UNARY, *_BINARY, *_FLAGGED, *_POOLS, *_PRODUCTS, *_NORMS, F.gelu, torch.cat, "mean"}
"""Operations whose output has memory of its own. That of any other may be a view of an input."""


def rewritten(root: nn.Module, example: Tensor) -> nn.Module:
    """A faster module that computes what ``root`` computes in evaluation mode, for tensors like ``example [B, ...]``.

    The batch size may differ. A module that torch.fx cannot trace, or that is not known here, stays as it is.
    """
    traced = trace(root, example)
    if traced is None:
        return root
    for change in (_drop_idle, _fold_norms, _fold_factors, _lower_pools, _read_as_it_lies, _work_in_place):
        change(traced)
        traced.drop_unread()
    return traced.module()


def _drop_idle(traced: Traced) -> None:
    """Drop operations that change nothing: dropout, subtracting 0, multiplying by 1."""
    for node in traced.nodes:
        if node in traced.constants or node.op != "call_function" or not node.args:
            continue
        first = node.args[0]
        idle = (node.target is as_map and traced.alike(first, node)) or (
            node.target in _DROPOUTS and node.kwargs.get("training") is False
        )
        if _BINARY.get(node.target) in _NEUTRAL and len(node.args) == 2 and traced.alike(first, node):
            other = traced.known(node.args[1])
            idle = other is not None and bool((other == _NEUTRAL[_BINARY[node.target]]).all())
        if idle:
            traced.replace(node, first)


def _arguments(node: fx.Node, names: Sequence[str]) -> dict[str, Argument]:
    """The arguments of a call by name."""
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def _layer(traced: Traced, node: object) -> dict[str, Argument] | None:
    """The arguments of a convolution or linear layer whose weights are constants; None of anything else."""
    if not isinstance(node, fx.Node) or (node.target not in CONVOLUTIONS and node.target is not F.linear):
        return None
    layer: dict[str, Argument] = {"bias": None}
    if node.target is not F.linear:
        layer |= {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    layer |= _arguments(node, _LAYER)
    bias = layer["bias"] is None or traced.known(layer["bias"]) is not None
    return layer if bias and traced.known(layer["weight"]) is not None else None


def _set_layer(traced: Traced, node: fx.Node, layer: dict[str, Argument], weight: Tensor, bias: Tensor | None) -> None:
    """Give a layer another weight and bias, both in float64."""
    old = layer["weight"]
    assert isinstance(old, fx.Node)
    origin = traced.origins.get(old, traced.constants[old])
    layer["weight"] = traced.constant(weight, origin, node)
    layer["bias"] = None if bias is None else traced.constant(bias, origin, node)
    node.args, node.kwargs = tuple(layer[name] for name in _LAYER if name in layer), {}


def _fold_norms(traced: Traced) -> None:
    """Fold each batch norm into the layer before it, if nothing else reads that."""
    for node in traced.nodes:
        if node.target is not F.batch_norm:
            continue
        norm = {"weight": None, "bias": None, "training": False, "eps": 1e-5} | _arguments(node, _NORM)
        before = norm["input"]
        layer = _layer(traced, before)
        if layer is None or norm["training"] is not False or not isinstance(before, fx.Node) or len(before.users) > 1:
            continue
        mean, variance = traced.exact(norm["running_mean"]), traced.exact(norm["running_var"])
        weight, eps = traced.exact(layer["weight"]), norm["eps"]
        if mean is None or variance is None or weight is None or not isinstance(eps, float):
            continue
        # Behind a linear layer of tokens a batch norm scales tokens, not features.
        if before.target is F.linear and len(traced.shape(before)) != 2:
            continue
        factor = (variance + eps).sqrt().reciprocal()
        scale, shift, bias = (traced.exact(argument) for argument in (norm["weight"], norm["bias"], layer["bias"]))
        if scale is not None:
            factor = scale / (variance + eps).sqrt()
        offset = -mean * factor if bias is None else (bias - mean) * factor
        offset = offset if shift is None else shift + offset
        _set_layer(traced, before, layer, weight * factor.view(-1, *(1,) * (weight.dim() - 1)), offset)
        traced.replace(node, before)


def _fold_factors(traced: Traced) -> None:
    """Fold constant factors, one for each channel of what only a layer reads, into that layer."""
    for node in traced.nodes:
        divides = node.target in _DIV
        if not (divides or node.target in _MUL) or len(node.args) != 2 or len(node.users) != 1:
            continue
        value, other = node.args
        if not divides and traced.known(value) is not None:
            value, other = other, value
        [user] = node.users
        layer = _layer(traced, user)
        if layer is None or layer["input"] is not node or traced.known(value) is not None:
            continue
        if not traced.alike(value, node):
            continue
        factor = torch.tensor(other, dtype=torch.float64) if isinstance(other, int | float) else traced.exact(other)
        weight, groups = traced.exact(layer["weight"]), layer.get("groups", 1)
        if factor is None or weight is None or not isinstance(groups, int):
            continue
        channels = traced.shape(node)[1 if user.target in CONVOLUTIONS else -1]
        sides = (1,) * (weight.dim() - 2)
        if factor.numel() == 1:
            factor = factor.flatten().expand(channels)
        elif tuple(factor.shape) not in ((channels, *sides), (1, channels, *sides)):
            continue
        scale = factor.reshape(groups, 1, -1).expand(groups, len(weight) // groups, -1)
        scale = scale.reshape(*weight.shape[:2], *sides)
        _set_layer(traced, user, layer, weight / scale if divides else weight * scale, traced.exact(layer["bias"]))
        traced.replace(node, value)


def _lower_pools(traced: Traced) -> None:
    """Replace adaptive pools by pools with windows of one size, which are faster, or by nothing; mix by a number."""
    for node in traced.nodes:
        if node.target in (F.adaptive_avg_pool2d, F.adaptive_max_pool2d) and not node.kwargs.get("return_indices"):
            maps = node.args[0]
            (height, width), (rows, columns) = traced.shape(maps)[-2:], traced.shape(node)[-2:]
            if (height, width) == (rows, columns):
                traced.replace(node, maps)
            elif not (height % rows or width % columns):
                pool: Function = F.avg_pool2d if node.target is F.adaptive_avg_pool2d else F.max_pool2d
                traced.call(node, pool, (maps, (height // rows, width // columns)))
        elif node.target is torch.lerp and len(node.args) == 3:
            first, second, share = node.args
            value = traced.known(share)
            if first is second:
                traced.replace(node, first)
            elif value is not None and value.dim() == 0:
                node.args = (first, second, float(value))


def _read_as_it_lies(traced: Traced) -> None:
    """Order the columns of linear layers channels last, as maps lie in memory, so that flattening copies nothing."""
    for node in traced.nodes:
        layer = _layer(traced, node) if node.target is F.linear else None
        flat = layer["input"] if layer is not None else None
        if layer is None or not isinstance(flat, fx.Node) or flat.target not in _FLATTENING or len(flat.users) > 1:
            continue
        maps, weight = flat.args[0], traced.exact(layer["weight"])
        value, shape = traced.value(maps), traced.shape(maps)
        if value is None or weight is None or len(shape) != 4 or shape[2] * shape[3] == 1:
            continue
        if traced.shape(flat) != (shape[0], shape[1] * shape[2] * shape[3]):
            continue
        columns = weight.unflatten(1, shape[1:]).permute(0, 2, 3, 1).flatten(1)
        _set_layer(traced, node, layer, columns, traced.exact(layer["bias"]))
        with traced.graph.inserting_before(flat):
            last = traced.graph.call_method("permute", (maps, 0, 2, 3, 1))
        traced.values[last] = value.permute(0, 2, 3, 1)
        traced.call(flat, "flatten", (last, 1))


def _work_in_place(traced: Traced) -> None:
    """Let activations, sums and products write into an operand that nothing else reads later."""
    places = {node: place for place, node in enumerate(traced.nodes)}
    memory: dict[fx.Node, set[fx.Node]] = {}  # the nodes that may share the memory of each

    def share(nodes: Iterable[fx.Node]) -> None:
        together: set[fx.Node] = set().union(*(memory[node] for node in nodes))
        memory.update(dict.fromkeys(together, together))

    def free(node: Argument, reader: fx.Node) -> bool:
        """Whether ``reader`` may write into the memory of ``node``."""
        if not isinstance(node, fx.Node) or not traced.alike(node, reader):
            return False
        others = [operand for operand in reader.all_input_nodes if operand is not node]
        return not any(
            sharer.op in ("placeholder", "get_attr", "call_module")
            or sharer in traced.constants
            or sharer in others
            or any(places[user] > places[reader] for user in sharer.users)
            for sharer in memory[node]
        )

    for node in traced.nodes:
        memory[node] = {node}
        if node in traced.constants or node.op in ("placeholder", "get_attr", "output"):
            continue
        if node.target not in _FRESH or traced.mutates(node):
            share([node, *(operand for operand in node.all_input_nodes if operand not in traced.constants)])
            continue
        target = _in_place(node, free)
        if target is None:
            continue
        call, kwargs = target
        args = node.args if free(node.args[0], node) else tuple(reversed(node.args))
        new = traced.call(node, call, args, **kwargs)
        places[new], memory[new] = places[node], {new}
        share([new, *new.all_input_nodes[:1]])


def _in_place(
    node: fx.Node, free: Callable[[Argument, fx.Node], bool]
) -> tuple[Function | str, dict[str, Argument]] | None:
    """The call that computes ``node`` in the memory of its first operand, or of its second if only that is free."""
    first = free(node.args[0], node)
    if node.target in _UNARY:
        return (_UNARY[node.target], {}) if first else None
    if node.target in _FLAGGED and callable(node.target):
        return (node.target, {**node.kwargs, "inplace": True}) if first else None
    method = _BINARY.get(node.target)
    if method is None or node.kwargs:
        return None
    swaps = method in ("add_", "mul_") and free(node.args[1], node)
    return (method, {}) if first or swaps else None
