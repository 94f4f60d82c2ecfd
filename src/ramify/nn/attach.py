"""Exits for a classifier of one's own: any module that torch.fx can trace becomes a branching network.

Internal classifiers behind the layers of a trained network are those of Shallow-Deep Networks (arXiv:1810.07052).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from ramify.errors import InputError, first_line, nearest
from ramify.nn.attached import Attached, AttachedStage, as_map
from ramify.nn.exit import EXITS, GRID, Grid
from ramify.nn.masked import masked_layers
from ramify.nn.survey import ExitPoint, Survey, survey, trace_module, undisturbed
from ramify.seeds import drawing


def attach_exits(
    module: nn.Module,
    at: Sequence[str] | Sequence[float],
    *,
    example: Tensor,
    classes: int | None = None,
    exit: str = "mixed",  # noqa: A002 - as network.exit names it
    freeze: bool = False,
    seed: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Attached:
    """A branching network made of ``module``, with an internal classifier at each place of ``at``.

    The module's own layers are used, not copied. Its convolutions and linear layers get their masks in place, so its
    ``state_dict`` gains them. A layer with weights belongs to one stage, so no place lies between two uses of it.

    Args:
        module: a classifier, ``images -> logits [B, C]``, that ``torch.fx`` can trace.
        at: names of submodules behind whose (last) output exits stand, or of other :func:`exit_points`; or fractions
            between 0 and 1 of the multiply-accumulates that ``torch.utils.flop_counter`` counts. A fraction takes the
            nearest place; of those with nothing to multiply in between, the one behind norm and activation. None of
            them leaves the module's own output alone.
        example: one or more pictures that the module takes, on its device.
        classes: the number of logits of the module, or None.
        exit: a name in :data:`ramify.nn.exit.EXITS`.
        freeze: train the exits alone; the module's layers stay in evaluation mode.
        seed: seed of the exits' weights; None draws from PyTorch's generator.
        mean, std: normalization of the pictures, a number for each of their channels; None for 0 and 1.

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
        traced = survey(module, example, train=not freeze)
        if classes not in (None, traced.classes):
            raise InputError(f"classes: got {classes}; accepted: {traced.classes}, as many as the module gives logits")
        nodes = _named(traced, at) if _are_names(at) else _nearest(traced, at)
        stages: list[AttachedStage] = []
        for index, (start, end) in enumerate(zip([traced.entry, *nodes], [*nodes, None], strict=True)):
            head = None
            if end is not None:
                with drawing(seed, "exit", index):
                    head = head_for(traced.values[end], traced.classes, exit)
            stages.append(AttachedStage(_between(traced, start, end), head))
    points = [traced.points[node] for node in nodes]
    network = Attached(stages, example.shape[1:], traced.classes, points=points, frozen=freeze)
    _normalize(network, mean, std)
    own = set(module.modules())
    for part in network.modules():
        if part not in own:
            part.training = module.training
    _put_masks(module, network)
    if freeze:
        module.requires_grad_(False)
        network.train(module.training)
    return network


