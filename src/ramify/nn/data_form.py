"""A network of the user's own layers as JSON, which rebuilds it without the code that it came from.

Its graphs are lists of operations, and its layers are those of ``torch.nn`` with their arguments. Only operations named
here are read back, so a description can compute, and do nothing else.
"""

import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ramify.errors import InputError, first_line
from ramify.nn.attached import Attached, AttachedStage
from ramify.nn.exit import EXITS, ONE_PIXEL, BothHead, PooledHead, ScaledHead
from ramify.nn.masked import MaskedConv2d, MaskedLinear, with_mask
from ramify.nn.survey import ExitPoint

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]

VERSION = 1

_METHODS = (
    "abs add add_ amax amin argmax bmm cat ceil chunk clamp clip contiguous cos cumsum detach dim div div_ exp expand "
    "expand_as flatten flip float floor gather half index_select log log1p log_softmax logsumexp masked_fill matmul "
    "max maximum mean min minimum movedim mul mul_ narrow neg new_ones new_zeros norm numel permute pow prod "
    "reciprocal relu relu_ repeat repeat_interleave reshape reshape_as roll round rsqrt select sigmoid sigmoid_ sign "
    "silu sin size softmax split split_with_sizes sqrt square squeeze std sub sub_ sum swapaxes t tanh tile to "
    "transpose type_as unbind unflatten unfold unsqueeze var view view_as"
)
_TORCH = (
    "_assert addmm arange baddbmm concat concatenate conv1d conv2d conv_transpose2d einsum full lerp linspace ones "
    "ones_like outer stack tensor_split where zeros zeros_like avg_pool1d batch_norm layer_norm group_norm "
    "adaptive_avg_pool1d"
)
_FUNCTIONAL = (
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "alpha_dropout avg_pool1d avg_pool2d avg_pool3d batch_norm celu channel_shuffle conv1d conv2d conv3d "
    "conv_transpose2d dropout dropout1d dropout2d dropout3d elu embedding feature_alpha_dropout gelu glu group_norm "
    "hardsigmoid hardswish hardtanh instance_norm interpolate layer_norm leaky_relu linear local_response_norm "
    "log_softmax logsigmoid lp_pool2d max_pool1d max_pool2d max_pool3d mish normalize pad pixel_shuffle "
    "pixel_unshuffle prelu relu relu6 relu_ rms_norm scaled_dot_product_attention selu sigmoid silu softmax softmin "
    "softplus softsign tanh unfold upsample"
)
_OPERATORS = (
    "add sub mul truediv floordiv mod pow neg getitem matmul iadd isub imul itruediv eq ne lt le gt ge and_ or_ not_ "
    "abs"
)

METHODS = frozenset(_METHODS.split())
"""Methods of tensors that a description may call."""

ATTRIBUTES = frozenset(["shape", "ndim", "device", "dtype", "T", "mT", "training"])
"""Attributes of tensors that a description may read."""

_FUNCTIONS: Mapping[str, Callable[..., object]] = {
    **{
        f"torch.{name}": getattr(torch, name)
        for name in f"{_METHODS} {_TORCH}".split()
        if callable(getattr(torch, name, None))
    },
    **{f"torch.nn.functional.{name}": getattr(F, name) for name in _FUNCTIONAL.split()},
    **{f"_operator.{name}": getattr(operator, name) for name in _OPERATORS.split()},
    "builtins.getattr": getattr,
}
"""Functions that a description may call, by name."""


def description(network: Attached) -> dict[str, Json]:
    """The JSON from which :func:`from_description` rebuilds ``network``, without the values of its tensors.

    Raises:
        InputError: the network has an operation or layer that a description cannot hold.
    """
    return {
        "version": VERSION,
        "input_shape": list(network.input_shape),
        "classes": network.classes,
        "frozen": network.frozen,
        "fixed": sorted(network.frozen_parameters),
        "existing": len(network.stages),
        "points": [[point.name, list(point.shape), point.share] for point in network.points],
        "stages": [_stage(stage) for stage in (*network.stages, *network.pending) if isinstance(stage, AttachedStage)],
    }


