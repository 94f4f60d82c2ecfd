"""Widening: the cells of a stage gain inner channels in training, and the function of the network stays."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ramify.errors import InputError
from ramify.nn.branching import Branching
from ramify.nn.graph import ChannelGroup
from ramify.nn.masked import Masked, MaskedConv2d, masked_layers
from ramify.nn.resize import rows_of, set_size
from ramify.ops.growing.inherit import check_pictures, measured, set_statistics
from ramify.ops.pruning.channels import mask_dead_inputs, owner
from ramify.ops.surgery import check_followers, replace_parameter, set_masks
from ramify.seeds import drawing

WideningInit = Literal["random", "copy"]
"""How new inner channels start."""


@dataclass(frozen=True)
class Widening:
    """The report of one widening.

    Attributes:
        stage: index of the stage, from 0.
        cells: the inner channels of each of its cells before and after, by the cell's name.
        parameters: how many parameters it added, batch norm included.
        weights: how many unmasked convolution weights it added.
        init: how the new channels started.
    """

    stage: int
    cells: dict[str, tuple[int, int]]
    parameters: int
    weights: int
    init: WideningInit


@dataclass(frozen=True)
class _NewChannels:
    """The inner channels that one cell gains: random ones are ``drawn``, by the layer that makes them.

    Copies have the inner channel that each copies, and its share of that channel's weights in the next layer.
    """

    count: int
    drawn: dict[str, Tensor]
    sources: Tensor
    shares: Tensor


def widen(
    network: Branching,
    stage: int,
    channels: int,
    optimizer: Optimizer | None = None,
    *,
    init: WideningInit = "random",
    seed: int | None = None,
    images: Tensor | None = None,
    followers: Sequence[nn.Module] = (),
) -> Widening:
    """Add inner channels to every cell of a stage; the network's answers stay, but for rounding.

    New channels start

    - ``random``: with He normal weights, and weights of zero in the next layer, which learns first. Weights that would
      read a pruned channel are masked;
    - ``copy``: as copies of live channels, masks included (Net2WiderNet, arXiv:1511.05641), each once before any is
      taken twice. A copy takes between a quarter and three quarters of its source's weights in the next layer, so that
      the two do not stay equal.

    Rows of the next layer that are masked altogether stay so. The optimizer state of old weights stays, bit for bit,
    and is zero for new channels. ``network.plans`` gets the new widths, so that the network is saved and rebuilt with
    them.

    Args:
        network: in any stage of growth.
        stage: a stage, counted from 0, of cells with inner channels of their own: ``basic``, ``preactivation``,
            ``depthwise`` and ``compact``.
        channels: how many each of its cells gains.
        optimizer: any ``torch.optim`` optimizer over the network's parameters, or None.
        init: how new channels start.
        seed: seed of the new weights, or of which channels are copied; None draws from PyTorch's generator.
        images: for ``random``, pictures ``[B, C, H, W]`` in [0, 1] on which the statistics of the new channels' batch
            norms are measured. Without, they start at 0 and 1.
        followers: networks with the same stages, such as the ``module`` of a
            ``torch.optim.swa_utils.AveragedModel``, that are widened alike.

    Raises:
        InputError: there is no such stage, its cells have no inner channels of their own, none to copy, or
            ``channels``, ``images`` or ``followers`` do not fit.

    Example:
        >>> from ramify.config.rules import NetworkConfig
        >>> from ramify.nn.network import Network
        >>> network = Network(NetworkConfig(structure=(1, 0), channels=4, input_shape=(1, 8, 8), classes=10))
        >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        >>> widen(network, 0, 2, optimizer).cells, network.plans[0].cells[0].inner_channels
        ({'stages.0.cells.0': (4, 6)}, 6)
    """
    spaces = _spaces(network, stage, channels, init)
    check_pictures(network, images)
    networks = (network, *check_followers(network, followers))
    before = _size(network.stages[stage])
    choose = _draw if init == "random" else _choose_copies
    with drawing(seed, "widen", stage, *(space.width for space in spaces)):
        for space in spaces:
            new = choose(network, space, channels)
            for module in networks:
                _widen_space(module, space, new, optimizer if module is network else None)
    for module in networks:
        module.note_widths(stage, channels)
    if init == "random":
        _settle(networks, stage, channels, spaces, images)
    after = _size(network.stages[stage])
    return Widening(
        stage=stage,
        cells={space.name: (space.width, space.width + channels) for space in spaces},
        parameters=after[0] - before[0],
        weights=after[1] - before[1],
        init=init,
    )


@dataclass(frozen=True)
class _Space:
    """Channels side by side in the same layers.

    Attributes:
        name: of the module with these layers, such as a cell.
        width: how many there are.
        makers, filters, readers, norms: names of the layers that make, filter and read them, and of the batch norms on
            the way.
        rows: names of all layers with a row for each channel: those that make, filter and gate them.
    """

    name: str
    width: int
    makers: tuple[str, ...]
    filters: tuple[str, ...]
    rows: tuple[str, ...]
    readers: tuple[str, ...]
    norms: tuple[str, ...]


def _spaces(network: Branching, stage: int, channels: int, init: str) -> list[_Space]:
    """The spaces of a stage that can be widened.

    Raises:
        InputError: there are none, or an argument is out of range.
    """
    if stage not in range(len(network.stages)):
        raise InputError(f"widen: got stage {stage + 1}; accepted: stages 1 to {len(network.stages)}, which exist")
    if channels < 1:
        raise InputError(f"widen: got {channels} channels; accepted: a whole number >= 1")
    if init not in get_args(WideningInit):
        raise InputError(f"widen: got init {init}; accepted: {', '.join(get_args(WideningInit))}")
    obstacle = network.why_not_widened(stage)
    by_space: dict[tuple[str, ...], list[ChannelGroup]] = {}
    for group in network.inner_groups(stage):
        if _is_inner(network, stage, group):
            by_space.setdefault(group.space, []).append(group)
    # Channels are added behind the last row and column, so layers must have no others.
    spaces = [_space(network, groups) for groups in by_space.values() if _fills(network, groups)]
    if obstacle or not spaces:
        reason = obstacle or "in which no channels lie between two layers alone"
        raise InputError(
            f"widen: got stage {stage + 1}, {reason}; accepted: one with channels that only its own layers make and "
            "read, such as a stage of basic, preactivation, depthwise or compact cells"
        )
    return spaces


def _is_inner(network: Branching, stage: int, group: ChannelGroup) -> bool:
    """Whether a group is one channel between layers of a stage, which nothing else reads or makes."""
    layers = {place.name for place in (*group.makers, *group.filters, *group.gates, *group.readers)}
    scales = {vector.name.rpartition(".")[0] for vector in group.vectors} - layers
    places = (*group.makers, *group.filters, *group.gates, *group.readers, *group.vectors)
    return (
        not group.carried
        and all(len(place.at) == 1 for place in places)
        and all(name.startswith(f"stages.{stage}.") and ".exit." not in name for name in layers)
        and all(isinstance(network.get_submodule(name), nn.BatchNorm2d) for name in scales)
    )


def _fills(network: Branching, groups: Sequence[ChannelGroup]) -> bool:
    """Whether the channels are all rows and columns of the layers that make and read them."""
    first, count = groups[0], len(groups)
    rows = (*first.makers, *first.filters, *first.gates)
    layers = masked_layers(network)
    return all(len(layers[place.name].weight) == count for place in rows) and all(
        layers[place.name].weight.shape[1] == count for place in first.readers
    )


def _space(network: Branching, groups: Sequence[ChannelGroup]) -> _Space:
    first = groups[0]
    norms = dict.fromkeys(vector.name.rpartition(".")[0] for vector in first.vectors)
    makers, filters, gates, readers = (
        tuple(place.name for place in part) for part in (first.makers, first.filters, first.gates, first.readers)
    )
    batch_norms = tuple(name for name in norms if isinstance(network.get_submodule(name), nn.BatchNorm2d))
    return _Space(owner(first), len(groups), makers, filters, makers + filters + gates, readers, batch_norms)


def _layer(network: nn.Module, name: str) -> Masked:
    return masked_layers(network)[name]


def _draw(network: Branching, space: _Space, count: int) -> _NewChannels:
    """New rows for the layers that make, filter or gate the channels, drawn as for a layer of the new width."""
    drawn: dict[str, Tensor] = {}
    for name in space.rows:
        old = _layer(network, name)
        rows, *shape = len(old.weight) + count, *old.weight.shape[1:]
        fan_out = math.prod(shape[1:]) * (1 if name in space.filters else rows)
        std = (2 / fan_out) ** 0.5 if isinstance(old, MaskedConv2d) else old.in_features**-0.5
        drawn[name] = nn.init.normal_(torch.empty(rows, *shape), std=std)[-count:]
    return _NewChannels(count, drawn, torch.zeros(0, dtype=torch.int64), torch.zeros(0))


def _choose_copies(network: Branching, space: _Space, count: int) -> _NewChannels:
    """The channels to copy, and the shares of their weights in the next layer that the copies take."""
    made, read = (torch.zeros(space.width, dtype=torch.bool) for _ in range(2))
    for name in space.makers:
        made |= _layer(network, name).mask.cpu().flatten(1).any(dim=1)
    for name in space.readers:
        read |= _layer(network, name).mask.cpu().transpose(0, 1).flatten(1).any(dim=1)
    live = (made & read).nonzero()[:, 0]
    if len(live) == 0:
        raise InputError(f"widen: got init copy, but all inner channels of {space.name} are pruned; accepted: random")
    rounds = -(-count // len(live))
    sources = torch.cat([live[torch.randperm(len(live))] for _ in range(rounds)])[:count]
    fractions = torch.empty(count).uniform_(0.25, 0.75).tolist()
    left = [1.0] * space.width
    shares: list[float] = []
    for source, fraction in zip(sources.tolist(), fractions, strict=True):
        shares.append(left[source] * fraction)
        left[source] -= shares[-1]
    return _NewChannels(count, {}, sources, torch.tensor(shares, dtype=torch.float64))


def _widen_space(network: Branching, space: _Space, new: _NewChannels, optimizer: Optimizer | None) -> None:
    for name in (*space.rows, *space.norms):
        _add_rows(network.get_submodule(name), new, new.drawn.get(name), optimizer)
    for name in space.readers:
        _add_columns(_layer(network, name), new, optimizer)


def _add_rows(module: nn.Module, new: _NewChannels, drawn: Tensor | None, optimizer: Optimizer | None) -> None:
    """Add new channels to a layer that makes, filters or gates them, or to a batch norm."""
    old = rows_of(module)
    width, sources = len(old), new.sources.to(old.device)
    starts = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0, "mask": True}
    for key, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        if value.dim() == 0:  # num_batches_tracked
            continue
        if len(sources):
            rows = value.detach()[sources]
        elif key == "weight" and drawn is not None:
            rows = drawn.to(value)
        else:
            rows = torch.full_like(value[:1], starts[key]).expand(new.count, *value.shape[1:])
        _set(module, key, torch.cat((value.detach(), rows)), 0, optimizer)
    set_size(module, width, 0)


def _add_columns(layer: Masked, new: _NewChannels, optimizer: Optimizer | None) -> None:
    """Let a layer read new channels without changing its output."""
    weight, mask, sources = layer.weight.detach(), layer.mask, new.sources.to(layer.weight.device)
    kernel = weight.shape[2:]
    ones = (1,) * len(kernel)
    if len(sources):
        columns = weight[:, sources] * new.shares.to(weight.dtype).to(weight.device).view(-1, *ones)
        # The source keeps the difference, so that the sum is the old weight but for rounding.
        weight = weight.index_add(1, sources, columns, alpha=-1)
        masks = mask[:, sources]
    else:
        columns = torch.zeros_like(weight[:, :1]).expand(-1, new.count, *kernel)
        # A row that is masked altogether stays so.
        masks = mask.flatten(1).any(dim=1).view(-1, 1, *ones).expand_as(columns)
    _set(layer, "weight", torch.cat((weight, columns), dim=1), 1, optimizer)
    _set(layer, "mask", torch.cat((mask, masks), dim=1), 1, optimizer)
    set_size(layer, len(weight), 1)


def _set(module: nn.Module, key: str, value: Tensor, dim: int, optimizer: Optimizer | None) -> None:
    """Set a parameter or buffer that has grown along ``dim``; the optimizer state of new channels is zero."""
    old = getattr(module, key)
    if not isinstance(old, nn.Parameter):
        setattr(module, key, value)
        return
    parameter = nn.Parameter(value, requires_grad=old.requires_grad)
    setattr(module, key, parameter)
    if optimizer is not None:
        added = [*old.shape]
        added[dim] = value.shape[dim] - old.shape[dim]
        replace_parameter(optimizer, old, parameter, lambda kept: torch.cat((kept, kept.new_zeros(added)), dim))


def _settle(
    networks: Sequence[Branching], stage: int, channels: int, spaces: Sequence[_Space], images: Tensor | None
) -> None:
    """Mask weights of new channels that read dead ones, and measure the statistics of new channels on ``images``.

    The first of ``networks`` says which; the others follow it.
    """
    network = networks[0]
    if any(not layer.mask.all() for layer in masked_layers(network).values()):
        # Old weights may use the constant of a dead channel, so only new ones are masked.
        draft = copy.deepcopy(network)
        mask_dead_inputs(draft, stage)
        masks: dict[str, Tensor] = {}
        for name in (name for space in spaces for name in space.rows):
            masks[name] = _layer(network, name).mask.clone()
            masks[name][-channels:] = _layer(draft, name).mask[-channels:]
        for module in networks:
            set_masks(module, masks)
    if images is None:
        return
    # The input of a second norm depends on the statistics of the first.
    for depth in range(max(len(space.norms) for space in spaces)):
        norms = {_norm(network, space.norms[depth]): space.norms[depth] for space in spaces if depth < len(space.norms)}
        statistics = {norms[norm]: values for norm, values in measured(network, images, norms).items()}
        for module in networks:
            for name, (mean, variance) in statistics.items():
                norm = _norm(module, name)
                places = torch.arange(norm.num_features - channels, norm.num_features)
                set_statistics(norm, places, mean[-channels:], variance[-channels:])


def _norm(network: nn.Module, name: str) -> nn.BatchNorm2d:
    norm = network.get_submodule(name)
    assert isinstance(norm, nn.BatchNorm2d)
    return norm


def _size(stage: nn.Module) -> tuple[int, int]:
    """Parameters, and weights that are not masked."""
    parameters = sum(parameter.numel() for parameter in stage.parameters())
    return parameters, sum(int(layer.mask.sum()) for layer in masked_layers(stage).values())
