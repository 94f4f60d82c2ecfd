"""Compaction: channels that provably do not matter are taken out, and the network is smaller in fact.

A masked weight still costs a multiplication; a channel that is gone costs nothing. Nothing is folded or
approximated: what stays are slices of the same tensors.
"""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.errors import RunError
from ramify.nn.cells import CellPlan
from ramify.nn.masked import MaskedConv2d, MaskedLinear, masked_layers
from ramify.nn.network import Network, StagePlan
from ramify.ops.channels import (
    WIRING,
    Channel,
    Consumer,
    Part,
    Space,
    cell_width,
    channels,
    existing_cells,
    head_parts,
    head_width,
    stem_channels,
    without,
)
from ramify.ops.cost import Cost, cost
from ramify.ops.surgery import replace_parameter
from ramify.seeds import generator

TOLERANCE = 1e-5
"""How far logits may differ, as a part of the largest of them or of 1."""

PICTURES = 32

_Kept = dict[tuple[str, str], Tensor]
"""Which channels stay, bool ``[channels]``, by the name of the cell and the kind of channel."""

_Cuts = dict[str, tuple[Tensor | None, Tensor | None]]
"""Which rows and columns of a module's tensors stay, by its name; None for all."""


@dataclass(frozen=True)
class Compaction:
    """The receipt of one compaction.

    Attributes:
        before, after: cost of each exit, shallowest first.
        cells: for each cell by name its inner channels before and after, and its outputs before and after; the inner
            ones of a cell that has none of its own are those it reads (``separable``) or its outputs.
        removed: how many channels were taken out.
        flushed: numbers too small for a normal float32 that became 0; they slow processors down and change nothing.
        difference: largest absolute difference between the logits of the two networks in evaluation mode on a
            seeded batch of 32 random pictures. It is taken in float64, where a fault of the proof shows and the
            rounding of float32, which depends on the sizes of the layers, does not.
    """

    before: tuple[Cost, ...]
    after: tuple[Cost, ...]
    cells: dict[str, tuple[int, int, int, int]]
    removed: int
    flushed: int
    difference: float

    @property
    def changed(self) -> bool:
        """Whether the compacted network is another one: a channel was taken out, or a number flushed."""
        return self.removed > 0 or self.flushed > 0


def compact(network: Network, optimizer: torch.optim.Optimizer | None = None) -> tuple[Network, Compaction]:
    """A copy of ``network`` without the channels that provably do not matter in evaluation mode, and the receipt.

    Of the channels that a cell can lose (:func:`ramify.ops.channels.channels`) one goes if

    - all weights that read it are masked, or
    - all weights that make it are masked, and its batch norms, or the biases of its layers, then give exactly 0 behind
      the ReLU, where there is one, in evaluation mode. A reader that it reaches through a batch norm of its own, as in
      ``separable`` cells and ``normed`` heads, must get exactly 0 from that one too. Such a reader also gets nothing if
      its filter for the channel is masked, whatever makes the channel.

    This repeats until nothing more goes, since a channel's last reader may go itself; each cell keeps one inner
    channel and one output. The copy has the masks, device, precision and mode of ``network``, which stays as it is;
    it can be saved, trained, grown and compacted again. A channel that gave 0 in evaluation mode alone may be missed
    in training mode.

    Args:
        network: any network; its parameters stay its own.
        optimizer: over the parameters of ``network``; it then has those of the copy in their place, in the same
            groups, and keeps of their momentum and moments what belongs to the weights that stay, bit for bit. It
            trains ``network`` no more. Without it, the copy needs an optimizer of its own.

    Raises:
        RunError: the logits of the copy are not those of ``network``; this would be a fault of ramify.

    Example:
        >>> from ramify.config import NetworkConfig
        >>> from ramify.ops.channels import mask_channels, silence
        >>> from ramify.ops.surgery import set_masks
        >>> network = Network(NetworkConfig(structure=(1,), channels=4, input_shape=(1, 8, 8), classes=2))
        >>> lost = channels(network)[:3]
        >>> set_masks(network, mask_channels(network, lost))
        >>> silence(network, *lost)
        >>> small, receipt = compact(network)
        >>> receipt.cells, receipt.before[-1].kept == receipt.after[-1].weights
        ({'stages.0.cells.0': (4, 1, 4, 4)}, True)
        >>> compact(small)[1].changed
        False
    """
    kept = _kept_channels(network)
    plans, cuts = _cut(network, kept)
    small, flushed = _rebuilt(network, plans, cuts)
    large_twin, small_twin = _precise(network), _precise(small)
    receipt = Compaction(
        before=tuple(cost(large_twin)),
        after=tuple(cost(small_twin)),
        cells={
            name: (old.inner_channels, new.inner_channels, old.out_channels, new.out_channels)
            for (_, name, old), (_, _, new) in zip(existing_cells(network), existing_cells(small), strict=True)
        },
        removed=sum(int((~stays).sum()) for stays in kept.values()),
        flushed=flushed,
        difference=_difference(large_twin, small_twin),
    )
    if optimizer is not None:
        _hand_over(optimizer, network, small, cuts)
    return small, receipt