def from_description(data: Mapping[str, Json]) -> Attached:
    """The network of a :func:`description`, in evaluation mode; the values of its tensors are still to be loaded.

    Raises:
        InputError: ``data`` is no such description.

    Example:
        >>> from ramify.nn.attach import attach_exits
        >>> own = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        >>> network = attach_exits(own, ["1"], example=torch.rand(1, 1, 8, 8)).eval()
        >>> twin, images = from_description(description(network)), torch.rand(5, 1, 8, 8)
        >>> _ = twin.load_state_dict(network.state_dict(), strict=True)
        >>> torch.equal(twin(images), network(images))
        True
    """
    try:
        if data["version"] != VERSION:
            raise InputError(f"graph: got version {data['version']}; accepted: {VERSION}")
        stages = [_read_stage(_table(stage)) for stage in _items(data["stages"])]
        for name in _items(data.get("fixed", [])):
            _, at, parameter = str(name).split(".", 2)
            stages[int(at)].get_parameter(parameter).requires_grad_(False)
        points = [
            ExitPoint(str(name), _integers(shape), float(cast(float, share)))
            for name, shape, share in map(_items, _items(data["points"]))
        ]
        return Attached(
            stages,
            _integers(data["input_shape"]),
            int(cast(int, data["classes"])),
            points=points,
            frozen=data["frozen"] is True,
            existing=int(cast(int, data["existing"])),
        ).eval()
    except InputError:
        raise
    except Exception as error:  # whatever a damaged description makes torch raise
        raise InputError(
            f"graph: got what rebuilds no network ({type(error).__name__}: {first_line(error)[:120]}); "
            "accepted: the description of one"
        ) from error


# To data.


def _stage(stage: AttachedStage) -> dict[str, Json]:
    body = stage.body
    layers: dict[str, Json] = {}
    tensors: dict[str, Json] = {}
    nodes: list[Json] = []
    for node in body.graph.nodes:
        target = str(node.target)
        if node.op == "call_module":
            layers[target] = _layer(body.get_submodule(target), target)
        elif node.op == "get_attr" and target != "training":
            value = operator.attrgetter(target)(body)
            if not isinstance(value, Tensor):
                raise InputError(f"network: got {target} of type {type(value).__name__}; accepted: tensors and layers")
            if target not in body.state_dict():
                raise _not_held(f"the buffer {target}, which is not persistent")
            kind = str(value.dtype).removeprefix("torch.")
            tensors[target] = [list(value.shape), kind, isinstance(value, nn.Parameter)]
        elif node.op == "call_function":
            target = _function_name(node)
        elif node.op == "call_method" and target not in METHODS:
            raise _not_held(f"the method {target} of a tensor")
        nodes.append([node.name, node.op, target, _to_json(node.args), _to_json(dict(node.kwargs))])
    return {"nodes": nodes, "layers": layers, "tensors": tensors, "head": _head(stage.exit)}


def _function_name(node: fx.Node) -> str:
    name = next((name for name, function in _FUNCTIONS.items() if function is node.target), None)
    if name is None:
        home, own = getattr(node.target, "__module__", ""), getattr(node.target, "__name__", node.target)
        raise _not_held(f"the function {home}.{own}")
    if node.target is getattr and node.args[1] not in ATTRIBUTES:
        raise _not_held(f"the attribute {node.args[1]} of a tensor")
    return name


def _not_held(part: str) -> InputError:
    return InputError(f"network: got one that uses {part}; accepted: operations and layers of PyTorch that can be kept")


def _layer(layer: nn.Module, name: str) -> Json:
    """A layer as the name of its class in ``torch.nn`` and its arguments."""
    masked = isinstance(layer, MaskedConv2d | MaskedLinear)
    base = (nn.Conv2d if isinstance(layer, MaskedConv2d) else nn.Linear) if masked else type(layer)
    if getattr(nn, base.__name__, None) is not base:
        raise _not_held(f"the layer {name} of type {base.__name__}")
    arguments: dict[str, Json] = {}
    for parameter in inspect.signature(base.__init__).parameters.values():
        if parameter.name in ("self", "device", "dtype") or not hasattr(layer, parameter.name):
            continue
        value: object = getattr(layer, parameter.name)
        if parameter.name == "bias":
            value = value is not None and value is not False
        arguments[parameter.name] = _to_json(value)
    data: Json = [base.__name__, arguments, masked]
    try:
        alike = _signature(_read_layer(_items(data))) == _signature(layer)
    except Exception:  # whatever a class raises without its arguments
        alike = False
    if not alike:
        raise _not_held(f"the layer {name} of type {base.__name__}, whose arguments cannot be read back from it")
    return data


def _signature(layer: nn.Module) -> tuple[str, dict[str, torch.Size]]:
    """The settings of a layer, and the shapes of its tensors."""
    # Some layers hold [1, 1] where PyTorch has (1, 1).
    settings = layer.extra_repr().replace("[", "(").replace("]", ")")
    return settings, {name: value.shape for name, value in layer.state_dict().items()}


