"""A module in evaluation mode as a graph of torch.fx that can be changed and made a module again."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Argument
from torch.nn import functional as F

from ramify.nn.attached import as_map

Function = Callable[..., object]

CONVOLUTIONS: dict[object, int] = {F.conv1d: 1, F.conv2d: 2, F.conv3d: 3}
"""Convolutions by their dimensions; a layer is a call of one of these or of ``F.linear``."""

_AUGMENTED = (operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.setitem)
_ACTIVATIONS: dict[type[nn.Module], Function] = {
    nn.SiLU: F.silu,
    nn.Hardswish: F.hardswish,
    nn.Hardsigmoid: F.hardsigmoid,
    nn.ReLU6: F.relu6,
}


@dataclass
class Traced:
    """A graph of a module in evaluation mode, the output of each node for an example, and the nodes that are constants.

    Constants that are computed here are in float64 on the CPU; ``origins`` has the tensor that each replaces.
    """

    root: nn.Module
    graph: fx.Graph
    values: dict[fx.Node, object]
    constants: dict[fx.Node, Tensor] = field(default_factory=dict)
    origins: dict[fx.Node, Tensor] = field(default_factory=dict)

    @property
    def nodes(self) -> list[fx.Node]:
        """All nodes, in order."""
        return list(self.graph.nodes)

    def value(self, node: object) -> Tensor | None:
        """The tensor that a node gave; None for anything else."""
        value = self.values.get(node) if isinstance(node, fx.Node) else None
        return value if isinstance(value, Tensor) else None

    def shape(self, node: object) -> tuple[int, ...]:
        """The shape of the tensor that a node gave; empty for anything else."""
        value = self.value(node)
        return () if value is None else tuple(value.shape)

    def alike(self, node: object, other: object) -> bool:
        """Whether two nodes gave tensors of one shape and type."""
        one, two = self.value(node), self.value(other)
        return one is not None and two is not None and (one.shape, one.dtype) == (two.shape, two.dtype)

    def known(self, node: object) -> Tensor | None:
        """The constant that a node is; None for anything else."""
        return self.constants.get(node) if isinstance(node, fx.Node) else None

    def exact(self, node: object) -> Tensor | None:
        """The constant that a node is, in float64 on the CPU, as not every device has float64."""
        value = self.known(node)
        return None if value is None else value.cpu().double()

    def constant(self, value: Tensor, origin: Tensor, before: fx.Node) -> fx.Node:
        """A new constant; :meth:`module` gives it the type and device of ``origin``."""
        with self.graph.inserting_before(before):
            node = self.graph.create_node("get_attr", f"new{len(self.constants)}")
        self.values[node] = self.constants[node] = value
        self.origins[node] = origin
        return node

    def replace(self, node: fx.Node, by: Argument) -> None:
        """Replace ``node`` by another node or a number."""
        for user in list(node.users):
            user.args = fx.map_arg(user.args, lambda argument: by if argument is node else argument)
            user.kwargs = fx.map_arg(user.kwargs, lambda argument: by if argument is node else argument)
        self.graph.erase_node(node)

    def call(self, node: fx.Node, target: Function | str, args: Sequence[Argument], **kwargs: Argument) -> fx.Node:
        """Replace ``node`` by another call that gives the same."""
        kind = "call_method" if isinstance(target, str) else "call_function"
        with self.graph.inserting_before(node):
            new = self.graph.create_node(kind, target, tuple(args), kwargs)
        self.values[new] = self.values[node]
        self.replace(node, new)
        return new

    def mutates(self, node: fx.Node) -> bool:
        """Whether a node changes what it reads."""
        if node.op == "call_module":
            return bool(getattr(self.root.get_submodule(str(node.target)), "inplace", False))
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        in_place = name.endswith("_") and not name.endswith("__")
        return in_place or node.kwargs.get("inplace") is True or node.target in _AUGMENTED

    def drop_unread(self) -> None:
        """Drop nodes that nothing reads and that change nothing."""
        for node in reversed(self.nodes):
            computes = node.op in ("call_function", "call_method") and not (node.is_impure() or self.mutates(node))
            if not node.users and (node.op == "get_attr" or computes):
                self.graph.erase_node(node)

    def module(self) -> fx.GraphModule:
        """The graph as a module, with the constants that it reads and the modules that it calls."""
        content: dict[str, Tensor | nn.Module] = {}
        names: dict[int, str] = {}
        weights = [node.args[1] for node in self.nodes if node.target is F.conv2d]
        for node in self.nodes:
            if node.op == "call_module":
                content[str(node.target)] = self.root.get_submodule(str(node.target))
            value = self.known(node)
            readers = [user for user in node.users if user not in self.constants]
            if value is None or not readers:
                continue
            name = names.setdefault(id(value), f"_constant{len(names)}")
            content[name] = _fixed(value, self.origins.get(node, value), node in weights)
            with self.graph.inserting_before(node):
                new = self.graph.create_node("get_attr", name)
            for reader in readers:
                reader.replace_input_with(node, new)
        self.constants.clear()
        self.drop_unread()
        return fx.GraphModule(content, self.graph, "Rewritten").eval()


def _fixed(value: Tensor, origin: Tensor, weight: bool) -> nn.Parameter:
    """A copy that does not train, without numbers too small for a normal float32; weights in channels-last layout."""
    value = value.to(origin.device, origin.dtype, copy=True)
    if value.is_floating_point():
        value = value.masked_fill(value.abs() < torch.finfo(torch.float32).tiny, 0)
    if weight:
        value = value.contiguous(memory_format=torch.channels_last)
    return nn.Parameter(value, requires_grad=False)


class _Tracer(fx.Tracer):
    """Records a module whose forward it cannot trace as one operation."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(as_map,))

    def call_module(
        self, m: nn.Module, forward: Callable[..., object], args: tuple[Argument, ...], kwargs: dict[str, Argument]
    ) -> object:
        before = set(self.graph.nodes)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:  # whatever a forward raises when it meets a symbol
            for node in reversed(list(self.graph.nodes)):
                if node not in before and node.op != "get_attr":  # those may be read again
                    self.graph.erase_node(node)
            return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)


