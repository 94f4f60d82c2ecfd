"""Where a module's graph may be cut: it is traced, run once, and every place told apart.

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

from ramify.errors import InputError
from ramify.nn.masked import Masked, MaskedConv2d, MaskedLinear, with_mask


class ExitPoint(NamedTuple):
    """A place in a module where an exit may stand.

    Attributes:
        name: of the outermost submodule whose output it is; of the operation, as torch.fx calls it, where it is that
            of no submodule.
        shape: of the tensor there for one picture: ``(C, H, W)``, ``(T, F)`` for T tokens, or ``(F,)``.
        share: the fraction, above 0 and below 1, of the module's multiply-accumulates that are done by then.
    """

    name: str
    shape: tuple[int, ...]
    share: float


@contextlib.contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Leave the modes and the buffers of ``module`` as they were."""
    modes = [(each, each.training) for each in module.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        with torch.no_grad():
            yield
    finally:
        for each, mode in modes:
            each.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)


class _Whole(nn.Module):
    """``net`` called with pictures alone: whatever else its forward takes keeps its default."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> object:
        return self.net(images)


class _Tracer(fx.Tracer):
    """Remembers which operation gives the output of which submodule. PyTorch's layers and masked ones stay whole."""

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
        # What it hands on without an operation of its own is the output of another.
        if name and isinstance(output, fx.Proxy) and output.node in list(self.graph.nodes)[known:]:
            # The last call counts, and whatever encloses a call comes after it.
            self.outputs.pop(name, None)
            self.outputs[name] = output.node
        return output


def trace(module: nn.Module, train: bool) -> tuple[fx.GraphModule, dict[str, fx.Node]]:
    """The graph of ``module`` in evaluation mode and, with ``train``, wherever a flag says so, in training mode.

    Its layers are those of ``module``, under ``net``, but for convolutions and linear layers: these are masked layers
    that share the parameters.

    Returns:
        The graph, and the operations that give the output of a submodule, by its name.

    Raises:
        InputError: it cannot be traced.
    """
    kind = type(module).__name__
    root, tracer = _Whole(module), _Tracer()
    try:
        graph = tracer.trace(root.eval())
    except Exception as error:  # whatever the module's own forward raises when it meets a symbol
        raise InputError(
            f"module: got {kind}, which torch.fx cannot trace ({first_line(error)}); accepted: a module whose "
            "forward has no if, loop or number that depends on the values of its input"
        ) from error
    if train:
        try:
            _follow_mode(graph, _Tracer().trace(_Whole(module).train()))
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
    graph.lint()
    return fx.GraphModule(targets, graph)


_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
"""Of ``conv2d``; the first three are those of ``linear`` as well."""


def _to_layer(node: fx.Node, root: nn.Module, targets: dict[str, object]) -> None:
    """A convolution or linear function of a module's own weight and bias becomes a masked layer at that module."""
    if node.op != "call_function" or node.target not in (F.conv2d, torch.conv2d, F.linear):
        return
    given = dict(zip(_ARGUMENTS, node.args, strict=False)) | node.kwargs
    weight, bias = given.get("weight"), given.get("bias")
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
            value = given.get(key, default)
            setattr(layer, key, (value, value) if isinstance(value, int) else value)
        groups = given.get("groups", 1)
        assert isinstance(groups, int)
        layer.groups = groups
    targets[name] = layer
    read = given["input"]
    with node.graph.inserting_before(node):
        called = node.graph.call_module(name, (read,))
    node.replace_all_uses_with(called)
    node.graph.erase_node(node)
    for brought in (weight, bias):
        if isinstance(brought, fx.Node) and not brought.users:
            targets.pop(str(brought.target), None)
            node.graph.erase_node(brought)


def _follow_mode(graph: fx.Graph, training: fx.Graph) -> None:
    """Make every flag that is False in ``graph`` and True in ``training`` follow the mode of the module."""
    flag: fx.Node | None = None
    if len(graph.nodes) != len(training.nodes):
        raise ValueError(f"{len(training.nodes)} operations, not {len(graph.nodes)}")
    for node, other in zip(list(graph.nodes), training.nodes, strict=True):
        if (node.op, node.target) != (other.op, other.target):
            raise ValueError(f"{other}, not {node}")
        given = (*enumerate(node.args), *node.kwargs.items())
        meant = (*enumerate(other.args), *other.kwargs.items())
        for (key, value), (_, wanted) in zip(given, meant, strict=True):
            if repr(value) == repr(wanted):  # an operation stands for itself by its name
                continue
            if value is not False or wanted is not True:
                raise ValueError(f"{wanted}, not {value}, in {node}")
            if flag is None:
                with graph.inserting_before(next(iter(graph.nodes))):
                    flag = graph.create_node("get_attr", "training")
            if isinstance(key, int):
                node.update_arg(key, flag)
            else:
                node.update_kwarg(key, flag)


