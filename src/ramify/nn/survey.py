"""Where a module's graph may be cut: it is traced and run once.

An exit may stand where a single tensor is all that the operations behind it read of those before it.
"""

import contextlib
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ramify.errors import InputError, first_line
from ramify.nn.graph import attention_in_parts
from ramify.nn.masked import Masked, MaskedConv2d, MaskedLinear, with_mask
from ramify.nn.modes import keeping_modes


class ExitPoint(NamedTuple):
    """A place in a module where an exit may stand.

    Attributes:
        name: of the outermost submodule whose output it is; where there is none, of the operation in torch.fx.
        shape: of the tensor there for one picture: ``(C, H, W)``, ``(T, F)`` for T tokens, or ``(F,)``.
        share: the fraction, above 0 and below 1, of the module's multiply-accumulates that are done by then.
    """

    name: str
    shape: tuple[int, ...]
    share: float


@contextlib.contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Without gradients; restores the modes and the buffers of ``module`` in the end."""
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    with keeping_modes(module), torch.no_grad():
        try:
            yield
        finally:
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)


class _ImagesOnly(nn.Module):
    """``net`` called with pictures alone: other arguments of its forward keep their defaults."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> object:
        return self.net(images)


class _Tracer(fx.Tracer):
    """Records which operation gives the output of which submodule. PyTorch's layers and masked ones stay whole."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[str, fx.Node] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, MaskedConv2d | MaskedLinear) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]
    ) -> object:
        known = len(self.graph.nodes)
        output: object = super().call_module(m, forward, args, kwargs)
        name = self.path_of_module(m).removeprefix("net").removeprefix(".")
        # A submodule without an operation of its own gives the output of another.
        if name and isinstance(output, fx.Proxy) and output.node in list(self.graph.nodes)[known:]:
            self.outputs.pop(name, None)  # the last call counts, and an enclosing submodule comes after the enclosed
            self.outputs[name] = output.node
        return output


def trace_module(module: nn.Module, train: bool) -> tuple[fx.GraphModule, dict[str, fx.Node]]:
    """The graph of ``module`` in evaluation mode, and the operation that gives the output of each submodule.

    With ``train`` flags such as ``training=self.training`` follow the mode. The graph's layers are those of ``module``,
    under ``net``; convolutions and linear layers are masked layers that share the parameters.

    Raises:
        InputError: it cannot be traced, or two of its layers share a parameter.
    """
    kind = type(module).__name__
    owners: dict[nn.Parameter, str] = {}
    for layer, part in module.named_modules():
        for key, parameter in part.named_parameters(layer, recurse=False):
            if owners.setdefault(parameter, key) != key:  # it could be neither masked twice nor saved
                raise InputError(
                    f"module: got {kind}, whose {key} is {owners[parameter]} as well; accepted: layers with parameters "
                    "of their own, of which one may be called several times"
                )
    root, tracer = _ImagesOnly(module), _Tracer()
    try:
        graph = tracer.trace(root.eval())
    except Exception as error:  # whatever the module's own forward raises when it meets a symbol
        raise InputError(
            f"module: got {kind}, which torch.fx cannot trace ({first_line(error)}); accepted: a module whose "
            "forward has no if, loop or number that depends on the values of its input"
        ) from error
    if train:
        try:
            _follow_mode(graph, _Tracer().trace(_ImagesOnly(module).train()))
        except Exception as error:
            raise InputError(
                f"module: got {kind}, whose forward takes other steps in training mode ({first_line(error)}); "
                "accepted: one in which they differ by flags (training=self.training) alone, or freeze=True"
            ) from error
        root.eval()
    return _masked(root, graph), tracer.outputs


def _masked(root: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """The graph over its own layers, with masks."""
    targets: dict[str, object] = {"training": False}
    layers: dict[nn.Module, Masked] = {}
    for node in list(graph.nodes):
        if node.op not in ("call_module", "get_attr") or node.target == "training":
            continue
        target: object = operator.attrgetter(str(node.target))(root)
        if isinstance(target, nn.Conv2d | nn.Linear) and type(target) in (nn.Conv2d, nn.Linear):
            target = layers.setdefault(target, with_mask(target))
        targets[str(node.target)] = target
    for node in list(graph.nodes):
        _to_layer(node, root, targets)
        if (node.op, node.target) == ("call_method", "view") and not isinstance(node.args[1], torch.dtype):
            node.target = "reshape"  # the same, but also of maps that lie channels last
    graph.lint()
    return fx.GraphModule(targets, graph)


_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
"""Of ``conv2d``; the first three are those of ``linear`` as well."""


def _to_layer(node: fx.Node, root: nn.Module, targets: dict[str, object]) -> None:
    """A convolution or linear function of a module's own weight and bias becomes a masked layer at that module."""
    if node.op != "call_function" or node.target not in (F.conv2d, torch.conv2d, F.linear):
        return
    arguments = dict(zip(_ARGUMENTS, node.args, strict=False)) | node.kwargs
    weight, bias = arguments.get("weight"), arguments.get("bias")
    if not isinstance(weight, fx.Node) or weight.op != "get_attr" or not str(weight.target).endswith(".weight"):
        return
    name = str(weight.target).removesuffix(".weight")
    if bias is not None and not (isinstance(bias, fx.Node) and bias.target == f"{name}.bias"):
        return
    owner = root.get_submodule(name)
    if name in targets or not isinstance(owner, nn.Conv2d if node.target is not F.linear else nn.Linear):
        return
    layer = with_mask(owner)
    if isinstance(layer, MaskedConv2d):
        layer.padding_mode = "zeros"
        for key, default in (("stride", 1), ("padding", 0), ("dilation", 1)):
            value = arguments.get(key, default)
            setattr(layer, key, (value, value) if isinstance(value, int) else value)
        groups = arguments.get("groups", 1)
        assert isinstance(groups, int)
        layer.groups = groups
    targets[name] = layer
    with node.graph.inserting_before(node):
        called = node.graph.call_module(name, (arguments["input"],))
    node.replace_all_uses_with(called)
    node.graph.erase_node(node)
    for parameter in (weight, bias):
        if isinstance(parameter, fx.Node) and not parameter.users:
            targets.pop(str(parameter.target), None)
            node.graph.erase_node(parameter)


