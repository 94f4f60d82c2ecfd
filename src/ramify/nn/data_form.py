"""A network of somebody's own layers as data: what rebuilds it without the code that it came from.

Its graphs are lists of operations, and its layers are those of ``torch.nn`` with the arguments that make them. Only
operations named here are read back, so a description can compute, and do nothing else.
"""

import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ramify.errors import InputError
from ramify.nn.attached import Attached, AttachedStage
from ramify.nn.exit import PooledHead
from ramify.nn.masked import MaskedConv2d, MaskedLinear, with_mask
from ramify.nn.survey import ExitPoint

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]

VERSION = 1

_METHODS = (
    "abs add add_ amax amin argmax bmm cat chunk clamp contiguous cos detach dim div div_ exp expand expand_as "
    "flatten float gather half index_select log masked_fill matmul max mean min mul mul_ narrow neg new_ones "
    "new_zeros norm numel permute pow prod relu relu_ repeat repeat_interleave reshape reshape_as roll rsqrt select "
    "sigmoid sigmoid_ silu sin size softmax split split_with_sizes sqrt square squeeze std sub sub_ sum t tanh tile "
    "to transpose type_as unbind unflatten unfold unsqueeze var view view_as"
)
_TORCH = (
    "_assert addmm arange baddbmm concat concatenate conv1d conv2d conv_transpose2d cumsum einsum full lerp linspace "
    "log_softmax logsumexp maximum minimum movedim ones ones_like outer stack swapaxes tensor_split where zeros "
    "zeros_like avg_pool1d batch_norm layer_norm group_norm adaptive_avg_pool1d"
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

_FUNCTIONS: Mapping[str, object] = {
    "torch": torch,
    "torch.nn.functional": F,
    "_operator": operator,
    "builtins": {"getattr": getattr},
}

_NAMES: Mapping[str, frozenset[str]] = {
    "torch": METHODS | frozenset(_TORCH.split()),
    "torch.nn.functional": frozenset(_FUNCTIONAL.split()),
    "_operator": frozenset(_OPERATORS.split()),
    "builtins": frozenset(["getattr"]),
}
"""Functions that a description may call, by the module they are in."""

ATTRIBUTES = frozenset(["shape", "ndim", "device", "dtype", "T", "mT", "training"])
"""Attributes of tensors that a description may ask for."""


def description(network: Attached) -> dict[str, Json]:
    """What :func:`from_description` rebuilds ``network`` from, as JSON; its tensors are not in it.

    Raises:
        InputError: it calls an operation, or has a layer, that a description cannot hold.
    """
    return {
        "version": VERSION,
        "input_shape": list(network.input_shape),
        "classes": network.classes,
        "frozen": network.frozen,
        "existing": len(network.stages),
        "points": [[point.name, list(point.shape), point.share] for point in network.points],
        "stages": [_stage(stage) for stage in (*network.stages, *network.pending) if isinstance(stage, AttachedStage)],
    }


def from_description(data: Mapping[str, Json]) -> Attached:
    """The network of a :func:`description`, with tensors whose values are of no account, in evaluation mode.

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
        points = [
            ExitPoint(str(name), _numbers(shape), float(cast(float, share)))
            for name, shape, share in map(_items, _items(data["points"]))
        ]
        return Attached(
            stages,
            _numbers(data["input_shape"]),
            int(cast(int, data["classes"])),
            points=points,
            frozen=data["frozen"] is True,
            existing=int(cast(int, data["existing"])),
        ).eval()
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
        RuntimeError,
        AssertionError,
        OverflowError,
        SyntaxError,
        ImportError,
    ) as error:
        raise InputError(
            f"graph: got what rebuilds no network ({type(error).__name__}: {str(error).partition(chr(10))[0][:120]}); "
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
            learned = isinstance(value, nn.Parameter)
            kind = str(value.dtype).removeprefix("torch.")
            tensors[target] = [list(value.shape), kind, learned, *([] if learned else [_constant(body, target, value)])]
        elif node.op == "call_function":
            target = _function_name(node)
        elif node.op == "call_method" and target not in METHODS:
            raise _not_held(f"the method {target} of a tensor")
        nodes.append([node.name, node.op, target, _data(node.args), _data(dict(node.kwargs))])
    return {"nodes": nodes, "layers": layers, "tensors": tensors, "head": _head(stage.exit)}


def _constant(body: nn.Module, target: str, value: Tensor) -> Json:
    """The values of a tensor that is no buffer, which ``state_dict`` does not keep; None for a buffer."""
    if target in body.state_dict():
        return None
    if value.numel() > 4096:
        raise _not_held(f"{target}, a tensor of {value.numel():,} numbers that is no parameter or buffer")
    numbers: Json = value.flatten().tolist()
    return numbers


def _function_name(node: fx.Node) -> str:
    function = node.target
    name = str(getattr(function, "__name__", function))
    for module, names in _NAMES.items():
        if name in names and _function(module, name) is function:
            if module == "builtins" and node.args[1] not in ATTRIBUTES:
                raise _not_held(f"the attribute {node.args[1]} of a tensor")
            return f"{module}.{name}"
    raise _not_held(f"the function {getattr(function, '__module__', '')}.{name}")


def _function(module: str, name: str) -> Callable[..., object] | None:
    home = _FUNCTIONS[module]
    found = home.get(name) if isinstance(home, dict) else getattr(home, name, None)
    return cast("Callable[..., object] | None", found)


def _not_held(what: str) -> InputError:
    return InputError(f"network: got one that uses {what}; accepted: operations and layers of PyTorch that can be kept")


def _layer(layer: nn.Module, name: str) -> Json:
    """A layer as the name of its class in ``torch.nn`` and the arguments that make it."""
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
        arguments[parameter.name] = _data(value)
    data: Json = [base.__name__, arguments, masked]
    twin = _read_layer(_items(data))
    shapes, wanted = ({k: v.shape for k, v in each.state_dict().items()} for each in (twin, layer))
    # Some hold [1, 1] where PyTorch has (1, 1).
    own, read = (each.extra_repr().replace("[", "(").replace("]", ")") for each in (layer, twin))
    if shapes != wanted or read != own:
        raise _not_held(f"the layer {name} of type {base.__name__}, whose arguments cannot be read back from it")
    return data


def _head(head: nn.Module | None) -> Json:
    if head is None:
        return None
    if not isinstance(head, PooledHead):
        raise _not_held(f"an exit of type {type(head).__name__}")
    reads = head.linear.in_features // (head.grid[0] * head.grid[1]) if head.conv is None else head.conv.in_channels
    hidden = None if head.conv is None else head.conv.out_channels
    return [reads, head.linear.out_features, list(head.grid), head.fixed, head.norm is not None, hidden]


def _data(value: object) -> Json:
    match value:
        case fx.Node():
            return {"node": value.name}
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple():
            return [_data(each) for each in value]
        case slice():
            return {"slice": [_data(value.start), _data(value.stop), _data(value.step)]}
        case torch.dtype():
            return {"dtype": str(value).removeprefix("torch.")}
        case dict():
            return {"dict": {str(key): _data(each) for key, each in value.items()}}
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
    for each in _items(data["nodes"]):
        label, op, target, args, kwargs = _items(each)
        text = str(target)
        function: Callable[..., object] | str = text
        if op == "call_function":
            module, _, last = text.rpartition(".")
            found = _function(module, last) if last in _NAMES.get(module, ()) else None
            asked = _items(args)[1] if module == "builtins" else "shape"
            if found is None or asked not in ATTRIBUTES:
                raise InputError(f"graph: got the function {text}; accepted: those of a description")
            function = found
        elif op == "call_method" and text not in METHODS:
            raise InputError(f"graph: got the method {text}; accepted: those of a description")
        elif op in ("call_module", "get_attr") and text not in targets:
            raise InputError(f"graph: got {text}, which is no layer or tensor of it; accepted: one of them")
        given, named = _value(args, nodes), _value(kwargs, nodes)
        assert isinstance(given, tuple)
        assert isinstance(named, dict)
        nodes[str(label)] = graph.create_node(str(op), function, given, named, str(label))
    graph.lint()
    return AttachedStage(fx.GraphModule(targets, graph, "Body"), _read_head(data["head"]))


def _read_layer(data: Sequence[Json]) -> nn.Module:
    name, arguments, masked = data
    kind = getattr(nn, str(name), None)
    if not (inspect.isclass(kind) and issubclass(kind, nn.Module)):
        raise InputError(f"graph: got a layer {name}; accepted: those of torch.nn")
    layer: nn.Module = kind(**{key: _value(value, {}) for key, value in _table(arguments).items()})
    if masked:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        return with_mask(layer)
    return layer


def _read_tensor(data: Sequence[Json]) -> Tensor:
    shape, kind, learned, *constant = data
    dtype = _dtype(kind)
    if learned:
        return nn.Parameter(torch.zeros(_numbers(shape), dtype=dtype))
    if constant and constant[0] is not None:
        return torch.tensor(constant[0], dtype=dtype).view(_numbers(shape))
    return torch.zeros(_numbers(shape), dtype=dtype)


def _dtype(name: Json) -> torch.dtype:
    found: object = getattr(torch, str(name), None)
    if not isinstance(found, torch.dtype) or found.is_complex:
        raise InputError(f"graph: got numbers of type {str(name)[:40]}; accepted: real ones of torch")
    return found


def _read_head(data: Json) -> nn.Module | None:
    if data is None:
        return None
    reads, classes, grid, fixed, normed, hidden = _items(data)
    height, width = _numbers(grid)
    share = None if fixed is None else float(cast(float, fixed))
    units = None if hidden is None else int(cast(int, hidden))
    return PooledHead(int(cast(int, reads)), int(cast(int, classes)), (height, width), share, normed is True, units)


def _value(data: Json, nodes: Mapping[str, fx.Node]) -> object:
    if isinstance(data, Mapping):
        [(kind, value)] = data.items()
        match kind:
            case "node":
                return nodes[str(value)]
            case "slice":
                return slice(*(_value(each, nodes) for each in _items(value)))
            case "dtype":
                return _dtype(value)
            case "dict":
                return {key: _value(each, nodes) for key, each in _table(value).items()}
            case "ellipsis":
                return Ellipsis
        raise InputError(f"graph: got an argument {kind}; accepted: those of a description")
    if isinstance(data, list | tuple):
        return tuple(_value(each, nodes) for each in data)
    return data


def _items(data: Json) -> Sequence[Json]:
    if not isinstance(data, list | tuple):
        raise TypeError(f"{data!r:.40} is no list")
    return data


def _table(data: Json) -> Mapping[str, Json]:
    if not isinstance(data, Mapping):
        raise TypeError(f"{data!r:.40} is no mapping")
    return data


def _numbers(data: Json) -> tuple[int, ...]:
    return tuple(int(cast(int, each)) for each in _items(data))
