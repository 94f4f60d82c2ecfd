"""Channels that a cell can lose: which weights make each, which read it, and how it goes silent.

The trunk is what the next cell reads: in ``dense`` wiring the stem's output and all cells' outputs side by side,
in a chain the last cell's output. What each type of cell reads and makes stands in :data:`WIRING`, and nowhere else.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ramify.nn.cell import CellPlan
from ramify.nn.masked import MaskedConv2d, MaskedLinear, masked_layers
from ramify.nn.network import Network, StagePlan, architecture
from ramify.ops.surgery import set_masks

Space = Literal["trunk", "inner", "output"]
"""Whose channels they are: what a cell reads, what lies between its layers, what it gives."""


@dataclass(frozen=True)
class Part:
    """A module of a cell, or of a head, with numbers for each channel.

    Attributes:
        name: its name in the cell.
        rows: whose channels the rows of its tensors are; None for logits.
        columns: whose channels its weights read; None if it does not mix channels, as a batch norm.
        norm: a batch norm, with ReLU, that these pass first.
        filter: a convolution of each channel by itself that they pass before that.
        gate: whether its rows are factors of channels that others make.
    """

    name: str
    rows: Space | None
    columns: Space | None = None
    norm: str | None = None
    filter: str | None = None
    gate: bool = False


@dataclass(frozen=True)
class Wiring:
    """How the parts of a cell hang together.

    Attributes:
        parts: all but its shortcut and its squeeze-and-excitation.
        shortcut: its shortcut, where it has one and projects.
        inner: whose channels ``inner_channels`` counts; a cell of one layer has none of its own.
        carries: what its shortcut adds to the outputs where it does not project.
        squeeze: its squeeze-and-excitation, where it has one.
        fixed: whether its inner channels come in groups, and none can be lost or added.
        rectified: whether its outputs have passed a ReLU.
    """

    parts: tuple[Part, ...]
    shortcut: tuple[Part, ...] = ()
    inner: Space = "inner"
    carries: Space | None = None
    squeeze: tuple[Part, ...] = ()
    fixed: bool = False
    rectified: bool = True

    def of(self, plan: CellPlan) -> tuple[Part, ...]:
        """The parts that the cell of ``plan`` has."""
        parts = self.parts + self.squeeze if plan.squeeze else self.parts
        return parts + self.shortcut if plan.projects else parts

    def carried(self, plan: CellPlan) -> Space | None:
        """What an identity shortcut adds to the outputs of the cell of ``plan``; None without one."""
        return None if plan.projects else self.carries

    def makers(self, plan: CellPlan, kind: Space) -> tuple[Part, ...]:
        """The parts that make the channels of a kind, batch norms behind their layers included.

        What a reader has them pass first belongs to the reader.
        """
        parts = self.of(plan)
        passed = {name for part in parts for name in (part.norm, part.filter)}
        return tuple(part for part in parts if part.rows == kind and not part.gate and part.name not in passed)


def _squeezed(norm: str | None = None, filter: str | None = None) -> tuple[Part, ...]:  # noqa: A002 - as Part has it
    """Squeeze-and-excitation of inner channels, which pass these first."""
    return Part("squeeze.reduce", None, "inner", norm, filter), Part("squeeze.expand", "inner", gate=True)


_TWO_LAYERS = (
    Part("conv1", "inner", "trunk"),
    Part("norm1", "inner"),
    Part("conv2", "output", "inner"),
    Part("norm2", "output"),
)

_PROJECTION = (Part("shortcut.0", "output", "trunk"), Part("shortcut.1", "output"))

WIRING: dict[str, Wiring] = {
    "basic": Wiring(_TWO_LAYERS, _PROJECTION, carries="trunk"),
    "skip_second": Wiring(
        _TWO_LAYERS, (Part("shortcut.0", "output", "inner"), Part("shortcut.1", "output")), carries="inner"
    ),
    "preactivation": Wiring(
        (
            Part("norm1", "trunk"),
            Part("conv1", "inner", "trunk", norm="norm1"),
            Part("norm2", "inner"),
            Part("conv2", "output", "inner"),
        ),
        (Part("shortcut", "output", "trunk"),),
        carries="trunk",
        rectified=False,
    ),
    "plain": Wiring((Part("conv", "output", "trunk"), Part("norm", "output")), inner="output"),
    "separable": Wiring(
        (
            Part("conv1", "trunk"),
            Part("norm1", "trunk"),
            Part("conv2", "output", "trunk", norm="norm1", filter="conv1"),
            Part("norm2", "output"),
        ),
        inner="trunk",
    ),
    "depthwise": Wiring(
        (
            Part("conv1", "trunk"),
            Part("norm1", "trunk"),
            Part("conv2", "inner", "trunk", norm="norm1", filter="conv1"),
            Part("norm2", "inner"),
            Part("conv3", "inner"),
            Part("norm3", "inner"),
            Part("conv4", "output", "inner", norm="norm3", filter="conv3"),
            Part("norm4", "output"),
        ),
        _PROJECTION,
        carries="trunk",
        squeeze=_squeezed("norm3", "conv3"),
    ),
    "grouped": Wiring(
        (
            Part("conv1", "inner", "trunk"),
            Part("norm1", "inner"),
            Part("conv2", "inner"),
            Part("norm2", "inner"),
            Part("conv3", "output", "inner"),
            Part("norm3", "output"),
        ),
        _PROJECTION,
        carries="trunk",
        squeeze=_squeezed(),
        fixed=True,
    ),
    "compact": Wiring(
        (
            Part("conv1", "inner", "trunk"),
            Part("norm1", "inner"),
            Part("conv2", "inner"),
            Part("norm2", "inner"),
            Part("conv3", "output", "inner", norm="norm2", filter="conv2"),
            Part("norm3", "output"),
        ),
        carries="trunk",
        squeeze=_squeezed("norm2", "conv2"),
        rectified=False,
    ),
    "unpadded": Wiring((Part("conv", "output", "trunk"),), inner="output"),
    "linear": Wiring((Part("linear", "output", "trunk"),), inner="output"),
}
"""For every type in :data:`ramify.nn.cell.CELLS` what its layers read and make."""


def head_parts(stage: StagePlan) -> tuple[Part, ...]:
    """The parts of the head of ``stage``; what it reads of the trunk is its trunk."""
    if stage.head == "normed":
        return Part("norm", "trunk"), Part("linear", None, "trunk", norm="norm")
    if stage.head == "conv":
        return (Part("conv", None, "trunk"),)
    return (Part("linear", None, "trunk"),)


def head_width(stage: StagePlan) -> int:
    """How many columns of a head read one channel: it flattens its pooled map channel by channel."""
    return 1 if stage.head == "conv" else stage.grid[0] * stage.grid[1]


def cell_width(cell: CellPlan) -> int:
    """How many columns of a cell's layer read one channel: a linear layer has one for each pixel."""
    return cell.area if cell.type == "linear" else 1


