"""A module in evaluation mode as a graph of operations of torch.fx, to be changed and made a module again."""

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
"""Convolutions by their dimensions. What stands for a layer is a call of one of these, or of ``F.linear``."""

_AUGMENTED = (operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.setitem)
_ACTIVATIONS: dict[type[nn.Module], Function] = {
    nn.SiLU: F.silu,
    nn.Hardswish: F.hardswish,
    nn.Hardsigmoid: F.hardsigmoid,
    nn.ReLU6: F.relu6,
}


@dataclass
class Traced:
    """A graph, and what is known of its nodes.

    Attributes:
        root: what the graph was traced of, in evaluation mode.
        graph: its operations.
        values: what each gave for an example.
        constants: the tensors that do not depend on the input.
        origins: for those that were computed here, in float64 on the processor, the tensor in whose place each stands.
    """

    root: nn.Module
    graph: fx.Graph
    values: dict[fx.Node, object]
    constants: dict[fx.Node, Tensor] = field(default_factory=dict)
    origins: dict[fx.Node, Tensor] = field(default_factory=dict)

    @property
    def nodes(self) -> list[fx.Node]:
        """Every node that there is now, in order."""
        return list(self.graph.nodes)

    def value(self, node: object) -> Tensor | None:
        """What a node gave; None of anything but a tensor."""
        found = self.values.get(node) if isinstance(node, fx.Node) else None
        return found if isinstance(found, Tensor) else None

    def shape(self, node: object) -> tuple[int, ...]:
        """The shape of what a node gave; empty of anything but a tensor."""
        found = self.value(node)
        return () if found is None else tuple(found.shape)

    def alike(self, node: object, other: object) -> bool:
        """Whether two nodes gave tensors of one shape and type."""
        one, two = self.value(node), self.value(other)
        return one is not None and two is not None and (one.shape, one.dtype) == (two.shape, two.dtype)

    def known(self, node: object) -> Tensor | None:
        """The constant that a node is; None of anything else."""
        return self.constants.get(node) if isinstance(node, fx.Node) else None

    def exact(self, node: object) -> Tensor | None:
        """The constant that a node is, in float64 on the processor, as not every device has that."""
        found = self.known(node)
        return None if found is None else found.cpu().double()

    def constant(self, value: Tensor, origin: Tensor, before: fx.Node) -> fx.Node:
        """A new constant, which in the end has the type and the device of ``origin``."""
        with self.graph.inserting_before(before):
            node = self.graph.create_node("get_attr", f"new{len(self.constants)}")
        self.values[node] = self.constants[node] = value
        self.origins[node] = origin
        return node

    def replace(self, node: fx.Node, by: Argument) -> None:
        """Let all that reads ``node`` read ``by``, a node or a number, and drop it."""
        for user in list(node.users):
            user.args = fx.map_arg(user.args, lambda each: by if each is node else each)
            user.kwargs = fx.map_arg(user.kwargs, lambda each: by if each is node else each)
        self.graph.erase_node(node)

    def call(self, node: fx.Node, target: Function | str, args: Sequence[Argument], **kwargs: Argument) -> fx.Node:
        """Put another call, which gives the same, in the place of ``node``."""
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
        """Drop what nothing reads and what changes nothing."""
        for node in reversed(self.nodes):
            computes = node.op in ("call_function", "call_method") and not (node.is_impure() or self.mutates(node))
            if not node.users and (node.op == "get_attr" or computes):
                self.graph.erase_node(node)

    def module(self) -> fx.GraphModule:
        """The graph as a module, with the constants that it reads, and the modules that it calls."""
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
    """A copy that does not train, without numbers too small for a normal float32; weights lie channels last."""
    value = value.to(origin.device, origin.dtype, copy=True)
    if value.is_floating_point():
        value = value.masked_fill(value.abs() < torch.finfo(torch.float32).tiny, 0)
    if weight:
        value = value.contiguous(memory_format=torch.channels_last)
    return nn.Parameter(value, requires_grad=False)


class _Tracer(fx.Tracer):
    """Takes a module whose forward it cannot follow for one operation."""

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
    """The graph of ``root``, in evaluation mode, in which layers are functions of constants.

    Modules that are not known here stay calls of modules. None where torch.fx cannot trace ``root`` itself.
    """
    try:
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
    """Note what does not depend on the input, and write flags and numbers of modules where they are read."""
    for node in traced.nodes:
        computes = node.op in ("call_function", "call_method") and not traced.mutates(node)
        inputs = node.all_input_nodes
        if node.op != "get_attr" and not (computes and inputs and all(each in traced.constants for each in inputs)):
            continue
        value = traced.values[node]
        if isinstance(value, Tensor):
            traced.constants[node] = value.detach()
        elif node.op == "get_attr" and isinstance(value, bool | int | float):
            traced.replace(node, value)


def _lower(traced: Traced, node: fx.Node, module: nn.Module) -> None:
    """Write a call of a module that is known as one of a function."""
    [given] = node.args

    def constants(*names: str) -> list[fx.Node | None]:
        found = [getattr(module, name) for name in names]
        return [None if value is None else traced.constant(value.detach(), value.detach(), node) for value in found]

    match module:
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
            padding: Argument = module.padding
            if module.padding_mode != "zeros":
                with traced.graph.inserting_before(node):
                    sides = [side for pair in reversed(_sides(module)) for side in pair]
                    given = traced.graph.call_function(F.pad, (given, sides), {"mode": module.padding_mode})
                padding = 0
            function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(module.kernel_size)]
            layout = (module.stride, padding, module.dilation, module.groups)
            traced.call(node, function, (given, *constants("weight", "bias"), *layout))
        case nn.Linear():
            traced.call(node, F.linear, (given, *constants("weight", "bias")))
        case nn.BatchNorm1d() | nn.BatchNorm2d() | nn.BatchNorm3d() if module.running_mean is not None:
            tensors = constants("running_mean", "running_var", "weight", "bias")
            traced.call(node, F.batch_norm, (given, *tensors, False, 0.0, module.eps))
        case nn.ReLU():
            traced.call(node, torch.relu_ if module.inplace else F.relu, (given,))
        case nn.Sigmoid():
            traced.call(node, torch.sigmoid, (given,))
        case nn.SiLU() | nn.Hardswish() | nn.Hardsigmoid() | nn.ReLU6():
            traced.call(node, _ACTIVATIONS[type(module)], (given,), inplace=module.inplace)
        case nn.AdaptiveAvgPool2d():
            traced.call(node, F.adaptive_avg_pool2d, (given, traced.shape(node)[-2:]))
        case nn.Flatten():
            traced.call(node, "flatten", (given, module.start_dim, module.end_dim))
        case nn.Identity() | nn.Dropout() | nn.Dropout1d() | nn.Dropout2d():
            traced.replace(node, given)


def _sides(conv: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> list[tuple[int, int]]:
    """Padding before and behind each dimension."""
    if conv.padding == "valid":
        return [(0, 0)] * len(conv.kernel_size)
    if conv.padding == "same":
        total = [step * (size - 1) for step, size in zip(conv.dilation, conv.kernel_size, strict=True)]
        return [(each // 2, each - each // 2) for each in total]
    return [(int(each), int(each)) for each in conv.padding]
