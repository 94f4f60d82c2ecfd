"""How a new stage starts as an identity, or as a copy of the last cell.

A cell passes channels on unchanged where an identity shortcut carries them and its layers add zero (batch norms that
end a residual branch have a scale of zero, arXiv:1706.02677), or where a convolution selects them with weights of 1, as
in Net2Net (arXiv:1511.05641), and its batch norm is an identity: ``scale = sqrt(running_var + eps)``,
``shift = running_mean``. ReLUs change nothing, since these channels are not negative. In dense wiring only the last
cell of the stage passes channels on, and the final classifier ignores new cells at first. In a cascade an exit with
weights of zero is enough.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ramify.errors import InputError
from ramify.nn.branching import Branching
from ramify.nn.cells import CELLS, Cell, CellPlan, sized
from ramify.nn.cells.base import Identities
from ramify.nn.exit import PooledHead
from ramify.nn.masked import masked_layers
from ramify.nn.modes import keeping_modes
from ramify.nn.network import Network, architecture, existing_cells

Statistics = dict[nn.BatchNorm2d, tuple[Tensor, Tensor]]
"""Mean and variance of what a batch norm reads, each ``[channels]``."""


def can_keep(network: Network) -> str:
    """Why the stage that grows next cannot keep the network's function; empty if it can."""
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
        cell = network.plans[index].cells[i]
        kind = CELLS[cell.type]
        obstacle = kind.why_not_passed(cell, count)
        if not obstacle and kind.rectified is not False and _may_be_negative(network):
            obstacle = f"its {cell.type} cells end in a ReLU and the exit before it reads what may be negative"
        if obstacle:
            return obstacle
    return _why_heads_differ(network, index)


def _why_heads_differ(network: Network, index: int) -> str:
    """Why the exit of stage ``index`` cannot take the weights of the one before it; empty if it can."""
    old, new = network.plans[index - 1], network.plans[index]
    before, after = (stage.head_name(network.config.exit) for stage in (old, new))
    if before != after:
        hint = " (see network.final)" if new.final and network.config.cells == "seed" else ""
        return f"its exit is {after} and the one before it {before}{hint}"
    if not isinstance(network.stages[index - 1].get_submodule("exit"), PooledHead):
        return f"its exit is {after}, which cannot take the weights of another"
    if old.grid != new.grid:
        sides = [f"{width} x {height}" for height, width in (new.grid, old.grid)]
        return f"its exit reads a map of {sides[0]} and the one before it one of {sides[1]}"
    if new.exit_channels < old.exit_channels:
        return f"its exit reads {new.exit_channels} channels and the one before it {old.exit_channels}"
    return ""


def _relays(network: Network, index: int) -> Sequence[int]:
    """The cells of stage ``index`` that have to pass on what the exit before it reads.

    In dense wiring the trunk keeps it: a final classifier reads it there, any other exit only what the last cell gives.
    """
    old, new = network.plans[index - 1], network.plans[index]
    cells = range(len(new.cells))
    if network.config.kind != "dense":
        return cells
    added = sum(cell.out_channels for cell in new.cells)
    return () if new.exit_channels >= added + old.exit_channels else cells[-1:]


def _may_be_negative(network: Network) -> bool:
    """Whether the last exit reads neither a ReLU nor a maximum over one."""
    cells = existing_cells(network)
    return not CELLS[cells[-1][2].type].rectified if cells else architecture(network.config).stem != "block"


