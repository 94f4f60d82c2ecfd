"""Widening: the cells of a stage gain inner channels while the network trains, and its function stays."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ramify.errors import InputError
from ramify.nn.branching import Branching
from ramify.nn.graph import ChannelGroup
from ramify.nn.masked import Masked, MaskedConv2d, MaskedLinear, masked_layers
from ramify.ops.growing.inherit import check_pictures, measured, set_statistics
from ramify.ops.pruning.channels import mask_dead_inputs, owner
from ramify.ops.surgery import check_followers, replace_parameter, set_masks
from ramify.seeds import drawing

WideningInit = Literal["random", "copy"]
"""How new inner channels start."""


@dataclass(frozen=True)
class Widening:
    """What one widening did.

    Attributes:
        stage: index of the stage, from 0.
        cells: the inner channels of each of its cells before and after, by the cell's name.
        parameters: how many parameters it added, batch norm included.
        weights: how many convolution weights it added, masked ones left out.
        init: how the new channels started.
    """

    stage: int
    cells: dict[str, tuple[int, int]]
    parameters: int
    weights: int
    init: WideningInit


@dataclass(frozen=True)
class _Newcomers:
    """The inner channels that one cell gains.

    Attributes:
        count: how many.
        drawn: for random ones, the weights that make them, by the name of the layer in the cell.
        sources: for copies, the inner channel that each copies.
        shares: for copies, what part of its source's weights in the next layer each takes over.
    """

    count: int
    drawn: dict[str, Tensor]
    sources: Tensor
    shares: Tensor


def widen(
    network: Branching,
    stage: int,
    channels: int,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    init: WideningInit = "random",
    seed: int | None = None,
    images: Tensor | None = None,
    followers: Sequence[nn.Module] = (),
) -> Widening:
    """Add inner channels to every cell of a stage; what the network answers stays, but for rounding.

    Newcomers start

    - ``random``: with weights redrawn (He normal), which the next layer reads with weights of zero, so it learns
      first. They are masked where they would read a channel that pruning has taken away;
    - ``copy``: as copies of channels that matter, masks included, no channel twice before each was taken once
      (Net2WiderNet, arXiv:1511.05641). A copy takes over between a quarter and three quarters of its source's weights
      in the next layer, so that the two do not stay twins.

    The weights that the next layer has for them are masked where it gives nothing at all. Optimizers go on: what they
    keep about the weights that were there stays, bit for bit, and is zero for new channels. ``network.plans`` has the
    new widths, so that the network is saved and rebuilt with them.

    Args:
        network: in any stage of growth.
        stage: a stage, counted from 0, of cells with inner channels of their own: ``basic``, ``preactivation``,
            ``depthwise`` and ``compact``.
        channels: how many each of its cells gains.
        optimizer: any ``torch.optim`` optimizer over the network's parameters, or None.
        init: how new channels start.
        seed: seed of the new weights, or of which channels are copied; None draws from PyTorch's generator.
        images: for ``random``, pictures ``[B, C, H, W]`` in [0, 1], on which the statistics of the new channels' batch
            norms are measured. Without, they start at 0 and 1.
        followers: networks with the same stages, such as the ``module`` of a
            ``torch.optim.swa_utils.AveragedModel``, that are widened alike; their functions stay as well.

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
    following = check_followers(network, followers)
    before = _size(network.stages[stage])
    choose = _draw if init == "random" else _choose_copies
    with drawing(seed, "widen", stage, *(space.width for space in spaces)):
        for space in spaces:
            new = choose(network, space, channels)
            for each in (network, *following):
                _widen_space(each, space, new, optimizer if each is network else None)
    for each in (network, *following):
        each.note_widths(stage, channels)
    if init == "random":
        _settle(network, stage, channels, spaces, images, following)
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
    """Channels that lie side by side in the same layers.

    Attributes:
        name: of the module that holds these layers, such as a cell.
        width: how many there are.
        makers, filters, gates, readers, norms: names of the layers that make, pass, gate and read them, and of the
            batch norms on the way.
    """

    name: str
    width: int
    makers: tuple[str, ...]
    filters: tuple[str, ...]
    gates: tuple[str, ...]
    readers: tuple[str, ...]
    norms: tuple[str, ...]

    @property
    def rows(self) -> tuple[str, ...]:
        """The layers that have a row for each channel."""
        return self.makers + self.filters + self.gates


def _spaces(network: Branching, stage: int, channels: int, init: str) -> list[_Space]:
    """What can be widened in a stage.

    Raises:
        InputError: nothing can be.
    """
    there = len(network.stages)
    if stage not in range(there):
        raise InputError(f"widen: got stage {stage + 1}; accepted: stages 1 to {there}, which exist")
    if channels < 1:
        raise InputError(f"widen: got {channels} channels; accepted: a whole number >= 1")
    if init not in get_args(WideningInit):
        raise InputError(f"widen: got init {init}; accepted: {', '.join(get_args(WideningInit))}")
    obstacle = network.why_not_widened(stage)
    found: dict[tuple[str, ...], list[ChannelGroup]] = {}
    for group in network.inner_groups(stage):
        if _is_inner(network, stage, group):
            found.setdefault(group.space, []).append(group)
    # Of layers that nothing else shares: channels are added behind the last row and column.
    found = {space: groups for space, groups in found.items() if _fills(network, groups)}
    if obstacle or not found:
        reason = obstacle or "in which no channels lie between two layers alone"
        raise InputError(
            f"widen: got stage {stage + 1}, {reason}; accepted: one with channels that only its own layers make and "
            "read, such as a stage of basic, preactivation, depthwise or compact cells"
        )
    return [_space(network, groups) for groups in found.values()]