def _kept_channels(network: Network) -> _Kept:
    """The channels that stay when everything removable is gone."""
    left = channels(network)
    kept: _Kept = {}
    for group, count in Counter(_group(channel) for channel in left).items():
        kept[group] = torch.ones(count, dtype=torch.bool)
    made = {_group(channel): ((*channel.producers, *channel.norms), channel.rectified) for channel in left}
    silence = {group: _gives_nothing(network, names, rectified) for group, (names, rectified) in made.items()}
    relays = {consumer.relay.norm for channel in left for consumer in channel.consumers if consumer.relay is not None}
    quiet = {name: _gives_nothing(network, [name], rectified=True) for name in relays}
    masks = {name: layer.mask for name, layer in masked_layers(network).items()}
    while going := _removable(left, masks, silence, quiet):
        for channel in going:
            kept[_group(channel)][channel.index] = False
        # What a channel that is gone made and read is gone too, so others may follow it.
        masks = without(masks, going)
        left = [channel for channel in left if kept[_group(channel)][channel.index]]
    return kept


def _group(channel: Channel) -> tuple[str, str]:
    return channel.cell, channel.kind


def _removable(
    left: Sequence[Channel],
    masks: dict[str, Tensor],
    silence: dict[tuple[str, str], list[bool]],
    quiet: dict[str, list[bool]],
) -> list[Channel]:
    """Those of the channels ``left`` that do not matter, but for the first of a cell that would lose its last.

    ``silence`` and ``quiet`` say which channels are 0 where none of their weights is left, and which batch norms on
    the way to a reader give 0 where they read 0.
    """
    rows = {name: mask.flatten(1).any(dim=1).tolist() for name, mask in masks.items()}
    columns = {name: mask.transpose(0, 1).flatten(1).any(dim=1).tolist() for name, mask in masks.items()}

    def gets_something(consumer: Consumer, zero: bool) -> bool:
        """Whether a reader, which may be masked, gets anything but 0 of a channel that is ``zero`` or is not."""
        if not any(columns[consumer.layer][consumer.start : consumer.end]):
            return False
        relay = consumer.relay
        if relay is None:
            return not zero
        zero = zero or (relay.filter is not None and not rows[relay.filter][relay.place])
        return not (zero and quiet[relay.norm][relay.place])

    def matters(channel: Channel) -> bool:
        made = any(rows[name][channel.index] for name in channel.producers)
        zero = not made and silence[_group(channel)][channel.index]
        return any(gets_something(consumer, zero) for consumer in channel.consumers)

    going = [channel for channel in left if not matters(channel)]
    spare = Counter(map(_group, left))
    spare.subtract(map(_group, going))
    found: list[Channel] = []
    for channel in going:
        if spare[_group(channel)] == 0:
            spare[_group(channel)] = 1
        else:
            found.append(channel)
    return found


def _gives_nothing(network: Network, names: Sequence[str], rectified: bool) -> list[bool]:
    """For each channel, whether the modules ``names`` together give 0, behind a ReLU if any, where they read 0.

    A batch norm gives what its statistics make of 0, a layer its bias, if it has one.
    """
    given = torch.stack([_at_zero(network.get_submodule(name)) for name in names])
    total = given.sum(dim=0)
    nothing: list[bool] = (total <= 0 if rectified else total == 0).tolist()
    return nothing


def _at_zero(module: nn.Module) -> Tensor:
    """What a batch norm or a masked layer gives for zeros, ``[channels]``, once its numbers are flushed.

    PyTorch's own batch norm computes it, so that the answer is what the network computes, to the last bit.
    """
    if not isinstance(module, nn.BatchNorm2d):
        assert isinstance(module, MaskedConv2d | MaskedLinear)
        # Without a bias it gives nothing, whatever its weights are.
        shift = torch.zeros_like(module.weight.flatten(1)[:, 0]) if module.bias is None else module.bias
        return _flushed(shift.detach())[0]
    assert module.running_mean is not None
    assert module.running_var is not None
    # As they will be once flushed: what is decided now must still hold then.
    mean, variance, scale, shift = (
        _flushed(value.detach())[0] for value in (module.running_mean, module.running_var, module.weight, module.bias)
    )
    zeros = torch.zeros(1, module.num_features, 1, 1, device=scale.device, dtype=scale.dtype)
    return F.batch_norm(zeros, mean, variance, scale, shift, training=False, eps=module.eps).flatten()


