"""Inheritance: how a stage that grows starts from what is there, so that nothing that was learned is lost.

In a cascade a new exit adds to the one before it: with weights of zero it answers the same, whatever its cells give.

A cell passes channels on unchanged where an identity shortcut carries them and what its layers add is zeroed, or
where a convolution selects them (one weight of 1 for each, the rest 0) and its batch norm is an identity:
``scale = sqrt(running_var + eps)``, ``shift = running_mean``. ReLUs do no harm, since what passes is not negative.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from ramify.errors import InputError
from ramify.nn.cell import (
    CellPlan,
    CompactCell,
    DepthwiseCell,
    GroupedCell,
    PlainCell,
    PreactivationCell,
    SeparableCell,
    TwoLayerCell,
)
from ramify.nn.exit import PooledHead
from ramify.nn.masked import MaskedConv2d, masked_layers
from ramify.nn.network import Network, architecture
from ramify.ops.channels import WIRING, Part, Space, existing_cells

Statistics = dict[nn.BatchNorm2d, tuple[Tensor, Tensor]]
"""Mean and variance of what a batch norm reads, each ``[channels]``."""

_Identities = dict[nn.BatchNorm2d, Tensor]
"""Which channels of a batch norm pass it unchanged, by their indices."""


def can_keep(network: Network) -> str:
    """Why the stage that grows next cannot keep the network's function; empty if it can.

    Example:
        >>> from ramify.config import NetworkConfig
        >>> config = NetworkConfig(structure=(1, 0), exit="mixed", input_shape=(1, 8, 8), classes=10)
        >>> can_keep(Network(config))
        'its exit is average and the one before it mixed (see network.final)'
        >>> can_keep(Network(config.model_copy(update={"final": "mixed"})))
        ''
    """
    if network.complete:
        return f"the network has all its {len(network.stages)} stages"
    if network.cascade:
        return ""
    index = len(network.stages)
    count = network.plans[index - 1].exit_channels
    if any(cell.pooled for cell in network.plans[index].cells):
        return "one of its cells halves the trunk"
    if any(cell.gives_sum for cell in network.plans[index - 1].cells):
        return "the exit before it reads a sum before its ReLU, which no cell passes on (see network.exit_reads)"
    for i in _relays(network, index):
        told = _why_not_passed(network, network.plans[index].cells[i], count)
        if told:
            return told
    return _why_heads_differ(network, index)


def _why_heads_differ(network: Network, index: int) -> str:
    """Why the exit of stage ``index`` cannot take the weights of the one before it; empty if it can."""
    old, new = network.plans[index - 1], network.plans[index]
    before, after = _head(network, index - 1), _head(network, index)
    if before != after:
        hint = " (see network.final)" if new.final and network.config.cells == "seed" else ""
        return f"its exit is {after} and the one before it {before}{hint}"
    if old.grid != new.grid:
        sides = [f"{height} x {width}" for height, width in (new.grid, old.grid)]
        return f"its exit reads a map of {sides[0]} and the one before it one of {sides[1]}"
    if new.exit_channels < old.exit_channels:
        return f"its exit reads {new.exit_channels} channels and the one before it {old.exit_channels}"
    return ""


def _head(network: Network, index: int) -> str:
    """Name of the exit of stage ``index``."""
    stage = network.plans[index]
    return stage.head or ("average" if stage.final else network.config.exit)


def _relays(network: Network, index: int) -> Sequence[int]:
    """The cells of stage ``index`` that have to pass on what the exit before it reads.

    In dense wiring all of it stays in the trunk: a final classifier reads it there, any other exit reads but the
    outputs of the last cell.
    """
    old, new = network.plans[index - 1], network.plans[index]
    cells = range(len(new.cells))
    if network.config.kind != "dense":
        return cells
    added = sum(cell.out_channels for cell in new.cells)
    return () if new.exit_channels >= added + old.exit_channels else cells[-1:]


def _why_not_passed(network: Network, cell: CellPlan, count: int) -> str:
    """Why a cell to come cannot pass on the ``count`` channels that the last exit reads; empty if it can."""
    if cell.type not in _PASSING:
        return f"its {cell.type} cells change whatever they read"
    if cell.stride != 1:
        return f"one of its {cell.type} cells halves the map"
    if cell.type == "compact" and cell.projects:
        return "one of its compact cells has no shortcut, as the shape changes there"
    # What a skip_second cell passes on goes through its inner channels.
    width = min(cell.inner_channels, cell.out_channels) if cell.type == "skip_second" else cell.out_channels
    if width < count:
        return f"one of its {cell.type} cells has {width} channels and the exit before it reads {count}"
    if WIRING[cell.type].rectified and _may_be_negative(network):
        return f"its {cell.type} cells end in a ReLU and the exit before it reads what may be negative"
    return ""


def _may_be_negative(network: Network) -> bool:
    """Whether what the last exit reads comes from neither a ReLU nor a maximum over one."""
    cells = existing_cells(network)
    return not WIRING[cells[-1][2].type].rectified if cells else architecture(network.config).stem != "block"


def keep_function(network: Network, dead: Tensor, images: Tensor | None = None) -> None:
    """Let the newest stage, which is fresh, answer what the exit before it answers, in evaluation mode.

    Args:
        network: one for which :func:`can_keep` told no reason before the stage came.
        dead: which channels of the trunk were dead then (:func:`ramify.ops.channels.dead_trunk`); those that the
            exit does not read either are not passed on.
        images: ``[B, C, H, W]`` in [0, 1]; the running statistics of batch norms that are identities are measured
            on these, so that they nearly are in training mode as well. Without, they are 0 and 1.
    """
    index = len(network.stages) - 1
    old, new, stage = network.plans[index - 1], network.plans[index], network.stages[index]
    before, after = network.stages[index - 1].get_submodule("exit"), stage.get_submodule("exit")
    assert isinstance(before, PooledHead)
    assert isinstance(after, PooledHead)
    if network.cascade:
        # The layer before it stays as drawn, so that these get a gradient at once, and then all that lies before.
        nn.init.zeros_(after.linear.weight)
        nn.init.zeros_(after.linear.bias)
        return
    dense = network.config.kind == "dense"
    trunk = len(dead)
    passing = (~dead[-old.exit_channels :] | _read_channels(before)).nonzero()[:, 0]  # of the channels of that exit
    places = trunk - old.exit_channels + passing
    relays = _relays(network, index)
    norms: _Identities = {}
    with torch.no_grad():
        for i, (cell, plan) in enumerate(zip(stage.get_submodule("cells").children(), new.cells, strict=True)):
            if i in relays:
                carried = WIRING[plan.type].carried(plan) == "trunk"
                outputs = places if carried else plan.out_channels - old.exit_channels + passing
                norms |= _PASSING[plan.type](cell, plan, places, outputs)
                places = trunk + outputs if dense else outputs
            trunk = trunk + plan.out_channels if dense else plan.out_channels
        _copy_head(before, after, passing, places - (trunk - new.exit_channels))
        # Of a dead channel a constant is left, which the exit reads: what passes it on must not be masked.
        reader = after.linear if after.conv is None else after.conv
        reader.mask |= reader.weight != 0
        _make_identities(norms)
        if images is not None:
            for norm, (mean, variance) in measured(network, images, norms).items():
                set_statistics(norm, norms[norm], mean[norms[norm]], variance[norms[norm]])
            _make_identities(norms)


def _read_channels(head: PooledHead) -> Tensor:
    """Which channels any weight of ``head`` reads, bool ``[channels]``."""
    if head.conv is not None:
        return ((head.conv.weight != 0) & head.conv.mask).flatten(1).any(dim=0)
    reads = (head.linear.weight != 0) & head.linear.mask
    found: Tensor = reads.unflatten(1, (-1, head.grid[0] * head.grid[1])).any(dim=2).any(dim=0)
    return found


def _copy_head(old: PooledHead, new: PooledHead, channels: Tensor, places: Tensor) -> None:
    """Let ``new`` do with the channels at ``places`` what ``old`` does with ``channels``, and ignore all others."""
    if old.conv is not None and new.conv is not None:
        new.conv.weight.zero_()
        new.conv.weight[:, places] = (old.conv.weight * old.conv.mask)[:, channels]
        for module in ("norm", "linear"):
            _copy_part(old.get_submodule(module), new.get_submodule(module))
        new.linear.weight.copy_(old.linear.weight * old.linear.mask)
        new.share.copy_(old.share)
        return
    pixels = old.grid[0] * old.grid[1]
    # Into the old storage, by a view: an optimizer must find the same parameter.
    new.linear.weight.zero_()
    weight = (old.linear.weight * old.linear.mask).unflatten(1, (-1, pixels))
    new.linear.weight.unflatten(1, (-1, pixels))[:, places] = weight[:, channels]
    new.linear.bias.copy_(old.linear.bias)
    if old.fixed is None:
        new.share.copy_(old.share)
    if old.norm is not None and new.norm is not None:
        for name, value in old.norm.state_dict().items():
            target = new.norm.state_dict()[name]
            if value.dim() == 0:
                target.copy_(value)  # how many batches it has seen
            else:
                target[places] = value[channels]


def _pass_two_layers(cell: nn.Module, plan: CellPlan, places: Tensor, outputs: Tensor) -> _Identities:
    assert isinstance(cell, TwoLayerCell)
    norms: _Identities = {}
    # As ResNets are started (arXiv:1706.02677): the scale gets a gradient at once, and then all that lies before it.
    cell.norm2.weight[outputs] = 0
    if not cell.spans_both:
        inner = plan.inner_channels - plan.out_channels + outputs
        _select(cell.conv1, inner, places)
        norms[cell.norm1] = inner
        places = inner
    if plan.projects:
        projection, norm = cell.shortcut.children()
        assert isinstance(norm, nn.BatchNorm2d)
        _select(projection, outputs, places)
        norms[norm] = outputs
    return norms


def _pass_deeper(cell: nn.Module, plan: CellPlan, places: Tensor, outputs: Tensor) -> _Identities:
    """Cells of more layers, of which the last is silenced as in those of two."""
    assert isinstance(cell, DepthwiseCell | GroupedCell)
    last = cell.norm4 if isinstance(cell, DepthwiseCell) else cell.norm3
    last.weight[outputs] = 0
    if not plan.projects:
        return {}
    projection, norm = cell.shortcut.children()
    assert isinstance(norm, nn.BatchNorm2d)
    _select(projection, outputs, places)
    return {norm: outputs}


def _pass_compact(cell: nn.Module, plan: CellPlan, places: Tensor, outputs: Tensor) -> _Identities:
    assert isinstance(cell, CompactCell)
    cell.norm3.weight[outputs] = 0
    return {}


def _pass_preactivation(cell: nn.Module, plan: CellPlan, places: Tensor, outputs: Tensor) -> _Identities:
    assert isinstance(cell, PreactivationCell)
    # A batch norm whose scale and shift are 0 would give its ReLU nothing, and get no gradient back from it.
    cell.conv2.weight[outputs] = 0
    if plan.projects:
        _select(cell.shortcut, outputs, places)
    return {}


def _pass_plain(cell: nn.Module, plan: CellPlan, places: Tensor, outputs: Tensor) -> _Identities:
    assert isinstance(cell, PlainCell)
    _select(cell.conv, outputs, places)
    return {cell.norm: outputs}


def _pass_separable(cell: nn.Module, plan: CellPlan, places: Tensor, outputs: Tensor) -> _Identities:
    assert isinstance(cell, SeparableCell)
    _select(cell.conv1, places, torch.zeros_like(places))  # each filter has one column
    _select(cell.conv2, outputs, places)
    return {cell.norm1: places, cell.norm2: outputs}


_PASSING: dict[str, Callable[[nn.Module, CellPlan, Tensor, Tensor], _Identities]] = {
    "basic": _pass_two_layers,
    "skip_second": _pass_two_layers,
    "preactivation": _pass_preactivation,
    "plain": _pass_plain,
    "separable": _pass_separable,
    "depthwise": _pass_deeper,
    "grouped": _pass_deeper,
    "compact": _pass_compact,
}
"""Lets a cell of a type give at some of its outputs what it reads at some places of the trunk, once the batch norms
that are returned are identities. The other outputs stay as they were drawn."""


def _select(layer: nn.Module, rows: Tensor, columns: Tensor) -> None:
    """Let ``rows`` of a convolution give ``columns`` of what it reads, unchanged."""
    assert isinstance(layer, MaskedConv2d)
    middle = layer.kernel_size[0] // 2
    layer.weight[rows] = 0
    layer.weight[rows, columns, middle, middle] = 1
    layer.mask[rows, columns, middle, middle] = True


def _make_identities(norms: _Identities) -> None:
    for norm, places in norms.items():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.weight[places] = (norm.running_var[places] + norm.eps).sqrt()
        norm.bias[places] = norm.running_mean[places]


def check_pictures(network: Network, images: Tensor | None) -> None:
    """Refuse ``images`` that ``network`` cannot read.

    Raises:
        InputError: they are no pictures of its shape, or there are none.
    """
    if images is not None and (images.shape[1:] != network.config.input_shape or len(images) == 0):
        wanted = ", ".join(map(str, ("B", *(network.config.input_shape or ()))))
        raise InputError(f"images: got {list(images.shape)}; accepted: pictures [{wanted}] in [0, 1], B > 0")


def measured(network: Network, images: Tensor, norms: Iterable[nn.BatchNorm2d]) -> Statistics:
    """Mean and variance of what each of ``norms`` reads of ``images``, in evaluation mode.

    The network stays as it is, statistics and modes included.

    Args:
        images: ``[B, C, H, W]`` in [0, 1].
        norms: batch norms of ``network``.
    """
    found: Statistics = {}

    def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        # Of the pictures that were measured, exactly: training mode divides by this one too.
        found[norm] = (inputs[0].mean(dim=(0, 2, 3)), inputs[0].var(dim=(0, 2, 3), correction=0))

    modes = {module: module.training for module in network.modules()}
    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    try:
        with torch.no_grad():
            network.eval()(images.to(network.mean))
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    return found


def set_statistics(norm: nn.BatchNorm2d, places: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Set the running statistics of the channels at ``places``."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean[places] = mean.to(norm.running_mean)
    norm.running_var[places] = variance.to(norm.running_var)


def can_copy(network: Network) -> str:
    """Why the stage that grows next cannot copy the last cell and its exit; empty if it can copy any of it.

    Example:
        >>> from ramify.config import NetworkConfig
        >>> can_copy(Network(NetworkConfig(structure=(1, 0), input_shape=(1, 8, 8), classes=10)))
        ''
    """
    if network.complete:
        return f"the network has all its {len(network.stages)} stages"
    index = len(network.stages)
    cells, existing = network.plans[index].cells, existing_cells(network)
    if not cells:
        return _why_heads_differ(network, index)
    if not existing:
        return "there is no cell before it"
    source = existing[-1][2]
    if any(part.columns is not None for cell in cells for part in _alike(source, cell)):
        return ""
    here = " and ".join(dict.fromkeys(cell.type for cell in cells))
    if source.type not in [cell.type for cell in cells]:
        return f"its cells are {here} and the last one before it is {source.type}"
    return f"no layer of its {here} cells has the shape of one in the last cell before it"


def copy_previous(network: Network) -> None:
    """Let each cell of the newest stage, which is fresh, start as the last cell before it, and its exit likewise.

    A layer of another shape stays as it was drawn. Where it reads more of the trunk, the newest channels are those
    that were read before, and the others start with weights of zero. Masks are not copied.
    """
    index = len(network.stages) - 1
    new, stage = network.plans[index], network.stages[index]
    before, after = network.stages[index - 1].get_submodule("exit"), stage.get_submodule("exit")
    assert isinstance(before, PooledHead)
    assert isinstance(after, PooledHead)
    earlier = [(name, cell) for at, name, cell in existing_cells(network) if at < index]
    with torch.no_grad():
        for cell, plan in zip(stage.get_submodule("cells").children(), new.cells, strict=True):
            name, source = earlier[-1]
            for part in _alike(source, plan):
                _copy_part(network.get_submodule(f"{name}.{part.name}"), cell.get_submodule(part.name))
        if not _why_heads_differ(network, index):
            count = network.plans[index - 1].exit_channels
            channels = torch.arange(count, device=network.mean.device)
            _copy_head(before, after, channels, new.exit_channels - count + channels)
        for layer in masked_layers(stage).values():
            layer.weight.mul_(layer.mask)  # dead channels are not read, whatever was copied


def _alike(source: CellPlan, cell: CellPlan) -> list[Part]:
    """The parts of ``cell`` that can start as those of ``source``: only of the trunk they may read more."""
    if (cell.type, cell.area if cell.type == "linear" else 0) != (
        source.type,
        source.area if cell.type == "linear" else 0,
    ):
        return []
    if cell.squeeze != source.squeeze:
        return []
    here, there = _widths(cell), _widths(source)

    def fits(part: Part) -> bool:
        if part.rows is not None and here[part.rows] != there[part.rows]:
            return False
        if part.columns is None or here[part.columns] == there[part.columns]:
            return True
        return part.columns == "trunk" and here["trunk"] > there["trunk"]

    wiring = WIRING[cell.type]
    return [part for part in wiring.of(cell) if part in wiring.of(source) and fits(part)]


def _widths(cell: CellPlan) -> dict[Space, int]:
    return {"trunk": cell.in_channels, "inner": cell.inner_channels, "output": cell.out_channels}


def _copy_part(old: nn.Module, new: nn.Module) -> None:
    """Copy the tensors of ``old``, but for masks; where ``new`` has more columns they go to the last ones."""
    given = old.state_dict()
    for key, value in new.state_dict().items():
        if key == "mask":
            continue
        if value.shape == given[key].shape:
            value.copy_(given[key])
        else:
            value.zero_()
            value[:, -given[key].shape[1] :] = given[key]