class Relay(NamedTuple):
    """What a channel passes on its way to a reader: perhaps a convolution by itself, then a batch norm with ReLU.

    Attributes:
        place: the channel's index in both.
        norm, filter: names of the batch norm, and of the convolution ``weight[place]`` if there is one.
    """

    place: int
    norm: str
    filter: str | None


class Consumer(NamedTuple):
    """What reads a channel: the columns ``weight[:, start:end]`` of a layer, behind a relay or directly."""

    layer: str
    start: int
    end: int
    relay: Relay | None = None


@dataclass(frozen=True)
class Channel:
    """One output channel that a cell can lose.

    Attributes:
        stage: its stage, counted from 0.
        cell: name of its cell in the network, such as ``stages.1.cells.0``.
        kind: ``inner`` between the two layers of the cell, or ``output``.
        index: its place among the cell's inner channels or outputs.
        producers: names of the layers that make it, each with the weights ``weight[index]`` and, if it has a bias,
            with ``bias[index]``.
        norms: names of the batch norms that it passes through, one behind each producer, or none at all.
        consumers: what reads it; only layers that exist, so growth adds to them.
        gates: names of the layers that make factors for it, each with ``weight[index]`` and ``bias[index]``.
        rectified: whether it passes a ReLU before anything reads it.
    """

    stage: int
    cell: str
    kind: Literal["inner", "output"]
    index: int
    producers: tuple[str, ...]
    norms: tuple[str, ...]
    consumers: tuple[Consumer, ...]
    gates: tuple[str, ...] = ()
    rectified: bool = True

    def alive(self, network: nn.Module) -> bool:
        """Whether any weight that makes it is unmasked in ``network``."""
        return any(bool(_layer(network, name).mask[self.index].any()) for name in self.producers)


