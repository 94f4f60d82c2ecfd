"""Channels removed from a traced network: from its tensors, the sizes of its layers, and the sizes in its graphs."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, fx, nn

from ramify.nn.branching import Branching
from ramify.nn.channel_rules import ChannelTracker, Labels
from ramify.nn.graph import ChannelGroup
from ramify.nn.modes import keeping_modes
from ramify.nn.recording import OperationRecorder
from ramify.nn.widths import cut_out, cuts

_RESHAPES = ("view", "reshape", "expand")
"""Operations of a graph whose arguments are the sizes of what they give."""


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
                _set_shape(node, *sizes[node])
        body.recompile()


def set_size(module: nn.Module, rows: int, dim: int) -> None:
    """Set a layer's attributes to the size of its weight, which had ``rows`` before its ``dim`` was cut or widened."""
    weight = module.get_parameter("weight")
    if isinstance(module, nn.Conv2d):
        if dim == 0 and module.groups > 1:
            module.groups = module.groups * len(weight) // rows
        module.out_channels, module.in_channels = len(weight), weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        module.num_features = len(weight)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(weight)


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


def _set_shape(node: fx.Node, old: tuple[int, ...], new: tuple[int, ...]) -> None:
    """Change the sizes that a reshape asks for."""
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    if name not in _RESHAPES:
        return
    wrapped = len(node.args) == 2 and isinstance(node.args[1], list | tuple)
    sizes = list(node.args[1]) if wrapped else list(node.args[1:])  # type: ignore[arg-type]
    for dim, (before, after) in enumerate(zip(old, new, strict=True)):
        if before != after and sizes[dim] != -1:
            sizes[dim] = after
    node.args = (node.args[0], tuple(sizes)) if wrapped else (node.args[0], *sizes)