def _is_inner(network: Branching, stage: int, group: ChannelGroup) -> bool:
    """Whether a group is one channel between layers of a stage, and nothing else knows of it."""
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
    """Whether channels are all rows and columns of the layers that make and read them."""
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
    return _Space(owner(first), len(groups), makers, filters, gates, readers, batch_norms)


def _layer(network: nn.Module, name: str) -> Masked:
    return masked_layers(network)[name]


def _draw(network: Branching, space: _Space, count: int) -> _Newcomers:
    """New rows for the layers that make, filter or gate the channels, as those of a layer of the new width start."""
    drawn: dict[str, Tensor] = {}
    for name in space.rows:
        old = _layer(network, name)
        fresh: Masked
        if isinstance(old, MaskedConv2d):
            rows, filters = old.out_channels + count, name in space.filters
            fresh = MaskedConv2d(
                rows if filters else old.in_channels, rows, old.kernel_size[0], groups=rows if filters else 1
            )
        else:
            fresh = MaskedLinear(old.in_features, old.out_features + count)
        drawn[name] = fresh.weight.detach()[-count:]
    return _Newcomers(count, drawn, torch.zeros(0, dtype=torch.int64), torch.zeros(0))


def _choose_copies(network: Branching, space: _Space, count: int) -> _Newcomers:
    """Which channels are copied, and what part of their weights in the next layer the copies take over."""
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
    return _Newcomers(count, {}, sources, torch.tensor(shares, dtype=torch.float64))


def _widen_space(network: Branching, space: _Space, new: _Newcomers, optimizer: torch.optim.Optimizer | None) -> None:
    for name in (*space.rows, *space.norms):
        _add_rows(network.get_submodule(name), new, new.drawn.get(name), optimizer)
    for name in space.readers:
        _add_columns(_layer(network, name), new, optimizer)


def _add_rows(
    module: nn.Module, new: _Newcomers, drawn: Tensor | None, optimizer: torch.optim.Optimizer | None
) -> None:
    """Let a layer make, filter or gate new channels as well, or a batch norm pass them."""
    sources = new.sources.to(next(module.parameters()).device)
    starts = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0, "mask": True}
    for key, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        if value.dim() == 0:  # how many batches it has seen
            continue
        if len(sources):
            rows = value.detach()[sources]
        elif key == "weight" and drawn is not None:
            rows = drawn.to(value)
        else:
            rows = torch.full_like(value[:1], starts[key]).expand(new.count, *value.shape[1:])
        _set(module, key, torch.cat((value.detach(), rows)), 0, optimizer)
    if isinstance(module, nn.BatchNorm2d):
        module.num_features += new.count
    elif isinstance(module, MaskedLinear):
        module.out_features += new.count
    else:
        assert isinstance(module, MaskedConv2d)
        module.out_channels += new.count
        if module.groups > 1:  # each channel is filtered by itself
            module.in_channels += new.count
            module.groups += new.count


def _add_columns(layer: Masked, new: _Newcomers, optimizer: torch.optim.Optimizer | None) -> None:
    """Let a layer read new channels, so that it gives what it gave."""
    weight, mask, sources = layer.weight.detach(), layer.mask, new.sources.to(layer.weight.device)
    kernel = weight.shape[2:]
    ones = (1,) * len(kernel)
    if len(sources):
        columns = weight[:, sources] * new.shares.to(weight.dtype).to(weight.device).view(-1, *ones)
        # What is left to a source is a difference, so that its sum with the copies' is the old weight but for rounding.
        weight = weight.index_add(1, sources, columns, alpha=-1)
        masks = mask[:, sources]
    else:
        columns = torch.zeros_like(weight[:, :1]).expand(-1, new.count, *kernel)
        # A row that is pruned away stays so.
        masks = mask.flatten(1).any(dim=1).view(-1, 1, *ones).expand_as(columns)
    _set(layer, "weight", torch.cat((weight, columns), dim=1), 1, optimizer)
    _set(layer, "mask", torch.cat((mask, masks), dim=1), 1, optimizer)
    if isinstance(layer, MaskedLinear):
        layer.in_features += new.count
    else:
        layer.in_channels += new.count


def _set(module: nn.Module, key: str, value: Tensor, dim: int, optimizer: torch.optim.Optimizer | None) -> None:
    """Set a parameter or buffer that has grown along ``dim``; what ``optimizer`` keeps of new channels is zero."""
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
    network: Branching,
    stage: int,
    channels: int,
    spaces: Sequence[_Space],
    images: Tensor | None,
    following: Sequence[Branching],
) -> None:
    """Mask what random new channels read of dead ones, and measure what they give on ``images``."""
    if any(not layer.mask.all() for layer in masked_layers(network).values()):
        # Weights that were there may read a dead channel's constant: only those of new channels are masked.
        draft = copy.deepcopy(network)
        mask_dead_inputs(draft, stage)
        masks: dict[str, Tensor] = {}
        for name in (name for space in spaces for name in space.rows):
            masks[name] = _layer(network, name).mask.clone()
            masks[name][-channels:] = _layer(draft, name).mask[-channels:]
        for each in (network, *following):
            set_masks(each, masks)
    if images is None:
        return
    # What a second norm reads of a new channel depends on the statistics of the first.
    for depth in range(max(len(space.norms) for space in spaces)):
        norms = {_norm(network, space.norms[depth]): space.norms[depth] for space in spaces if depth < len(space.norms)}
        statistics = {norms[norm]: found for norm, found in measured(network, images, norms).items()}
        for each in (network, *following):
            for name, (mean, variance) in statistics.items():
                norm = _norm(each, name)
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