def _follow_mode(graph: fx.Graph, training: fx.Graph) -> None:
    """Make every flag that is False in ``graph`` and True in ``training`` follow the mode of the module."""
    flag: fx.Node | None = None
    if len(graph.nodes) != len(training.nodes):
        raise ValueError(f"{len(training.nodes)} operations, not {len(graph.nodes)}")
    for node, other in zip(list(graph.nodes), training.nodes, strict=True):
        if (node.op, node.target) != (other.op, other.target):
            raise ValueError(f"{other}, not {node}")
        arguments = (*enumerate(node.args), *node.kwargs.items())
        in_training = (*enumerate(other.args), *other.kwargs.items())
        for (key, value), (_, other_value) in zip(arguments, in_training, strict=True):
            if repr(value) == repr(other_value):  # operations are compared by their names
                continue
            if value is not False or other_value is not True:
                raise ValueError(f"{other_value}, not {value}, in {node}")
            if flag is None:
                with graph.inserting_before(next(iter(graph.nodes))):
                    flag = graph.create_node("get_attr", "training")
            if isinstance(key, int):
                node.update_arg(key, flag)
            else:
                node.update_kwarg(key, flag)


class _Probe(fx.Interpreter):
    """Runs a graph and keeps every value, its version then, and the multiply-accumulates up to it."""

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        super().__init__(root, garbage_collect_values=False, graph=graph)
        self.extra_traceback = False
        self.counter = FlopCounterMode(display=False)
        self.macs: dict[fx.Node, int] = {}
        self.versions: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> object:
        value: object = super().run_node(n)
        self.macs[n] = self.counter.get_total_flops() // 2
        if isinstance(value, Tensor):
            self.versions[n] = value._version
        return value


@dataclass(frozen=True)
class Survey:
    """A traced module and its operations.

    Attributes:
        module: the module.
        root: its graph, over layers with masks.
        nodes: its operations, in order.
        entry: the one that stands for the pictures.
        outputs: the operation that gives the output of each submodule.
        points: the operations behind which the graph may be cut.
        hindrances: why it may not be cut behind an operation; empty where it may.
        values: the output of each point.
        classes: the number of logits.
    """

    module: nn.Module
    root: fx.GraphModule
    nodes: list[fx.Node]
    entry: fx.Node
    outputs: dict[str, fx.Node]
    points: dict[fx.Node, ExitPoint]
    hindrances: dict[fx.Node, str]
    values: dict[fx.Node, Tensor]
    classes: int