def keep_function(network: Network, dead: Tensor, images: Tensor | None = None) -> None:
    """Let the newest stage answer, in evaluation mode, what the exit before it answers.

    :func:`can_keep` gave no reason against it before the stage was added. Of the channels that were ``dead`` in the
    trunk then (:func:`ramify.ops.pruning.channels.dead_trunk`) those that the exit does not read either are not passed
    on.
    """
    index = len(network.stages) - 1
    old, new, stage = network.plans[index - 1], network.plans[index], network.stages[index]
    if network.cascade:
        # A convolution before it stays random, so that these weights get a gradient at once.
        for parameter in stage.get_submodule("exit.linear").parameters():
            nn.init.zeros_(parameter)
        return
    before, after = _pooled_head(network.stages[index - 1]), _pooled_head(stage)
    dense = network.config.kind == "dense"
    trunk = len(dead)
    passing = (~dead[-old.exit_channels :] | _read_channels(before)).nonzero()[:, 0]  # of the channels of that exit
    places = trunk - old.exit_channels + passing
    relays = _relays(network, index)
    norms: Identities = {}
    with torch.no_grad():
        for i, (cell, plan) in enumerate(zip(stage.get_submodule("cells").children(), new.cells, strict=True)):
            if i in relays:
                assert isinstance(cell, Cell)
                outputs = places if cell.carries else plan.out_channels - old.exit_channels + passing
                norms |= cell.pass_on(places, outputs)
                places = trunk + outputs if dense else outputs
            trunk = trunk + plan.out_channels if dense else plan.out_channels
        _copy_head(before, after, passing, places - (trunk - new.exit_channels))
        # A dead channel is a constant that the exit may read: the weights that read it must not be masked.
        reader = after.linear if after.conv is None else after.conv
        reader.mask |= reader.weight != 0
        _make_identities(norms)
        if images is not None:
            for norm, (mean, variance) in measured(network, images, norms).items():
                set_statistics(norm, norms[norm], mean[norms[norm]], variance[norms[norm]])
            _make_identities(norms)


def _pooled_head(stage: nn.Module) -> PooledHead:
    """The exit of a stage."""
    head = stage.get_submodule("exit")
    assert isinstance(head, PooledHead)
    return head


def _read_channels(head: PooledHead) -> Tensor:
    """Which channels any weight of ``head`` reads, bool ``[channels]``."""
    if head.conv is not None:
        return ((head.conv.weight != 0) & head.conv.mask).flatten(1).any(dim=0)
    reads = (head.linear.weight != 0) & head.linear.mask
    channels: Tensor = reads.unflatten(1, (-1, head.grid[0] * head.grid[1])).any(dim=2).any(dim=0)
    return channels


def _copy_head(old: PooledHead, new: PooledHead, channels: Tensor, places: Tensor) -> None:
    """Let ``new`` do with the channels at ``places`` what ``old`` does with ``channels``, and ignore the others."""
    if old.conv is not None and new.conv is not None:
        new.conv.weight.zero_()
        new.conv.weight[:, places] = (old.conv.weight * old.conv.mask)[:, channels]
        for module in ("norm", "linear"):
            _copy_part(old.get_submodule(module), new.get_submodule(module))
        new.linear.weight.copy_(old.linear.weight * old.linear.mask)
        new.share.copy_(old.share)
        return
    pixels = old.grid[0] * old.grid[1]
    # In place, through a view: an optimizer must find the same parameter.
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


def _make_identities(norms: Identities) -> None:
    for norm, places in norms.items():
        norm.weight[places] = (norm.get_buffer("running_var")[places] + norm.eps).sqrt()
        norm.bias[places] = norm.get_buffer("running_mean")[places]


def check_pictures(network: Branching, images: Tensor | None) -> None:
    """Check that ``network`` can read ``images``.

    Raises:
        InputError: they have another shape, or there are none.
    """
    if images is not None and (images.shape[1:] != network.input_shape or len(images) == 0):
        shape = ", ".join(map(str, ("B", *network.input_shape)))
        raise InputError(f"images: got {list(images.shape)}; accepted: pictures [{shape}] in [0, 1], B > 0")


def measured(network: Branching, images: Tensor, norms: Iterable[nn.BatchNorm2d]) -> Statistics:
    """Mean and variance of the inputs of ``norms`` of ``network``, for ``images`` in evaluation mode."""
    statistics: Statistics = {}

    def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        # The variance by which training mode divides.
        statistics[norm] = (inputs[0].mean(dim=(0, 2, 3)), inputs[0].var(dim=(0, 2, 3), correction=0))

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    try:
        with keeping_modes(network), torch.no_grad():
            network.eval()(images.to(network.mean))
    finally:
        for hook in hooks:
            hook.remove()
    return statistics


