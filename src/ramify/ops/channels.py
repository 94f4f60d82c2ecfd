"""Channels that a cell can lose: which weights make each, which read it, and how it goes silent.

The trunk is what the next cell reads: in ``dense`` wiring the stem's output and all cells' outputs side by side,
in a chain the last cell's output.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ramify.nn.exit import GRID
from ramify.nn.masked import MaskedConv2d, MaskedLinear, masked_layers
from ramify.nn.network import CellPlan, Network
from ramify.ops.surgery import set_masks


@dataclass(frozen=True)
class Channel:
    """One output channel that a cell can lose.

    Attributes:
        stage: its stage, counted from 0.
        cell: name of its cell in the network, such as ``stages.1.cells.0``.
        kind: ``inner`` between the two layers of the cell, or ``output``.
        index: its place among the cell's inner channels or outputs.
        producers: names of the layers that make it, each with the weights ``weight[index]``.
        norms: names of the batch norms that it passes through, one behind each producer.
        consumers: what reads it, each a layer's name and the columns ``weight[:, start:end]``; only layers that
            exist, so growth adds to them.
    """

    stage: int
    cell: str
    kind: Literal["inner", "output"]
    index: int
    producers: tuple[str, ...]
    norms: tuple[str, ...]
    consumers: tuple[tuple[str, int, int], ...]

    def alive(self, network: nn.Module) -> bool:
        """Whether any weight that makes it is unmasked in ``network``."""
        return any(bool(_layer(network, name).mask[self.index].any()) for name in self.producers)


@dataclass(frozen=True)
class _Reader:
    """A layer that reads the channels ``start`` to ``end`` of the trunk, each with ``width`` columns."""

    layer: str
    start: int
    end: int
    width: int

    def columns(self, position: int) -> tuple[str, int, int]:
        """The columns that read the trunk channel at ``position``."""
        first = (position - self.start) * self.width
        return self.layer, first, first + self.width


def channels(network: Network) -> list[Channel]:
    """Every channel that a cell of ``network`` can lose, by stage and cell, inner ones first, then by index.

    These are the inner channels of every cell, and in ``dense`` wiring the outputs of the cells that project. What
    an identity shortcut carries is not the cell's own: so a cell with one keeps its outputs, and a ``skip_second``
    cell, whose shortcut carries its inner channels too, can lose none.

    Example:
        >>> from ramify.config import NetworkConfig
        >>> config = NetworkConfig(kind="dense", structure=(0, 1), channels=4, input_shape=(1, 8, 8), classes=2)
        >>> found = channels(Network(config))
        >>> [(channel.kind, channel.index) for channel in found if channel.cell == "stages.0.cells.0"]
        [('inner', 0), ('inner', 1), ('inner', 2), ('inner', 3)]
        >>> found[-1].producers, found[-1].consumers
        (('stages.0.cells.1.conv2', 'stages.0.cells.1.shortcut.0'), (('stages.0.exit.linear', 48, 64),))
    """
    config = network.config
    if config.cell != "basic":
        return []
    dense = config.kind == "dense"
    readers = _trunk_readers(network) if dense else []
    found: list[Channel] = []
    position = config.channels
    for stage, name, cell in existing_cells(network):
        for index in range(cell.inner_channels):
            column = (f"{name}.conv2", index, index + 1)
            found.append(Channel(stage, name, "inner", index, (f"{name}.conv1",), (f"{name}.norm1",), (column,)))
        if not dense:
            continue
        if cell.projects:
            producers = (f"{name}.conv2", f"{name}.shortcut.0")
            norms = (f"{name}.norm2", f"{name}.shortcut.1")
            for index in range(cell.out_channels):
                at = position + index
                consumers = tuple(reader.columns(at) for reader in readers if reader.start <= at < reader.end)
                found.append(Channel(stage, name, "output", index, producers, norms, consumers))
        position += cell.out_channels
    return found


def existing_cells(network: Network) -> list[tuple[int, str, CellPlan]]:
    """Stage, name and plan of every cell that exists, first to last."""
    return [
        (stage, f"stages.{stage}.cells.{index}", cell)
        for stage in range(len(network.stages))
        for index, cell in enumerate(network.plans[stage].cells)
    ]


def _trunk_readers(network: Network) -> list[_Reader]:
    """Every layer of a ``dense`` network of ``basic`` cells that reads the trunk, in the network's order."""
    readers: list[_Reader] = []
    trunk = network.config.channels
    for index in range(len(network.stages)):
        stage, prefix = network.plans[index], f"stages.{index}"
        for i, cell in enumerate(stage.cells):
            readers.append(_Reader(f"{prefix}.cells.{i}.conv1", 0, trunk, 1))
            if cell.projects:
                readers.append(_Reader(f"{prefix}.cells.{i}.shortcut.0", 0, trunk, 1))
            trunk += cell.out_channels
        # A head flattens its pooled map channel by channel.
        readers.append(_Reader(f"{prefix}.exit.linear", trunk - stage.exit_channels, trunk, GRID * GRID))
    return readers


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
        for name in channel.producers:
            rows.setdefault(name, []).append(channel.index)
        for name, start, end in channel.consumers:
            columns.setdefault(name, []).extend(range(start, end))
    masks = {name: mask.clone() for name, mask in masks.items()}
    for name, indices in rows.items():
        masks[name][indices] = False
    for name, indices in columns.items():
        masks[name][:, indices] = False
    return masks