def survey(module: nn.Module, example: Tensor, train: bool) -> Survey:
    root, outputs = trace_module(module, train)
    graph = root.graph
    # The graph of the result is a copy, whose operations have the same names.
    named = {node.name: node for node in graph.nodes}
    outputs = {name: named[node.name] for name, node in outputs.items() if node.name in named}
    nodes = list(graph.nodes)
    [entry] = [node for node in nodes if node.op == "placeholder"]
    kind = type(module).__name__
    probe = _Probe(root, graph)
    try:
        # Twice as many: a module that takes one number of pictures alone fails here.
        pictures = torch.cat((example, example))
        logits: object = module(pictures.clone())
        with attention_in_parts(), probe.counter:
            traced: object = probe.run(pictures)
    except Exception as error:
        raise InputError(
            f"example: got {list(example.shape)} {str(example.dtype).removeprefix('torch.')} on {example.device}, of "
            f"which {kind} does not take twice as many ({first_line(error)}); accepted: one or more pictures, "
            "[B, channels, H, W], as the module takes them"
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(pictures):
        shape = list(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise InputError(
            f"module: got {kind}, which gives {shape} for {len(pictures)} pictures; accepted: one that gives logits "
            "[B, C] alone"
        )
    if not isinstance(traced, Tensor) or not torch.allclose(traced, logits, 1e-3, 1e-4, equal_nan=True):
        raise InputError(
            f"module: got {kind}, which gives other logits once it is traced; accepted: one whose forward does the "
            "same at each call"
        )
    hindrances = _hindrances(root, nodes, probe, len(pictures))
    # The name of an operation must not be that of a submodule.
    names = {node: f"{node.name}()" if node.name in outputs else node.name for node in nodes}
    names |= {node: name for name, node in outputs.items()}  # an enclosing submodule comes after the enclosed
    total = probe.macs[nodes[-1]]
    points = {
        node: ExitPoint(names[node], tuple(probe.env[node].shape[1:]), probe.macs[node] / total)
        for node in nodes
        if not hindrances[node]
    }
    if not points:
        raise InputError(
            f"module: got {kind}, in which there is no place for an exit; accepted: a module in which somewhere "
            "between its layers a single tensor, [B, C, H, W], [B, T, F] or [B, F], is all that is carried on"
        )
    values = {node: probe.env[node] for node in points}
    return Survey(module, root, nodes, entry, outputs, points, hindrances, values, logits.shape[1])


def _hindrances(root: nn.Module, nodes: list[fx.Node], probe: _Probe, batch: int) -> dict[fx.Node, str]:
    """Why no exit may stand behind each node; empty where one may."""
    position = {node: index for index, node in enumerate(nodes)}
    last = {node: max((position[user] for user in node.users), default=0) for node in nodes}
    first_use: dict[int, int] = {}
    last_use: dict[int, int] = {}
    for node in nodes:
        for tensor in _state(root, node):
            for at in [position[user] for user in node.users] if node.op == "get_attr" else [position[node]]:
                first_use[id(tensor)] = min(first_use.get(id(tensor), at), at)
                last_use[id(tensor)] = max(last_use.get(id(tensor), at), at)
    hindrances: dict[fx.Node, str] = {}
    carried: set[fx.Node] = set()
    for index, node in enumerate(nodes):
        if node.op != "get_attr":
            carried.add(node)
        carried = {other for other in carried if last[other] > index}
        value, reason = probe.env[node], ""
        if any(other is not node and not _counts_pictures(other, probe.env[other], batch) for other in carried):
            reason = "is not all that the layers behind it read"
        elif any(first_use[key] <= index < last_use[key] for key in first_use):
            reason = "lies between two uses of the same weights"
        elif not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim not in (2, 3, 4):
            reason = "is no tensor [B, C, H, W], [B, T, F] or [B, F]"
        elif len(value) != batch:
            reason = "does not have the pictures as its first dimension"
        elif value._version != probe.versions[node]:
            reason = "is changed in place by the layer behind it"
        elif probe.macs[node] == 0:
            reason = "has nothing that multiplies before it"
        elif node not in carried or probe.macs[node] == probe.macs[nodes[-1]]:
            reason = "has nothing that multiplies behind it"
        hindrances[node] = reason
    return hindrances


def _state(root: nn.Module, node: fx.Node) -> list[Tensor]:
    """The tensors of ``node`` that must lie in one stage: a layer's, or a parameter."""
    if node.op not in ("call_module", "get_attr"):
        return []
    target: object = operator.attrgetter(str(node.target))(root)
    if isinstance(target, nn.Module):
        return [*target.parameters(), *target.buffers()]
    return [target] if isinstance(target, nn.Parameter) else []


def _counts_pictures(node: fx.Node, value: object, batch: int) -> bool:
    """Whether ``node`` is ``x.size(0)`` or ``x.shape[0]``, which the tensor at a cut has as well."""
    if not isinstance(value, int) or value != batch:
        return False
    if node.op == "call_method":
        return node.target == "size" and 0 in (*node.args[1:], *node.kwargs.values())
    if node.target is not operator.getitem or node.args[1] != 0:
        return False
    sizes = node.args[0]
    return isinstance(sizes, fx.Node) and (sizes.target == "size" or sizes.args[1:] == ("shape",))