def first_line(error: Exception) -> str:
    """The first line of what an error says."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


class _Probe(fx.Interpreter):
    """Runs a graph and keeps every value, with the changes in place that it has seen and the MACs done by then."""

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

    def run_on(self, images: Tensor) -> object:
        with self.counter:
            output: object = self.run(images)
        return output


@dataclass(frozen=True)
class Survey:
    """A traced module and what is known of its operations.

    Attributes:
        module: as it was given.
        root: its graph, over layers with masks.
        nodes: its operations, in their order.
        entry: the one that stands for the pictures.
        outputs: the operations that give the output of a submodule, by its name.
        points: those behind which the graph may be cut.
        hindrances: why it may not be cut behind the others.
        macs: multiply-accumulates for one picture up to and with each.
        values: what each point gave.
        classes: how many logits the module gives.
    """

    module: nn.Module
    root: fx.GraphModule
    nodes: list[fx.Node]
    entry: fx.Node
    outputs: dict[str, fx.Node]
    points: dict[fx.Node, ExitPoint]
    hindrances: dict[fx.Node, str]
    macs: dict[fx.Node, int]
    values: dict[fx.Node, Tensor]
    classes: int


def survey(module: nn.Module, example: Tensor, train: bool) -> Survey:
    root, outputs = trace(module, train)
    graph = root.graph
    # The graph of the result is a copy, whose operations have the same names.
    named = {node.name: node for node in graph.nodes}
    outputs = {name: named[node.name] for name, node in outputs.items() if node.name in named}
    nodes = list(graph.nodes)
    [entry] = [node for node in nodes if node.op == "placeholder"]
    kind = type(module).__name__
    probe = _Probe(root, graph)
    try:
        # Twice: the number of pictures is then no 1, and a module made for one number of them is found out.
        pictures = torch.cat((example, example))
        logits: object = module(pictures.clone())
        traced = probe.run_on(pictures)
    except Exception as error:
        raise InputError(
            f"example: got {list(example.shape)} {str(example.dtype).removeprefix('torch.')} on {example.device}, of "
            f"which {kind} does not take twice as many ({first_line(error)}); accepted: one or more pictures, "
            "[B, channels, H, W], as the module takes them"
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(pictures):
        given = list(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise InputError(
            f"module: got {kind}, which gives {given} for {len(pictures)} pictures; accepted: one that gives logits "
            "[B, C] alone"
        )
    if not isinstance(traced, Tensor) or not torch.allclose(traced, logits, 1e-3, 1e-4, equal_nan=True):
        raise InputError(
            f"module: got {kind}, which gives other logits once it is traced; accepted: one whose forward does the "
            "same at each call"
        )
    hindrances = _hindrances(root, nodes, probe, len(pictures))
    # Operations that are no submodule's output have names of their own, which must not be those of submodules.
    names = {node: f"{node.name}()" if node.name in outputs else node.name for node in nodes}
    names |= {node: name for name, node in outputs.items()}  # whatever encloses another comes after it
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
    macs = {node: count // len(pictures) for node, count in probe.macs.items()}
    values = {node: probe.env[node] for node in points}
    return Survey(module, root, nodes, entry, outputs, points, hindrances, macs, values, logits.shape[1])


def _hindrances(root: nn.Module, nodes: list[fx.Node], probe: _Probe, batch: int) -> dict[fx.Node, str]:
    """Why no exit may stand behind a node, for every node; nothing where one may."""
    position = {node: index for index, node in enumerate(nodes)}
    last = {node: max((position[user] for user in node.users), default=0) for node in nodes}
    first_use: dict[int, int] = {}
    last_use: dict[int, int] = {}
    for node in nodes:
        for tensor in _state(root, node):
            for at in [position[user] for user in node.users] if node.op == "get_attr" else [position[node]]:
                first_use[id(tensor)] = min(first_use.get(id(tensor), at), at)
                last_use[id(tensor)] = max(last_use.get(id(tensor), at), at)
    found: dict[fx.Node, str] = {}
    carried: set[fx.Node] = set()
    for index, node in enumerate(nodes):
        if node.op != "get_attr":
            carried.add(node)
        carried = {each for each in carried if last[each] > index}
        value = probe.env[node]
        if any(each is not node and not _counts_pictures(each, probe.env[each], batch) for each in carried):
            found[node] = "is not all that the layers behind it read"
        elif any(first_use[key] <= index < last_use[key] for key in first_use):
            found[node] = "lies between two uses of the same weights"
        elif not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim not in (2, 3, 4):
            found[node] = "is no tensor [B, C, H, W], [B, T, F] or [B, F]"
        elif len(value) != batch:
            found[node] = "does not have the pictures as its first dimension"
        elif value._version != probe.versions[node]:
            found[node] = "is changed in place by the layer behind it"
        elif probe.macs[node] == 0:
            found[node] = "has nothing that multiplies before it"
        elif node not in carried or probe.macs[node] == probe.macs[nodes[-1]]:
            found[node] = "has nothing that multiplies behind it"
        else:
            found[node] = ""
    return found


def _state(root: nn.Module, node: fx.Node) -> list[Tensor]:
    """The tensors that ``node`` brings in and that must lie in one stage: a layer's, or a parameter."""
    if node.op not in ("call_module", "get_attr"):
        return []
    brought: object = operator.attrgetter(str(node.target))(root)
    if isinstance(brought, nn.Module):
        return [*brought.parameters(), *brought.buffers()]
    return [brought] if isinstance(brought, nn.Parameter) else []


def _counts_pictures(node: fx.Node, value: object, batch: int) -> bool:
    """Whether ``node`` is ``x.size(0)`` or ``x.shape[0]``: what crosses a cut can then be asked for it as well."""
    if not isinstance(value, int) or value != batch:
        return False
    if node.op == "call_method":
        return node.target == "size" and 0 in (*node.args[1:], *node.kwargs.values())
    if node.target is not operator.getitem or node.args[1] != 0:
        return False
    sizes = node.args[0]
    return isinstance(sizes, fx.Node) and (sizes.target == "size" or sizes.args[1:] == ("shape",))
