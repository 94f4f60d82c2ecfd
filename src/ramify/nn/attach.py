"""Exits for a classifier of one's own: any module that torch.fx can trace becomes a branching network.

Internal classifiers behind the layers of a network that is already trained are those of Shallow-Deep Networks
(arXiv:1810.07052). The module is traced to a graph of operations, and the graph is cut at places where a single
tensor is all that the operations behind it read of those before it.
"""

import difflib
from collections.abc import Sequence

from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from ramify.errors import InputError
from ramify.nn.branching import Branching
from ramify.nn.equilibrium import scale_gradient
from ramify.nn.exit import EXITS, GRID, Grid
from ramify.nn.survey import ExitPoint, Survey, survey, undisturbed
from ramify.seeds import drawing


class AttachedStage(nn.Module):
    """The module's operations up to one place, and the exit there: ``trunk -> (trunk, logits [B, C])``.

    Attributes:
        body: the operations, with the module's own layers under ``body.net`` by the names that they have there.
        exit: reads the trunk; None in the last stage, whose trunk is the logits.
    """

    def __init__(self, body: fx.GraphModule, head: nn.Module | None) -> None:
        super().__init__()
        self.body = body
        self.exit = head

    def forward(self, trunk: Tensor, share: float = 1.0) -> tuple[Tensor, Tensor]:
        trunk = self.body(trunk)
        return trunk, trunk if self.exit is None else self.exit(as_map(scale_gradient(trunk, share)))