def set_statistics(norm: nn.BatchNorm2d, places: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Set the running statistics of the channels at ``places``."""
    for key, value in (("running_mean", mean), ("running_var", variance)):
        running = norm.get_buffer(key)
        running[places] = value.to(running)


def can_copy(network: Network) -> str:
    """Why the stage that grows next cannot copy the last cell and its exit; empty if it can copy any of it."""
    if network.complete:
        return f"the network has all its {len(network.stages)} stages"
    index = len(network.stages)
    cells, existing = network.plans[index].cells, existing_cells(network)
    if not cells:
        return _why_heads_differ(network, index)
    if not existing:
        return "there is no cell before it"
    source = existing[-1][2]
    if any(mixes for cell in cells for mixes in _alike(source, cell).values()):
        return ""
    types = dict.fromkeys(cell.type for cell in cells)
    if source.type not in types:
        return f"its cells are {' and '.join(types)} and the last one before it is {source.type}"
    return f"no layer of its {' and '.join(types)} cells has the shape of one in the last cell before it"


def copy_previous(network: Network) -> None:
    """Let each cell of the newest stage start as the last cell before it, and its exit as the exit before it.

    A layer of another shape stays random. One that reads more of the trunk gets its weights for the newest channels and
    zeros for the others. Masks are not copied.
    """
    index = len(network.stages) - 1
    new, stage = network.plans[index], network.stages[index]
    earlier = [(name, cell) for at, name, cell in existing_cells(network) if at < index]
    with torch.no_grad():
        for cell, plan in zip(stage.get_submodule("cells").children(), new.cells, strict=True):
            name, source = earlier[-1]
            old = network.get_submodule(name)
            for part in _alike(source, plan):
                _copy_part(old.get_submodule(part), cell.get_submodule(part))
        if not _why_heads_differ(network, index):
            count = network.plans[index - 1].exit_channels
            channels = torch.arange(count, device=network.mean.device)
            before, after = _pooled_head(network.stages[index - 1]), _pooled_head(stage)
            _copy_head(before, after, channels, new.exit_channels - count + channels)
        for layer in masked_layers(stage).values():
            layer.weight.mul_(layer.mask)


def _alike(source: CellPlan, cell: CellPlan) -> dict[str, bool]:
    """The modules of ``cell`` that can start as those of ``source``, of the same type, and whether each mixes channels.

    A layer that reads the trunk may read more of it than the one in ``source``.
    """
    if cell.type != source.type or cell.squeeze != source.squeeze:
        return {}
    build: Callable[[CellPlan], Cell] = CELLS[cell.type]
    parts, source_parts = _parts(build, cell), _parts(build, source)

    def fits(new: _Size, old: _Size | None) -> bool:
        if old is None or new.columns != old.columns:
            return False
        more = new.columns > 0 and cell.in_channels > source.in_channels
        return new.shape == old.shape or (more and new.shape[:1] + new.shape[2:] == old.shape[:1] + old.shape[2:])

    return {
        name: part.mixes
        for name, part in parts.items()
        if name in source_parts
        and all(fits(size, source_parts[name].sizes.get(key)) for key, size in part.sizes.items())
    }


class _Size(NamedTuple):
    """The shape of a parameter, and how many of its columns read one channel of the trunk."""

    shape: tuple[int, ...]
    columns: int


class _Part(NamedTuple):
    """A module of a cell with parameters of its own: whether it mixes channels, and the size of each."""

    mixes: bool
    sizes: dict[str, _Size]


@lru_cache(maxsize=256)
def _parts(build: Callable[[CellPlan], Cell], plan: CellPlan) -> dict[str, _Part]:
    # Twice the width shows which shapes depend on the trunk.
    cell, wider = sized(plan), sized(replace(plan, in_channels=2 * plan.in_channels))
    parameters = dict(wider.named_parameters())
    parts: dict[str, _Part] = {}
    for name, module in cell.named_modules():
        mixes = isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
        sizes: dict[str, _Size] = {}
        for key, value in module.named_parameters(recurse=False):
            wide = parameters.get(f"{name}.{key}", value)
            columns = (wide.shape[1] - value.shape[1]) // plan.in_channels if value.dim() > 1 else 0
            sizes[key] = _Size(tuple(value.shape), columns)
        if sizes:
            parts[name] = _Part(mixes, sizes)
    return parts


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of ``module`` itself, except masks."""
    tensors = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
    return {key: value for key, value in tensors.items() if key != "mask"}


def _copy_part(old: nn.Module, new: nn.Module) -> None:
    """Copy the tensors of ``old``, except masks; where ``new`` has more columns they go to the last ones."""
    tensors = _tensors(old)
    for key, value in _tensors(new).items():
        if value.shape == tensors[key].shape:
            value.copy_(tensors[key])
        else:
            value.zero_()
            value[:, -tensors[key].shape[1] :] = tensors[key]