def channels(network: Network) -> list[Channel]:
    """Every channel that a cell of ``network`` can lose, by stage and cell, inner ones first, then by index.

    These are the outputs of every cell and, in one of two layers, its inner channels, but for what an identity
    shortcut adds up, be it in a cell to come: that is no cell's own. So a cell with an identity keeps its outputs, as
    does the one before it in a chain, and a ``skip_second`` cell, whose identity carries its inner channels, can lose
    none. Inner channels of ``grouped`` cells stay too, as groups are of one size. The stem keeps its outputs.

    Example:
        >>> from ramify.config import NetworkConfig
        >>> config = NetworkConfig(kind="dense", structure=(0, 1), channels=4, input_shape=(1, 8, 8), classes=2)
        >>> found = channels(Network(config))
        >>> [(channel.kind, channel.index) for channel in found if channel.cell == "stages.0.cells.0"]
        [('inner', 0), ('inner', 1), ('inner', 2), ('inner', 3)]
        >>> found[-1].producers, found[-1].consumers[0][:3]
        (('stages.0.cells.1.conv2', 'stages.0.cells.1.shortcut.0'), ('stages.0.exit.linear', 48, 64))
    """
    consumers, carried = _reads(network)
    found: list[Channel] = []
    kinds: tuple[Literal["inner", "output"], ...] = ("inner", "output")
    for stage, name, cell in existing_cells(network):
        for kind in kinds:
            wiring = WIRING[cell.type]
            made = wiring.makers(cell, kind)
            if not made or (name, kind) in carried or (kind == "inner" and wiring.fixed):
                continue
            producers = tuple(f"{name}.{part.name}" for part in made if part.columns is not None)
            norms = tuple(f"{name}.{part.name}" for part in made if part.columns is None)
            gates = tuple(f"{name}.{part.name}" for part in wiring.of(cell) if part.gate and part.rows == kind)
            rectified = kind == "inner" or (wiring.rectified and not cell.gives_sum)
            for index in range(cell.inner_channels if kind == "inner" else cell.out_channels):
                read = tuple(consumers[name, kind, index])
                found.append(Channel(stage, name, kind, index, producers, norms, read, gates, rectified))
    return found


def existing_cells(network: Network) -> list[tuple[int, str, CellPlan]]:
    """Stage, name and plan of every cell that exists, first to last."""
    return [
        (stage, f"stages.{stage}.cells.{index}", cell)
        for stage in range(len(network.stages))
        for index, cell in enumerate(network.plans[stage].cells)
    ]


def stem_channels(network: Network) -> int:
    """How many channels the stem gives."""
    built = architecture(network.config)
    return network.mean.numel() if built.stem == "none" else built.width


_Place = tuple[str, Space, int]
"""A channel by the name of its cell, its kind and its index."""


def _reads(network: Network) -> tuple[Mapping[_Place, list[Consumer]], set[tuple[str, Space]]]:
    """What reads each channel, in the network's order, and the cells and kinds that identity shortcuts add up."""
    consumers: defaultdict[_Place, list[Consumer]] = defaultdict(list)
    carried: set[tuple[str, Space]] = set()

    def read(prefix: str, parts: Sequence[Part], spaces: Mapping[Space, Sequence[_Place]], width: int) -> None:
        for part in parts:
            if part.columns is None:
                continue
            for i, place in enumerate(spaces[part.columns]):
                relay = None
                if part.norm is not None:
                    relay = Relay(i, f"{prefix}.{part.norm}", part.filter and f"{prefix}.{part.filter}")
                consumers[place].append(Consumer(f"{prefix}.{part.name}", i * width, (i + 1) * width, relay))

    trunk: list[_Place] = [("stem", "output", i) for i in range(stem_channels(network))]
    for index, stage in enumerate(network.plans):
        exists = index < len(network.stages)
        for i, cell in enumerate(stage.cells):
            name, wiring = f"stages.{index}.cells.{i}", WIRING[cell.type]
            outputs: list[_Place] = [(name, "output", n) for n in range(cell.out_channels)]
            spaces: dict[Space, list[_Place]] = {
                "trunk": trunk,
                "inner": [(name, "inner", n) for n in range(cell.inner_channels)],
            }
            if exists:
                read(name, wiring.of(cell), spaces, cell_width(cell))
            shared = wiring.carried(cell)
            if shared is not None:
                carried |= {(name, "output"), *((owner, kind) for owner, kind, _ in spaces[shared])}
            trunk = trunk + outputs if network.config.kind == "dense" else outputs
        if exists:
            spaces = {"trunk": trunk[-stage.exit_channels :]}
            read(f"stages.{index}.exit", head_parts(stage), spaces, head_width(stage))
    return consumers, carried