def branches(
    stem: nn.Module,
    stages: Sequence[nn.Module],
    *,
    example: Tensor,
    classes: int,
    exit: str = "mixed",  # noqa: A002 - as network.exit names it
    final: str = "average",
    existing: int = 1,
    seed: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Attached:
    """A branching network of your own stages, of which ``existing`` exist; :func:`ramify.grow` adds the next one.

    The first stage reads the output of ``stem``, and each other one that of the stage before it. Behind each stands a
    classifier. The layers are used, not copied, and get their masks in place.

    Args:
        stem: ``images -> trunk``.
        stages: one or more, each ``trunk -> trunk``; the trunk is ``[B, C, H, W]``, ``[B, T, F]`` or ``[B, F]``.
        example: one or more pictures, on the device of the layers.
        classes: the number of classes, at least 2.
        exit, final: of the internal classifiers and of the last one, names in :data:`ramify.nn.exit.EXITS`.
        existing: how many stages exist from the start, at least 1.
        seed: seed of the classifiers' weights; None draws from PyTorch's generator.
        mean, std: as in :func:`attach_exits`.

    Raises:
        InputError: a stage cannot be traced, does not take what the one before it gives, or shares a parameter with
            another, or an argument does not fit.

    Example:
        >>> import torch
        >>> from ramify.ops.growing.grow import grow
        >>> def block(channels):
        ...     return nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        >>> network = branches(block(1), [block(8), block(8)], example=torch.rand(1, 1, 8, 8), classes=10)
        >>> network(torch.rand(5, 1, 8, 8)).shape, network.complete
        (torch.Size([1, 5, 10]), False)
        >>> grow(network).final, network(torch.rand(5, 1, 8, 8)).shape
        (True, torch.Size([2, 5, 10]))
    """
    for key, name in (("exit", exit), ("final", final)):
        if name not in EXITS:
            raise InputError(f"{key}: got {name!r}; accepted: {', '.join(sorted(EXITS))}")
    if not stages or not 1 <= existing <= len(stages):
        raise InputError(f"existing: got {existing} of {len(stages)} stages; accepted: at least 1, at most all of them")
    if classes < 2:
        raise InputError(f"classes: got {classes}; accepted: a whole number >= 2")
    attached: list[AttachedStage] = []
    owned: set[nn.Parameter] = set()
    trunk = torch.cat((example, example))
    for index, stage in enumerate(stages):
        module = nn.Sequential(stem, stage) if index == 0 else stage
        for name, parameter in module.named_parameters():
            if parameter in owned:
                raise InputError(
                    f"stages: got stage {index + 1}, whose {name} is of an earlier stage as well; "
                    "accepted: stages with parameters of their own"
                )
        owned.update(module.parameters())
        with undisturbed(module):
            root, _ = trace_module(module, train=True)
            trunk = _run_stage(root, module, trunk, index)
        with drawing(seed, "exit", index):
            head = head_for(trunk, classes, exit if index + 1 < len(stages) else final)
        attached.append(AttachedStage(root, head).train(module.training))
    network = Attached(attached, example.shape[1:], classes, existing=existing)
    _normalize(network, mean, std)
    for module, with_masks in zip((stem, *stages), (attached[0], *attached), strict=True):
        _put_masks(module, with_masks)
    return network.train(stem.training)


def _run_stage(root: nn.Module, module: nn.Module, trunk: Tensor, index: int) -> Tensor:
    """The trunk behind a stage, in evaluation mode."""
    try:
        output: object = root.eval()(trunk)
    except Exception as error:  # whatever the stage's own layers raise
        raise InputError(
            f"stages: got stage {index + 1} of type {type(module).__name__}, which does not take {list(trunk.shape)} "
            f"({first_line(error)}); accepted: stages that read what the one before them gives"
        ) from error
    if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4) or len(output) != len(trunk):
        kind = list(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise InputError(
            f"stages: got stage {index + 1}, which gives {kind}; accepted: [B, C, H, W], [B, T, F] or [B, F] alone"
        )
    return output


def _normalize(network: Attached, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    if mean is not None or std is not None:
        channels = network.mean.numel()
        network.set_normalization(mean or [0.0] * channels, std or [1.0] * channels)


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


def _between(traced: Survey, start: fx.Node, end: fx.Node | None) -> fx.GraphModule:
    """The operations behind ``start`` up to and with ``end``, or to the module's output."""
    graph = fx.Graph()
    trunk = graph.placeholder("trunk")
    copies = {start: trunk}

    def copy(node: fx.Node) -> fx.Node:
        if node not in copies:
            # Weights come with the operation that reads them; else only the number of pictures crosses a cut.
            is_weight = node.op == "get_attr"
            copies[node] = graph.node_copy(node) if is_weight else graph.call_method("size", (trunk, 0))
        return copies[node]

    stop = len(traced.nodes) - 1 if end is None else traced.nodes.index(end) + 1
    for node in traced.nodes[traced.nodes.index(start) + 1 : stop]:
        if node.op != "get_attr":
            copies[node] = graph.node_copy(node, copy)
    [output] = traced.nodes[-1].all_input_nodes if end is None else [end]
    graph.output(copy(output))
    return fx.GraphModule(traced.root, graph, "Body")


def head_for(value: Tensor, classes: int, name: str) -> nn.Module:
    """A classifier that reads ``value``, on its device and of its type."""
    _, channels, height, width = as_map(value).shape
    grid: Grid = (min(GRID, height), min(GRID, width))
    return EXITS[name](channels, classes, grid).to(value.device, value.dtype)


def _put_masks(module: nn.Module, network: nn.Module) -> None:
    """Replace layers of ``module`` by the masked ones of ``network``."""
    masked = {layer.weight: layer for layer in masked_layers(network).values()}
    for name, layer in list(module.named_modules()):
        if type(layer) in (nn.Conv2d, nn.Linear) and name and layer.weight in masked:
            masked[layer.weight].training = layer.training
            module.set_submodule(name, masked[layer.weight])


def _are_names(at: Sequence[str] | Sequence[float]) -> bool:
    names = [isinstance(place, str) for place in at]
    if isinstance(at, str) or (names and any(names) != all(names)):
        raise InputError(f"at: got {at!r}; accepted: a list of names of submodules, or a list of fractions")
    return all(names)


def _named(traced: Survey, at: Sequence[str] | Sequence[float]) -> list[fx.Node]:
    """The nodes of the names in ``at``, in the order of the graph."""
    known = {point.name: node for node, point in traced.points.items()} | traced.outputs
    named: dict[fx.Node, str] = {}
    for name in map(str, at):
        if name not in known:
            exists = name in dict(traced.module.named_modules())
            got = f"{name!r}, which forward does not call or which computes nothing" if exists else repr(name)
            raise InputError(f"at: got {got}; accepted: submodules that forward calls{nearest(name, known, 0)}")
        node = known[name]
        if traced.hindrances[node]:
            raise InputError(
                f"at: got {name!r}, whose output {traced.hindrances[node]}; accepted: {_neighbors(traced, node)}"
            )
        if node in named:
            raise InputError(f"at: got {named[node]!r} and {name!r}, which are the same place; accepted: one of them")
        named[node] = name
    return sorted(named, key=traced.nodes.index)


def _neighbors(traced: Survey, node: fx.Node) -> str:
    """The places next to ``node``, behind a submodule if there are such places."""
    submodules = set(traced.outputs.values())
    places = [place for place in traced.points if place in submodules] or list(traced.points)
    index = traced.nodes.index(node)
    before = [repr(traced.points[place].name) for place in places if traced.nodes.index(place) < index]
    behind = [repr(traced.points[place].name) for place in places if traced.nodes.index(place) > index]
    return " or ".join([f"{name} before it" for name in before[-1:]] + [f"{name} behind it" for name in behind[:1]])


def _nearest(traced: Survey, at: Sequence[str] | Sequence[float]) -> list[fx.Node]:
    """The nodes nearest to fractions of the MACs, in the order of the graph."""
    fractions = [float(fraction) for fraction in at]
    if not all(0 < fraction < 1 for fraction in fractions):
        raise InputError(f"at: got {list(at)}; accepted: fractions above 0 and below 1")
    places: dict[float, fx.Node] = {}
    for node, point in traced.points.items():
        before = places.get(point.share, node)
        places[point.share] = node if point.shape == traced.points[before].shape else before
    shares = [min(places, key=lambda share: abs(share - fraction)) for fraction in fractions]
    if len(set(shares)) < len(shares):
        raise InputError(
            f"at: got {list(at)}; accepted: fractions nearest to different places, which are at "
            + ", ".join(f"{share:.2f}" for share in places)
        )
    return [places[share] for share in sorted(shares)]