def trace(root: nn.Module, example: Tensor) -> Traced | None:
    """The graph of ``root`` in evaluation mode, with layers as functions of constants; None if it cannot be traced.

    Modules that are not known here stay calls of modules.
    """
    try:
        with torch.no_grad():
            graph = _Tracer().trace(root)
    except Exception:  # as above
        return None
    interpreter = fx.Interpreter(root, graph=graph, garbage_collect_values=False)
    interpreter.extra_traceback = False
    with torch.no_grad():
        interpreter.run(example.clone())
    traced = Traced(root, graph, interpreter.env)
    _find_constants(traced)
    for node in traced.nodes:
        if node.op == "call_module" and len(node.args) == 1 and not node.kwargs:
            module = root.get_submodule(str(node.target))
            if not (module._forward_hooks or module._forward_pre_hooks):
                _lower(traced, node, module)
    return traced


def _find_constants(traced: Traced) -> None:
    """Record constants, and inline flags and numbers that are attributes of modules."""
    for node in traced.nodes:
        computes = node.op in ("call_function", "call_method") and not traced.mutates(node)
        inputs = node.all_input_nodes
        if node.op != "get_attr" and not (
            computes and inputs and all(operand in traced.constants for operand in inputs)
        ):
            continue
        value = traced.values[node]
        if isinstance(value, Tensor):
            traced.constants[node] = value.detach()
        elif node.op == "get_attr" and isinstance(value, bool | int | float):
            traced.replace(node, value)


def _lower(traced: Traced, node: fx.Node, module: nn.Module) -> None:
    """Replace the call of a known module by one of a function."""
    [value] = node.args

    def constants(*names: str) -> list[fx.Node | None]:
        tensors = [getattr(module, name) for name in names]
        return [None if t is None else traced.constant(t.detach(), t.detach(), node) for t in tensors]

    match module:
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
            padding: Argument = module.padding
            if module.padding_mode != "zeros":
                with traced.graph.inserting_before(node):
                    sides = [*module._reversed_padding_repeated_twice]  # as its own forward pads
                    value = traced.graph.call_function(F.pad, (value, sides), {"mode": module.padding_mode})
                padding = 0
            function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(module.kernel_size)]
            layout = (module.stride, padding, module.dilation, module.groups)
            traced.call(node, function, (value, *constants("weight", "bias"), *layout))
        case nn.Linear():
            traced.call(node, F.linear, (value, *constants("weight", "bias")))
        case nn.BatchNorm1d() | nn.BatchNorm2d() | nn.BatchNorm3d() if module.running_mean is not None:
            tensors = constants("running_mean", "running_var", "weight", "bias")
            traced.call(node, F.batch_norm, (value, *tensors, False, 0.0, module.eps))
        case nn.ReLU():
            traced.call(node, torch.relu_ if module.inplace else F.relu, (value,))
        case nn.Sigmoid():
            traced.call(node, torch.sigmoid, (value,))
        case nn.SiLU() | nn.Hardswish() | nn.Hardsigmoid() | nn.ReLU6():
            traced.call(node, _ACTIVATIONS[type(module)], (value,), inplace=module.inplace)
        case nn.AdaptiveAvgPool2d():
            traced.call(node, F.adaptive_avg_pool2d, (value, traced.shape(node)[-2:]))
        case nn.Flatten():
            traced.call(node, "flatten", (value, module.start_dim, module.end_dim))
        case nn.Identity() | nn.Dropout() | nn.Dropout1d() | nn.Dropout2d():
            traced.replace(node, value)