def silence(network: nn.Module, *lost: Channel, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Let each channel in ``lost``, whose producers are masked, give exactly 0 in training and evaluation.

    The scale and shift of its batch norms become 0, their running mean 0 and variance 1. Once the weights that read
    the channel are masked, scale and shift get no gradient, and what ``optimizer`` keeps about them is cleared, so
    that no momentum moves them either.

    Args:
        network: the network that the channels are of, or a copy of it.
        *lost: channels of :func:`channels`.
        optimizer: over the parameters of ``network``.
    """
    indices: dict[str, list[int]] = {}
    for channel in lost:
        for name in channel.norms:
            indices.setdefault(name, []).append(channel.index)
    with torch.no_grad():
        for name, places in indices.items():
            norm = network.get_submodule(name)
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            for tensor, value in ((norm.weight, 0), (norm.bias, 0), (norm.running_mean, 0), (norm.running_var, 1)):
                tensor[places] = value
            for parameter in (norm.weight, norm.bias):
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
    dense, basic = network.config.kind == "dense", network.config.cell == "basic"
    dead = _dead_before(network, stage)
    plan, prefix = network.plans[stage], f"stages.{stage}"
    masked = 0

    def mask(name: str, columns: Tensor) -> None:
        nonlocal masked
        old = layers[name].mask
        new = old.clone()
        new[:, columns] = False
        masked += int(old.sum() - new.sum())
        set_masks(network, {name: new})

    for index, cell in enumerate(plan.cells):
        name = f"{prefix}.cells.{index}"
        mask(f"{name}.conv1", dead)
        if cell.projects and basic:  # the shortcut of any other cell reads its inner channels
            mask(f"{name}.shortcut.0", dead)
        output = _dead_output(network, name, cell, dead)
        dead = torch.cat((dead, output)) if dense else output
    mask(f"{prefix}.exit.linear", dead[-plan.exit_channels :].repeat_interleave(GRID * GRID))
    return masked


def _dead_before(network: Network, stage: int) -> Tensor:
    """Dead channels of the trunk that ``stage`` reads."""
    dead = ~_live_rows(network, "stem.conv")
    for found, name, cell in existing_cells(network):
        if found < stage:
            output = _dead_output(network, name, cell, dead)
            dead = torch.cat((dead, output)) if network.config.kind == "dense" else output
    return dead


def _dead_output(network: Network, cell: str, plan: CellPlan, dead: Tensor) -> Tensor:
    """Dead outputs of a cell, bool ``[out]``, from the dead channels that it reads."""
    own = ~_live_rows(network, f"{cell}.conv2")
    if plan.projects:
        return own & ~_live_rows(network, f"{cell}.shortcut.0")
    if network.config.cell == "basic":
        return own & dead
    return own & ~_live_rows(network, f"{cell}.conv1")


def _live_rows(network: Network, name: str) -> Tensor:
    """Which outputs of a layer any unmasked weight makes."""
    return _layer(network, name).mask.flatten(1).any(dim=1)


def _layer(network: nn.Module, name: str) -> MaskedConv2d | MaskedLinear:
    layer = network.get_submodule(name)
    assert isinstance(layer, MaskedConv2d | MaskedLinear)
    return layer
