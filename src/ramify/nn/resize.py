"""Channels are taken out of a traced network: its tensors, the sizes its layers know, and the sizes in its graphs."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, fx, nn

from ramify.nn.branching import Branching
from ramify.nn.following import Numbers, Trail
from ramify.nn.graph import ChannelGroup
from ramify.nn.recording import OperationRecorder
from ramify.nn.widths import cuts

_RESHAPES = ("view", "reshape", "expand")
"""Operations of a graph whose arguments are the sizes of what they give."""


def remove_channels(network: Branching, bodies: Sequence[fx.GraphModule], lost: Sequence[ChannelGroup]) -> None:
    """Take the channels in ``lost`` out of ``network``, in place; what stays of its tensors are slices.

    Args:
        network: one in whose stages ``bodies`` are what is computed.
        bodies: traced graphs; the sizes that stand in them are made to fit.
        lost: groups of the network's channels.
    """
    if not lost:
        return
    sizes = _new_sizes(network, bodies, lost)
    for (name, dim), places in cuts(lost).items():
        owner, _, key = name.rpartition(".")
        module = network.get_submodule(owner)
        old = getattr(module, key, None)
        if not isinstance(old, Tensor):  # a layer without a mask
            continue
        stays = torch.ones(old.shape[dim], dtype=torch.bool, device=old.device)
        stays[places] = False
        value = old.detach().index_select(dim, stays.nonzero()[:, 0])
        setattr(module, key, nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value)
        _note_size(module, len(old), key, dim)
    for body in bodies:
        for node in body.graph.nodes:
            if node in sizes:
                _refit(node, *sizes[node])
        body.recompile()


def _note_size(module: nn.Module, rows: int, key: str, dim: int) -> None:
    """Let a layer know its new size."""
    if key != "weight":
        return
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
    trail = Trail.of(network)
    given: dict[fx.Node, Tensor] = {}
    training = network.training
    try:
        network.eval()
        with torch.inference_mode(), OperationRecorder(trail.follow):
            trunk = network.enter(network.blank(2))
            for body in bodies:
                runner = fx.Interpreter(body, garbage_collect_values=False)
                trunk = runner.run(trunk)
                given |= {node: value for node, value in runner.env.items() if isinstance(value, Tensor)}
    finally:
        network.train(training)
    gone = _gone(trail, lost)
    sizes: _Sizes = {}
    for node, value in given.items():
        lacking = np.isin(trail.of_input(value).numpy(), gone)
        left = tuple(_left(lacking, dim) for dim in range(value.dim()))
        if left != tuple(value.shape):
            sizes[node] = (tuple(value.shape), left)
    return sizes


def _gone(trail: Trail, lost: Sequence[ChannelGroup]) -> Numbers:
    """The labels of the channels in ``lost``."""
    found: list[Numbers] = [np.zeros(0, dtype=np.int64)]
    for group in lost:
        for layer, at, dim in (*group.makers, *group.gates, *group.filters, *group.readers):
            if (f"{layer}.weight", dim) in trail.axes:
                found.append(trail.axes[f"{layer}.weight", dim][list(at)])
        for name, at, dim in group.vectors:
            if (name, dim) in trail.axes:
                found.append(trail.axes[name, dim][list(at)])
    gone: Numbers = np.unique(np.concatenate(found))
    return gone


def _left(lacking: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], dim: int) -> int:
    """How many places along a dimension are left, where a place goes if all in it does."""
    return int((~np.moveaxis(lacking, dim, 0).reshape(lacking.shape[dim], -1).all(axis=1)).sum())


def _refit(node: fx.Node, old: tuple[int, ...], new: tuple[int, ...]) -> None:
    """Let a reshape give its new shape."""
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    if name not in _RESHAPES:
        return
    wrapped = len(node.args) == 2 and isinstance(node.args[1], list | tuple)
    sizes = list(node.args[1]) if wrapped else list(node.args[1:])  # type: ignore[arg-type]
    for dim, (before, after) in enumerate(zip(old, new, strict=True)):
        if before != after and sizes[dim] != -1:
            sizes[dim] = after
    node.args = (node.args[0], tuple(sizes)) if wrapped else (node.args[0], *sizes)