class Attached(Branching):
    """A module with exits, ``images -> logits [E, B, C]``; the last of the E exits is the module's own output.

    Where :class:`~ramify.nn.branching.Branching` speaks of pictures ``[B, channels, H, W]`` in [0, 1], this one takes
    whatever the module takes; nothing is normalised on the way. :func:`attach_exits` makes one.

    Attributes:
        stages: one :class:`AttachedStage` for each exit.
        points: where the exits stand, without the last.
        macs: for each exit the multiply-accumulates of one picture that leaves there, all exits on the way included.
        frozen: whether the module's own layers stay in evaluation mode, whatever mode the network is set to.
    """

    def __init__(
        self, stages: Sequence[AttachedStage], points: Sequence[ExitPoint], macs: Sequence[int], frozen: bool
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.points = tuple(points)
        self.macs = tuple(macs)
        self.frozen = frozen

    def enter(self, images: Tensor) -> Tensor:
        """The pictures as they are."""
        return images

    def exit_parameters(self) -> list[nn.Parameter]:
        """The parameters of the exits that were attached, for an optimizer; those of the module are not among them."""
        return [
            parameter
            for name, parameter in self.stages.named_parameters()
            if name.split(".")[1] == "exit"  # "0.exit.linear.weight"
        ]

    def train(self, mode: bool = True) -> "Attached":
        """Set the mode of the network; of the exits alone where it is ``frozen``."""
        super().train(mode)
        if self.frozen:
            for stage in self.stages:
                stage.get_submodule("body").eval()
        return self


def as_map(trunk: Tensor) -> Tensor:
    """``[B, C, H, W]`` as it is, ``[B, F]`` as ``[B, F, 1, 1]``, ``[B, T, F]`` as its mean over tokens, alike."""
    if trunk.ndim == 3:
        trunk = trunk.mean(dim=1)
    return trunk[:, :, None, None] if trunk.ndim == 2 else trunk


def attach_exits(
    module: nn.Module,
    at: Sequence[str] | Sequence[float],
    *,
    example: Tensor,
    classes: int | None = None,
    exit: str = "mixed",  # noqa: A002 - as network.exit names it
    freeze: bool = False,
    seed: int | None = None,
) -> Attached:
    """A branching network made of ``module``, with an internal classifier at each place of ``at``.

    The module's own layers are used, not copied: training the one trains the other. A layer with weights belongs to
    one stage alone, so no place lies between two uses of it.

    Args:
        module: a classifier, ``images -> logits [B, C]``, that ``torch.fx`` can trace: no ``if``, ``for`` or number in
            its forward depends on the values or the shape of what it reads.
        at: names of submodules, behind whose output (that of the last call) exits stand, or of other
            :func:`exit_points`; or fractions between 0 and 1 of the multiply-accumulates that
            ``torch.utils.flop_counter`` counts. A fraction takes the nearest place; of those with nothing to multiply
            in between, the one behind norm and activation, ahead of what changes the shape.
        example: one or more pictures of the kind that the module takes, on its device.
        classes: how many there are; None for as many as the module gives logits.
        exit: a name in :data:`ramify.nn.exit.EXITS`.
        freeze: the module's parameters get no gradients, and its layers stay in evaluation mode, so that batch norm
            statistics stand still: only the exits train.
        seed: seed of the exits' weights; None draws from PyTorch's generator.

    Raises:
        InputError: the module cannot be traced, does not take ``example``, or gives no logits ``[B, C]``; a name
            or fraction leads nowhere, or two lead to the same place; ``classes`` or ``exit`` do not fit.

    Example:
        >>> import torch
        >>> own = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten())
        >>> own.append(nn.Linear(128, 10))[-1].out_features
        10
        >>> network = attach_exits(own, ["1", "3"], example=torch.rand(1, 1, 8, 8), freeze=True)
        >>> network(torch.rand(5, 1, 8, 8)).shape
        torch.Size([3, 5, 10])
        >>> [point.name for point in attach_exits(own, [0.1], example=torch.rand(1, 1, 8, 8)).points]
        ['1']
    """
    if exit not in EXITS:
        raise InputError(f"exit: got {exit!r}; accepted: {', '.join(sorted(EXITS))}")
    with undisturbed(module):
        found = survey(module, example, train=not freeze)
        if classes not in (None, found.classes):
            raise InputError(f"classes: got {classes}; accepted: {found.classes}, as many as the module gives logits")
        nodes = _named(found, at) if _are_names(at) else _nearest(found, at)
        starts, ends = [found.entry, *nodes], [*nodes, None]
        stages: list[AttachedStage] = []
        macs: list[int] = []
        heads = 0
        for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
            head = None
            if end is not None:
                with drawing(seed, "exit", index):
                    head, cost = _head(found.values[end], found.classes, exit)
                heads += cost
            stages.append(AttachedStage(_between(found, start, end), head))
            macs.append(heads + found.macs[found.nodes[-1] if end is None else end])
    network = Attached(stages, [found.points[node] for node in nodes], macs, freeze)
    own = set(module.modules())
    for each in network.modules():
        if each not in own:
            each.training = module.training
    if freeze:
        module.requires_grad_(False)
        network.train(module.training)
    return network


def exit_points(module: nn.Module, example: Tensor) -> list[ExitPoint]:
    """The places in ``module`` where :func:`attach_exits` can put an exit, shallowest first.

    Raises:
        InputError: the module cannot be traced, does not take ``example``, gives no logits ``[B, C]``, or has no
            such place.

    Example:
        >>> import torch
        >>> own = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        >>> for point in exit_points(own, torch.rand(1, 1, 8, 8)):
        ...     print(point.name, point.shape, f"{point.share:.2f}")
        0 (4, 6, 6) 0.47
        1 (4, 6, 6) 0.47
        2 (144,) 0.47
    """
    with undisturbed(module):
        return list(survey(module, example, train=False).points.values())


def _between(found: Survey, start: fx.Node, end: fx.Node | None) -> fx.GraphModule:
    """The operations behind ``start`` up to and with ``end``, or to the module's output."""
    graph = fx.Graph()
    trunk = graph.placeholder("trunk")
    copies = {start: trunk}

    def copy(node: fx.Node) -> fx.Node:
        if node not in copies:
            # Weights come with the operation that reads them; else only the number of pictures crosses a cut.
            brought = node.op == "get_attr"
            copies[node] = graph.node_copy(node) if brought else graph.call_method("size", (trunk, 0))
        return copies[node]

    stop = len(found.nodes) - 1 if end is None else found.nodes.index(end) + 1
    for node in found.nodes[found.nodes.index(start) + 1 : stop]:
        if node.op != "get_attr":
            copies[node] = graph.node_copy(node, copy)
    [output] = found.nodes[-1].all_input_nodes if end is None else [end]
    graph.output(copy(output))
    return fx.GraphModule(found.root, graph, "Body")


def _head(value: Tensor, classes: int, name: str) -> tuple[nn.Module, int]:
    """A classifier for what flows at an exit, on its device and of its type, and its MACs for one picture."""
    _, channels, height, width = as_map(value).shape
    grid: Grid = (min(GRID, height), min(GRID, width))
    head = EXITS[name](channels, classes, grid).to(value.device, value.dtype)
    with FlopCounterMode(display=False) as counter:
        head.eval()(as_map(value))
    return head, counter.get_total_flops() // 2 // len(value)


# Finding the places that are asked for.


def _are_names(at: Sequence[str] | Sequence[float]) -> bool:
    names = [isinstance(each, str) for each in at]
    if isinstance(at, str) or not names or any(names) != all(names):
        raise InputError(f"at: got {at!r}; accepted: a list of names of submodules, or a list of fractions")
    return all(names)


def _named(found: Survey, at: Sequence[str] | Sequence[float]) -> list[fx.Node]:
    """The nodes that are called by names, in the order of the graph."""
    known = {point.name: node for node, point in found.points.items()} | found.outputs
    named: dict[fx.Node, str] = {}
    for name in map(str, at):
        if name not in known:
            [near] = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            exists = name in dict(found.root.get_submodule("net").named_modules())
            got = f"{name!r}, which forward does not call or which computes nothing" if exists else repr(name)
            raise InputError(f"at: got {got}; accepted: names of submodules that forward calls, the nearest {near!r}")
        node = known[name]
        if found.hindrances[node]:
            raise InputError(
                f"at: got {name!r}, whose output {found.hindrances[node]}; accepted: {_neighbours(found, node)}"
            )
        if node in named:
            raise InputError(f"at: got {named[node]!r} and {name!r}, which are the same place; accepted: one of them")
        named[node] = name
    return sorted(named, key=found.nodes.index)


def _neighbours(found: Survey, node: fx.Node) -> str:
    """The places next to ``node``; where there are any, those behind a submodule."""
    submodules = set(found.outputs.values())
    places = [place for place in found.points if place in submodules] or list(found.points)
    index = found.nodes.index(node)
    before = [repr(found.points[place].name) for place in places if found.nodes.index(place) < index]
    behind = [repr(found.points[place].name) for place in places if found.nodes.index(place) > index]
    return " or ".join([f"{name} before it" for name in before[-1:]] + [f"{name} behind it" for name in behind[:1]])


def _nearest(found: Survey, at: Sequence[str] | Sequence[float]) -> list[fx.Node]:
    """The nodes that are nearest to fractions of the MACs, in the order of the graph."""
    fractions = [float(each) for each in at]
    if not all(0 < fraction < 1 for fraction in fractions):
        raise InputError(f"at: got {list(at)}; accepted: fractions above 0 and below 1")
    places: dict[float, fx.Node] = {}
    for node, point in found.points.items():
        before = places.get(point.share, node)
        places[point.share] = node if point.shape == found.points[before].shape else before
    shares = [min(places, key=lambda share: abs(share - fraction)) for fraction in fractions]
    if len(set(shares)) < len(shares):
        raise InputError(
            f"at: got {list(at)}; accepted: fractions nearest to different places, which are at "
            + ", ".join(f"{share:.2f}" for share in places)
        )
    return [places[share] for share in sorted(shares)]