def channel_scores(network: Network, scores: Mapping[str, Tensor]) -> Tensor:
    """What the weights that make each of :func:`channels` score together, float64 ``[channels]`` on the CPU.

    Args:
        network: any network.
        scores: a tensor in the shape of the weight for each masked layer, by its name.

    Raises:
        KeyError: ``scores`` lacks a layer that makes a channel.
    """
    found = channels(network)
    names = dict.fromkeys(name for channel in found for name in channel.producers)
    # To the CPU first: not every device has float64.
    sums = {name: scores[name].detach().cpu().double().flatten(1).sum(dim=1).tolist() for name in names}
    totals = [sum(sums[name][channel.index] for name in channel.producers) for channel in found]
    return torch.tensor(totals, dtype=torch.float64)


def mask_channels(network: Network, lost: Sequence[Channel]) -> dict[str, Tensor]:
    """The masks of all layers without the weights that make or read the channels in ``lost``, by layer name.

    Nothing is applied; see :func:`ramify.ops.surgery.set_masks`.

    Example:
        >>> from ramify.config import NetworkConfig
        >>> network = Network(NetworkConfig(structure=(1,), channels=4, input_shape=(1, 8, 8), classes=2))
        >>> masks = mask_channels(network, channels(network)[:1])
        >>> masks["stages.0.cells.0.conv1"].any(dim=(1, 2, 3)).tolist()
        [False, True, True, True]
    """
    return without({name: layer.mask for name, layer in masked_layers(network).items()}, lost)


def without(masks: Mapping[str, Tensor], lost: Sequence[Channel]) -> dict[str, Tensor]:
    """Copies of ``masks`` in which no weight makes or reads a channel in ``lost``."""
    rows: dict[str, list[int]] = {}
    columns: dict[str, list[int]] = {}
    for channel in lost:
        for name in (*channel.producers, *channel.gates):
            rows.setdefault(name, []).append(channel.index)
        for name, start, end, relay in channel.consumers:
            columns.setdefault(name, []).extend(range(start, end))
            if relay is not None and relay.filter is not None:
                rows.setdefault(relay.filter, []).append(relay.place)
    masks = {name: mask.clone() for name, mask in masks.items()}
    for name, indices in rows.items():
        masks[name][indices] = False
    for name, indices in columns.items():
        masks[name][:, indices] = False
    return masks