def _head(head: nn.Module | None) -> Json:
    match head:
        case None:
            return None
        case BothHead():
            return ["both", head.linear.in_features // 2, head.linear.out_features]
        case ScaledHead():
            return ["scaled", head.linear.in_features, head.linear.out_features]
        case PooledHead():
            pixels = head.grid[0] * head.grid[1]
            reads = head.linear.in_features // pixels if head.conv is None else head.conv.in_channels
            hidden = None if head.conv is None else head.conv.out_channels
            return [reads, head.linear.out_features, list(head.grid), head.fixed, head.norm is not None, hidden]
    raise _not_held(f"an exit of type {type(head).__name__}")


def _to_json(value: object) -> Json:
    match value:
        case fx.Node():
            return {"node": value.name}
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple():
            return [_to_json(item) for item in value]
        case slice():
            return {"slice": [_to_json(value.start), _to_json(value.stop), _to_json(value.step)]}
        case torch.dtype():
            return {"dtype": str(value).removeprefix("torch.")}
        case dict():
            return {"dict": {str(key): _to_json(item) for key, item in value.items()}}
        case _ if value is Ellipsis:
            return {"ellipsis": True}
    raise _not_held(f"an argument of type {type(value).__name__}")


# From data.


def _read_stage(data: Mapping[str, Json]) -> AttachedStage:
    targets: dict[str, object] = {"training": False}
    for name, layer in _table(data["layers"]).items():
        targets[name] = _read_layer(_items(layer))
    for name, tensor in _table(data["tensors"]).items():
        targets[name] = _read_tensor(_items(tensor))
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    for node in _items(data["nodes"]):
        label, op, target, args, kwargs = _items(node)
        name = str(target)
        function: Callable[..., object] | str = name
        if op == "call_function":
            if name not in _FUNCTIONS or (name == "builtins.getattr" and _items(args)[1] not in ATTRIBUTES):
                raise InputError(f"graph: got the function {name}; accepted: those of a description")
            function = _FUNCTIONS[name]
        elif op == "call_method" and name not in METHODS:
            raise InputError(f"graph: got the method {name}; accepted: those of a description")
        elif op in ("call_module", "get_attr") and name not in targets:
            raise InputError(f"graph: got {name}, which is no layer or tensor of it; accepted: one of them")
        positional, keywords = _from_json(args, nodes), _from_json(kwargs, nodes)
        assert isinstance(positional, tuple)
        assert isinstance(keywords, dict)
        nodes[str(label)] = graph.create_node(str(op), function, positional, keywords, str(label))
    graph.lint()
    return AttachedStage(fx.GraphModule(targets, graph, "Body"), _read_head(data["head"]))


def _read_layer(data: Sequence[Json]) -> nn.Module:
    name, arguments, masked, *_ = data
    kind = getattr(nn, str(name), None)
    if not (inspect.isclass(kind) and issubclass(kind, nn.Module)):
        raise InputError(f"graph: got a layer {name}; accepted: those of torch.nn")
    layer: nn.Module = kind(**{key: _from_json(value, {}) for key, value in _table(arguments).items()})
    if masked:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        return with_mask(layer)
    return layer


def _read_tensor(data: Sequence[Json]) -> Tensor:
    shape, kind, learned, *_ = data  # older descriptions had a fourth entry
    zeros = torch.zeros(_integers(shape), dtype=_dtype(kind))
    return nn.Parameter(zeros) if learned else zeros


def _dtype(name: Json) -> torch.dtype:
    dtype: object = getattr(torch, str(name), None)
    if not isinstance(dtype, torch.dtype) or dtype.is_complex:
        raise InputError(f"graph: got numbers of type {str(name)[:40]}; accepted: real ones of torch")
    return dtype


def _read_head(data: Json) -> nn.Module | None:
    if data is None:
        return None
    name, *counts = _items(data)
    if isinstance(name, str) and name in ONE_PIXEL:
        channels, units = _integers(counts)
        return EXITS[name](channels, units, (1, 1))
    reads, classes, grid, fixed, normed, hidden = _items(data)
    channels, units, height, width = _integers([reads, classes, *_items(grid)])
    share = None if fixed is None else float(cast(float, fixed))
    [between] = [None] if hidden is None else _integers([hidden])
    return PooledHead(channels, units, (height, width), share, normed is True, between)


def _from_json(data: Json, nodes: Mapping[str, fx.Node]) -> object:
    if isinstance(data, Mapping):
        [(kind, value)] = data.items()
        match kind:
            case "node":
                return nodes[str(value)]
            case "slice":
                return slice(*(_from_json(item, nodes) for item in _items(value)))
            case "dtype":
                return _dtype(value)
            case "dict":
                return {key: _from_json(item, nodes) for key, item in _table(value).items()}
            case "ellipsis":
                return Ellipsis
        raise InputError(f"graph: got an argument {kind}; accepted: those of a description")
    if isinstance(data, list | tuple):
        return tuple(_from_json(item, nodes) for item in data)
    return data


def _items(data: Json) -> Sequence[Json]:
    if not isinstance(data, list | tuple):
        raise TypeError(f"{data!r:.40} is no list")
    return data


def _table(data: Json) -> Mapping[str, Json]:
    if not isinstance(data, Mapping):
        raise TypeError(f"{data!r:.40} is no mapping")
    return data


def _integers(data: Json) -> tuple[int, ...]:
    return tuple(int(cast(int, item)) for item in _items(data))
