"""Fewer exits for a network of somebody's own layers: the first ones, or the last one alone."""

import copy

from torch import fx, nn

from ramify.errors import InputError
from ramify.nn.attached import Attached, AttachedStage


def first_exits(network: Attached, exits: int) -> Attached:
    """A copy of ``network`` up to its ``exits``-th exit, which becomes the final one.

    Raises:
        InputError: there is no such exit.

    Example:
        >>> import torch
        >>> from ramify.nn.attach import attach_exits
        >>> own = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        >>> network = attach_exits(own, ["1"], example=torch.rand(1, 1, 8, 8))
        >>> first_exits(network, 1)(torch.rand(5, 1, 8, 8)).shape
        torch.Size([1, 5, 10])
    """
    if not 1 <= exits <= len(network.stages):
        raise InputError(f"cut: got exit {exits}; accepted: 1 to {len(network.stages)}, the exits of this network")
    small = copy.deepcopy(network)
    small.stages = small.stages[:exits]
    small.pending = ()
    small.points = small.points[: exits - 1]
    return small


def last_exit(network: Attached) -> Attached:
    """A copy of ``network`` without internal classifiers: its layers in one stage, answering as the last exit did.

    Raises:
        InputError: it is not complete.

    Example:
        >>> import torch
        >>> from ramify.nn.attach import attach_exits
        >>> own = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        >>> network = attach_exits(own, ["1"], example=torch.rand(1, 1, 8, 8)).eval()
        >>> images = torch.rand(5, 1, 8, 8)
        >>> torch.equal(last_exit(network)(images), network(images)[-1:])
        True
    """
    if not network.complete:
        raise InputError(f"cut: got a network of {len(network.stages)} stages, to which others are to come")
    small = copy.deepcopy(network)
    stages = [stage for stage in small.stages if isinstance(stage, AttachedStage)]
    joined = AttachedStage(_joined([stage.body for stage in stages]), stages[-1].exit)
    small.stages = nn.ModuleList([joined.train(network.training)])
    small.points = ()
    return small.train(network.training)


def _joined(bodies: list[fx.GraphModule]) -> fx.GraphModule:
    """One graph of several, each reading what the one before it gives, with the same layers under the same names."""
    root, graph = nn.Module(), fx.Graph()
    trunk = graph.placeholder("trunk")
    for body in bodies:
        _graft(root, body)
        [entry] = [node for node in body.graph.nodes if node.op == "placeholder"]
        found = graph.graph_copy(body.graph, {entry: trunk})
        assert isinstance(found, fx.Node)
        trunk = found
    graph.output(trunk)
    return fx.GraphModule(root, graph, "Body")


def _graft(root: nn.Module, body: nn.Module) -> None:
    """Put the modules, parameters and buffers of ``body`` into ``root``, at the same places."""
    for name, child in body.named_children():
        if hasattr(root, name) and not list(child.parameters(recurse=False)):
            _graft(root.get_submodule(name), child)
        else:
            root.add_module(name, child)
    for name, parameter in body.named_parameters(recurse=False):
        root.register_parameter(name, parameter)
    for name, buffer in body.named_buffers(recurse=False):
        root.register_buffer(name, buffer)
