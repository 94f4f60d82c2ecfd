"""Channels removed from a traced network: from its tensors, the sizes of its layers, and the sizes in its graphs."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase as Norm  # batch norms and instance norms

from ramify.nn.branching import Branching
from ramify.nn.channel_rules import ChannelTracker, Labels
from ramify.nn.graph import ChannelGroup
from ramify.nn.modes import keeping_modes
from ramify.nn.recording import OperationRecorder
from ramify.nn.widths import cut_out, cuts

_SIZES = {"view": "size", "reshape": "shape", "expand": "size", "unflatten": "sizes"}
"""The argument with the sizes of what an operation of a graph gives."""


def remove_channels(network: Branching, bodies: Sequence[fx.GraphModule], lost: Sequence[ChannelGroup]) -> None:
    """Remove channels from ``network``, in place, and from the sizes in ``bodies``, the graphs of its stages."""
    if not lost:
        return
    sizes = _new_sizes(network, bodies, lost)
    for (name, dim), places in cuts(lost).items():
        owner, _, key = name.rpartition(".")
        module = network.get_submodule(owner)
        old = getattr(module, key, None)
        if not isinstance(old, Tensor):  # a layer without a mask
            continue
        value = cut_out(old.detach(), dim, places)
        setattr(module, key, nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value)
        if key == "weight":
            set_size(module, len(old), dim)
    for body in bodies:
        for node in body.graph.nodes:
            if node in sizes:
                _set_shape(node, body, *sizes[node])
        body.recompile()


def set_size(module: nn.Module, rows: int, dim: int) -> None:
    """Set a layer's attributes to the size of its weight, which had ``rows`` before its ``dim`` was cut or widened.

    A norm without a weight has the size of its statistics.
    """
    weight = rows_of(module)
    if isinstance(module, nn.Conv2d):
        if dim == 0 and module.groups > 1:
            module.groups = module.groups * len(weight) // rows
        module.out_channels, module.in_channels = len(weight), weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, Norm):
        module.num_features = len(weight)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(weight)


def rows_of(module: nn.Module) -> Tensor:
    """A parameter or buffer of a layer or norm that has a row for each channel."""
    return next(itertools.chain(module.parameters(), module.buffers()))


_Sizes = dict[fx.Node, tuple[tuple[int, ...], tuple[int, ...]]]
"""For operations that give another shape once channels are gone, the old one and the new one."""


def _new_sizes(network: Branching, bodies: Sequence[fx.GraphModule], lost: Sequence[ChannelGroup]) -> _Sizes:
    tracker = ChannelTracker(network)
    values: dict[fx.Node, Tensor] = {}
    with keeping_modes(network), torch.inference_mode(), OperationRecorder(tracker.follow):
        trunk = network.eval().enter(network.blank(2))
        for body in bodies:
            runner = fx.Interpreter(body, garbage_collect_values=False)
            trunk = runner.run(trunk)
            values |= {node: value for node, value in runner.env.items() if isinstance(value, Tensor)}
    known = [tracker.axes[axis][places] for axis, places in cuts(lost).items() if axis in tracker.axes]
    labels: Labels = np.concatenate([np.zeros(0, dtype=np.int64), *known])
    sizes: _Sizes = {}
    for node, value in values.items():
        stays = ~np.isin(tracker.labels_of(value).numpy(), labels)
        # A place along a dimension goes if all in it does.
        left = tuple(
            int(np.moveaxis(stays, dim, 0).reshape(stays.shape[dim], -1).any(axis=1).sum())
            for dim in range(value.dim())
        )
        if left != tuple(value.shape):
            sizes[node] = (tuple(value.shape), left)
    return sizes


def _set_shape(node: fx.Node, body: fx.GraphModule, old: tuple[int, ...], new: tuple[int, ...]) -> None:
    """Change the sizes that a reshape asks for, and those of layers that may have no weight."""
    layer = body.get_submodule(str(node.target)) if node.op == "call_module" else None
    if isinstance(layer, Norm):
        layer.num_features = new[1]
    elif isinstance(layer, nn.Unflatten):
        layer.unflattened_size = _resized(layer.unflattened_size, layer.dim, old, new)
    name = str(node.target if node.op == "call_method" else getattr(node.target, "__name__", ""))
    if name not in _SIZES:
        return
    key, dim, place = _SIZES[name], 0, 1
    if name == "unflatten":
        dim, place = node.kwargs["dim"] if "dim" in node.kwargs else node.args[1], 2  # type: ignore[assignment]
    if key in node.kwargs:
        node.update_kwarg(key, _resized(node.kwargs[key], dim, old, new))
    elif isinstance(node.args[place], list | tuple):
        node.update_arg(place, _resized(node.args[place], dim, old, new))
    else:
        node.args = (node.args[0], *_resized(node.args[1:], dim, old, new))


def _resized(sizes: object, dim: int, old: tuple[int, ...], new: tuple[int, ...]) -> tuple[Any, ...]:
    """The sizes of some dimensions, of which ``dim`` of the input is the first, once the output is of shape ``new``."""
    assert isinstance(sizes, list | tuple)
    first = dim % (len(old) - len(sizes) + 1)
    shapes = zip(sizes, old[first:], new[first:], strict=False)
    return tuple(after if before != after and size != -1 else size for size, before, after in shapes)