def silence(network: nn.Module, *lost: Channel, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Let each channel in ``lost``, whose producers are masked, give exactly 0 in training and evaluation.

    The scale and shift of its batch norms become 0, their running mean 0 and variance 1, and so do those of the batch
    norms that it passes on its way to a reader; biases of its producers become 0. Behind the ReLU none of them gets a
    gradient any more; nor does it without one where all readers are masked, as :func:`mask_channels` has them. What
    ``optimizer`` keeps about them is cleared, so that no momentum moves them either.

    Args:
        network: the network that the channels are of, or a copy of it.
        *lost: channels of :func:`channels`.
        optimizer: over the parameters of ``network``.
    """
    indices: dict[str, list[int]] = {}
    for channel in lost:
        for name in (*channel.producers, *channel.norms):
            indices.setdefault(name, []).append(channel.index)
        for relay in (consumer.relay for consumer in channel.consumers):
            if relay is not None:
                indices.setdefault(relay.norm, []).append(relay.place)
    with torch.no_grad():
        for name, places in indices.items():
            module = network.get_submodule(name)
            parameters = [module.bias]
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean[places] = 0
                module.running_var[places] = 1
                parameters.append(module.weight)
            for parameter in parameters:
                if not isinstance(parameter, nn.Parameter):  # most convolutions have no bias
                    continue
                parameter[places] = 0
                for kept in optimizer.state[parameter].values() if optimizer and parameter in optimizer.state else ():
                    if isinstance(kept, Tensor) and kept.shape == parameter.shape:
                        kept[places] = 0


def dead_trunk(network: Network) -> Tensor:
    """Which channels of the trunk so far no weight makes, bool ``[trunk channels]``.

    They are constant over the pictures, so a stage that grows has nothing to read there. A channel that an identity
    shortcut adds to is dead only if what the shortcut carries is dead as well.
    """
    return _dead_before(network, len(network.stages))


def mask_dead_inputs(network: Network, stage: int) -> int:
    """Mask the weights of ``stage``, newly grown, that read dead channels of the trunk (see :func:`dead_trunk`).

    Returns:
        How many weights it masked; they become zero.

    Example:
        >>> from ramify.config import NetworkConfig
        >>> config = NetworkConfig(kind="dense", structure=(1, 0), channels=4, input_shape=(1, 8, 8), classes=2)
        >>> network = Network(config)
        >>> stem = torch.ones(4, 1, 3, 3, dtype=torch.bool)
        >>> stem[3] = False
        >>> set_masks(network, {"stem.conv": stem})
        >>> dead_trunk(network).tolist()  # the cell's own layers still make its last output
        [False, False, False, True, False, False, False, False]
        >>> _ = network.append_stage()
        >>> mask_dead_inputs(network, 1)  # 4 kernels of 3x3 and 4 of 1x1, and 16 weights for each of 2 classes
        72
    """
    layers = masked_layers(network)
    stage_plan, prefix = network.plans[stage], f"stages.{stage}"
    masked = 0

    def mask(name: str, new: Tensor) -> None:
        nonlocal masked
        masked += int((layers[name].mask & ~new).sum())
        set_masks(network, {name: new})

    def mask_readers(owner: str, parts: Sequence[Part], dead: Tensor, width: int) -> None:
        for part in parts:
            if part.columns != "trunk":
                continue
            new = layers[f"{owner}.{part.name}"].mask.clone()
            new[:, dead.repeat_interleave(width)] = False
            mask(f"{owner}.{part.name}", new)
            if part.filter is not None:
                new = layers[f"{owner}.{part.filter}"].mask.clone()
                new[dead] = False
                mask(f"{owner}.{part.filter}", new)

    dead = _dead_before(network, stage)
    for index, cell in enumerate(stage_plan.cells):
        name = f"{prefix}.cells.{index}"
        mask_readers(name, WIRING[cell.type].of(cell), dead, cell_width(cell))
        dead = _dead_after(network, name, cell, dead)
    mask_readers(f"{prefix}.exit", head_parts(stage_plan), dead[-stage_plan.exit_channels :], head_width(stage_plan))
    return masked


def _dead_before(network: Network, stage: int) -> Tensor:
    """Dead channels of the trunk that ``stage`` reads."""
    if architecture(network.config).stem == "none":  # the pictures' own channels
        dead = torch.zeros(stem_channels(network), dtype=torch.bool, device=network.mean.device)
    else:
        dead = ~_live_rows(network, "stem.conv")
    for found, name, cell in existing_cells(network):
        if found < stage:
            dead = _dead_after(network, name, cell, dead)
    return dead


def _dead_after(network: Network, name: str, cell: CellPlan, dead: Tensor) -> Tensor:
    """Dead channels of the trunk behind a cell, from those before it."""
    carried = WIRING[cell.type].carried(cell)
    output = _dead_rows(network, name, cell, "output")
    if carried is not None:
        output &= dead if carried == "trunk" else _dead_rows(network, name, cell, carried)
    return torch.cat((dead, output)) if network.config.kind == "dense" else output


def _dead_rows(network: Network, name: str, cell: CellPlan, kind: Space) -> Tensor:
    """Which inner channels or outputs of a cell none of its layers makes."""
    producers = [part for part in WIRING[cell.type].makers(cell, kind) if part.columns is not None]
    return ~torch.stack([_live_rows(network, f"{name}.{part.name}") for part in producers]).any(dim=0)


def _live_rows(network: Network, name: str) -> Tensor:
    """Which outputs of a layer any unmasked weight makes."""
    return _layer(network, name).mask.flatten(1).any(dim=1)


def _layer(network: nn.Module, name: str) -> MaskedConv2d | MaskedLinear:
    layer = network.get_submodule(name)
    assert isinstance(layer, MaskedConv2d | MaskedLinear)
    return layer