def _cut(network: Network, kept: _Kept) -> tuple[tuple[StagePlan, ...], _Cuts]:
    """The plans of all stages, those to come included, and what stays of the tensors of each module."""
    plans: list[StagePlan] = []
    cuts: _Cuts = {}

    def cut(owner: str, parts: Sequence[Part], spaces: Mapping[Space, Tensor], width: int) -> None:
        for part in parts:
            rows = None if part.rows is None else spaces[part.rows]
            columns = None if part.columns is None else spaces[part.columns].repeat_interleave(width)
            cuts[f"{owner}.{part.name}"] = (rows, columns)

    trunk = _all(stem_channels(network))
    for index, stage in enumerate(network.plans):
        cells: list[CellPlan] = []
        for i, cell in enumerate(stage.cells):
            name, wiring = f"stages.{index}.cells.{i}", WIRING[cell.type]
            out = kept.get((name, "output"), _all(cell.out_channels))
            spaces: dict[Space, Tensor] = {"trunk": trunk, "output": out}
            spaces["inner"] = kept.get((name, "inner"), _all(cell.inner_channels))
            cut(name, wiring.of(cell), spaces, cell_width(cell))
            left, inner, given = (int(spaces[space].sum()) for space in ("trunk", wiring.inner, "output"))
            cells.append(replace(cell, in_channels=left, inner_channels=inner, out_channels=given))
            trunk = torch.cat((trunk, out)) if network.config.kind == "dense" else out
        read = trunk[-stage.exit_channels :]
        cut(f"stages.{index}.exit", head_parts(stage), {"trunk": read}, head_width(stage))
        plans.append(replace(stage, cells=tuple(cells), exit_channels=int(read.sum())))
    return tuple(plans), cuts


def _all(count: int) -> Tensor:
    return torch.ones(count, dtype=torch.bool)


def _rebuilt(network: Network, plans: tuple[StagePlan, ...], cuts: _Cuts) -> tuple[Network, int]:
    """A network of ``plans`` with what stays of the tensors of ``network``, and how many numbers were flushed."""
    state: dict[str, Tensor] = {}
    flushed = 0
    for key, value in network.state_dict().items():
        state[key], count = _flushed(_sliced(value, key, cuts))
        flushed += count
    # The seed keeps PyTorch's generator out of it; assigning keeps device and precision.
    small = Network(network.config, stages=len(network.stages), seed=0, plans=plans)
    small.load_state_dict(state, strict=True, assign=True)
    for name, parameter in network.named_parameters():
        small.get_parameter(name).requires_grad_(parameter.requires_grad)
    for name, module in network.named_modules():
        small.get_submodule(name).training = module.training
    return small, flushed


def _sliced(value: Tensor, key: str, cuts: _Cuts) -> Tensor:
    """What stays of a tensor that belongs to the parameter or buffer ``key``."""
    rows, columns = cuts.get(key.rpartition(".")[0], (None, None))
    if rows is not None and value.dim() > 0:  # a batch norm also counts its batches
        value = value[rows]
    if columns is not None and value.dim() > 1:  # a bias has no columns
        value = value[:, columns]
    return value


def _hand_over(optimizer: torch.optim.Optimizer, network: Network, small: Network, cuts: _Cuts) -> None:
    """Give ``optimizer`` the parameters of ``small`` for those of ``network``, with what it keeps about them."""
    for name, parameter in network.named_parameters():

        def cut(tensor: Tensor, name: str = name) -> Tensor:
            return _sliced(tensor, name, cuts)

        replace_parameter(optimizer, parameter, small.get_parameter(name), cut)


def _flushed(value: Tensor) -> tuple[Tensor, int]:
    """A copy in which numbers too small for a normal float32 are 0, and how many these are."""
    if not value.is_floating_point():
        return value.clone(), 0
    tiny = (value != 0) & (value.abs() < torch.finfo(torch.float32).tiny)
    return value.masked_fill(tiny, 0), int(tiny.sum())


def _precise(network: Network) -> Network:
    """A copy in float64 and evaluation mode."""
    device = network.mean.device
    # MPS has no float64.
    return copy.deepcopy(network).to("cpu" if device.type == "mps" else device).double().eval()


def _difference(large: Network, small: Network) -> float:
    """Largest difference between the logits of two networks on random pictures.

    Raises:
        RunError: it is too large.
    """
    assert large.config.input_shape is not None
    draw = generator(0, "compact")
    pictures = torch.rand(PICTURES, *large.config.input_shape, generator=draw, dtype=torch.float64)
    with torch.no_grad():
        pictures = pictures.to(large.mean.device)
        expected, given = large(pictures), small(pictures)
    difference = float((given - expected).abs().max())
    accepted = TOLERANCE * max(1.0, float(expected.abs().max()))
    if not difference <= accepted:  # also where it is not a number
        raise RunError(
            f"compact: the logits of the compacted network differ by {difference:.3g} from those of the masked one; "
            f"accepted: up to {accepted:.3g}; the network was left as it is"
        )
    return difference
