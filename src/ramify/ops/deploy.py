"""A network made ready to answer: batch norms are folded into the layers before them, and masks multiplied in.

Convolution and batch norm in evaluation mode are both affine, so one convolution with a bias computes both
(``w * s`` and ``shift - mean * s``, with ``s = scale / sqrt(variance + eps)``). Nothing is approximated.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.errors import InputError
from ramify.nn.branching import Branching, Judge, Prediction
from ramify.nn.cell import (
    CompactCell,
    DepthwiseCell,
    GroupedCell,
    LinearCell,
    PlainCell,
    PreactivationCell,
    SeparableCell,
    Squeeze,
    TwoLayerCell,
    UnpaddedCell,
)
from ramify.nn.exit import Grid, PooledHead
from ramify.nn.masked import Masked, MaskedConv2d, MaskedLinear
from ramify.nn.network import Network, Stage, Stem
from ramify.nn.trunk import halved

TRUNK_BYTES = 2 * 2**20
"""About as much of a trunk as a processor keeps near itself; larger batches are answered in pieces of this size."""

FEWEST = 32
"""Pictures in a piece at least: in fewer the weights, read anew for each piece, are no longer shared by enough."""

Pool = Callable[[Tensor, Grid], Tensor]
"""Pools a map to a grid, or in windows of a size."""


def deploy(network: Network) -> "Deployed":
    """A copy of ``network`` that only answers, faster: the same logits, to the rounding of its precision.

    Each block of layers becomes one convolution with a bias, in channels-last layout, with addition and ReLU in
    place; a head pools its map with one kernel for each kind of pooling, or none where there is nothing to pool.
    Numbers too small for a normal float32 become 0, for they slow processors down.

    Args:
        network: any network, in any mode; it stays as it is, and the copy stands on its device in its precision.

    Raises:
        InputError: ``network`` has a cell or an exit of a kind that has no folded form.

    Example:
        >>> from ramify.config import NetworkConfig
        >>> network = Network(NetworkConfig(structure=(1, 0), input_shape=(1, 8, 8), classes=10), stages=2).eval()
        >>> images = torch.rand(5, 1, 8, 8)
        >>> torch.allclose(deploy(network)(images), network(images), atol=1e-5)
        True
    """
    with torch.no_grad():
        return Deployed(network).eval()


class Deployed(Branching):
    """What :func:`deploy` makes: ``images [B, channels, H, W] in [0, 1] -> logits [E, B, C]``, without gradients.

    On a processor a batch is answered in pieces of :attr:`piece` pictures, so that what flows between two layers
    stays in the cache; it also bounds the memory that a batch needs.

    Attributes:
        stages: those of the network.
        piece: how many pictures a processor answers at once.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.cascade = network.cascade
        self.stem = FoldedStem(network)
        self.stages = nn.ModuleList(FoldedStage(stage) for stage in network.stages if isinstance(stage, Stage))
        assert network.config.input_shape is not None
        channels, height, width = network.config.input_shape
        if network.stem.kind != "none":
            channels = network.stem.conv.out_channels
        self.piece = max(FEWEST, TRUNK_BYTES // (channels * height * width * network.mean.element_size()))

    def enter(self, images: Tensor) -> Tensor:
        """The stem's output ``[B, channels, H, W]``, of normalised pictures."""
        trunk: Tensor = self.stem(images)
        return trunk

    def forward(self, images: Tensor) -> Tensor:
        """The logits of every exit, ``[E, B, C]``."""
        with torch.no_grad():
            found = [super(Deployed, self).forward(some) for some in self._pieces(images)]
            return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def predict(self, images: Tensor, policy: Judge) -> Prediction:
        """See :meth:`ramify.nn.branching.Branching.predict`."""
        found = [super(Deployed, self).predict(some, policy) for some in self._pieces(images)]
        if len(found) == 1:
            return found[0]
        classes, exits, confidence, ran = zip(*found, strict=True)
        counts = tuple(map(sum, zip(*ran, strict=True)))
        return Prediction(torch.cat(classes), torch.cat(exits), torch.cat(confidence), counts)

    def _pieces(self, images: Tensor) -> Sequence[Tensor]:
        fits = len(images) <= self.piece or images.device.type != "cpu"
        return [images] if fits else images.split(self.piece)


class FoldedConv(nn.Module):
    """A convolution, the batch norm behind it, an addition, and ReLU: ``x [B, in, H, W] -> [B, out, H', W']``."""

    def __init__(self, conv: nn.Module, norm: nn.Module | None, relu: bool, divisor: Tensor | None = None) -> None:
        super().__init__()
        assert isinstance(conv, MaskedConv2d)
        assert norm is None or isinstance(norm, nn.BatchNorm2d)
        weight, bias = folded(conv, norm, divisor)
        self.weight = _fixed(weight.contiguous(memory_format=torch.channels_last))
        self.bias = None if bias is None else _fixed(bias)
        self.stride, self.groups, self.relu = conv.stride, conv.groups, relu
        assert isinstance(conv.padding, tuple)
        self.padding = conv.padding

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        x = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, 1, self.groups)
        if added is not None:
            x.add_(added)
        return x.relu_() if self.relu else x


class FoldedLinear(nn.Module):
    """A linear layer whose mask is multiplied in, and ReLU where it belongs to a cell."""

    def __init__(self, linear: MaskedLinear, relu: bool) -> None:
        super().__init__()
        weight, bias = folded(linear)
        assert bias is not None
        self.weight, self.bias, self.relu = _fixed(weight), _fixed(bias), relu

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.weight, self.bias)
        return x.relu_() if self.relu else x


class FoldedNorm(nn.Module):
    """A batch norm in evaluation mode that no convolution stands right before, and ReLU."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        self.mean, self.variance = _fixed(norm.running_mean), _fixed(norm.running_var)
        self.scale, self.shift, self.eps = _fixed(norm.weight), _fixed(norm.bias), norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.mean, self.variance, self.scale, self.shift, eps=self.eps).relu_()


class FoldedStem(nn.Module):
    """Normalisation and the stem. Zeros are padded behind the mean is taken off, so only ``std`` can be folded."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        stem: Stem = network.stem
        self.mean = _fixed(network.mean[:, None, None])
        self.std: nn.Parameter | None = None
        self.conv: FoldedConv | None = None
        if stem.kind == "none":
            self.std = _fixed(network.std[:, None, None])
        else:
            block = stem.kind == "block"
            self.conv = FoldedConv(stem.conv, stem.norm if block else None, relu=block, divisor=network.std)

    def forward(self, images: Tensor) -> Tensor:
        x = (images - self.mean).contiguous(memory_format=torch.channels_last)
        if self.conv is not None:
            x = self.conv(x)
        return x if self.std is None else x.div_(self.std)


class FoldedTwoLayerCell(nn.Module):
    """A :class:`~ramify.nn.cell.TwoLayerCell` or :class:`~ramify.nn.cell.PreactivationCell`."""

    def __init__(self, cell: TwoLayerCell | PreactivationCell) -> None:
        super().__init__()
        before = isinstance(cell, PreactivationCell)
        gives_sum = isinstance(cell, TwoLayerCell) and cell.gives_sum
        self.norm = FoldedNorm(cell.norm1) if isinstance(cell, PreactivationCell) else None
        self.first = FoldedConv(cell.conv1, cell.norm2 if before else cell.norm1, relu=True)
        self.second = FoldedConv(cell.conv2, None if before else cell.norm2, relu=not (before or gives_sum))
        self.spans_both = isinstance(cell, PreactivationCell) or cell.spans_both
        self.shortcut: FoldedConv | None = None
        if isinstance(cell.shortcut, nn.Sequential):
            self.shortcut = FoldedConv(cell.shortcut[0], cell.shortcut[1], relu=False)
        elif isinstance(cell.shortcut, MaskedConv2d):
            self.shortcut = FoldedConv(cell.shortcut, None, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.first(x if self.norm is None else self.norm(x))
        source = x if self.spans_both else inner
        outer: Tensor = self.second(inner, source if self.shortcut is None else self.shortcut(source))
        return outer


class FoldedSqueeze(nn.Module):
    """A :class:`~ramify.nn.cell.Squeeze`: ``[B, C, H, W] -> [B, C, H, W]``, in place."""

    def __init__(self, squeeze: Squeeze) -> None:
        super().__init__()
        self.reduce = FoldedLinear(squeeze.reduce, relu=True)
        self.expand = FoldedLinear(squeeze.expand, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.expand(self.reduce(x.mean(dim=(2, 3)))).sigmoid_()
        return x.mul_(gate[:, :, None, None])


class FoldedBranchCell(nn.Module):
    """A cell of several layers in a row, whose last one adds a shortcut if there is any."""

    def __init__(self, cell: DepthwiseCell | GroupedCell | CompactCell) -> None:
        super().__init__()
        layers = [(cell.conv1, cell.norm1), (cell.conv2, cell.norm2), (cell.conv3, cell.norm3)]
        if isinstance(cell, DepthwiseCell):
            layers.append((cell.conv4, cell.norm4))
        self.first = nn.Sequential(*(FoldedConv(conv, norm, relu=True) for conv, norm in layers[:-1]))
        if isinstance(cell.squeeze, Squeeze):
            self.first.append(FoldedSqueeze(cell.squeeze))
        self.last = FoldedConv(*layers[-1], relu=not (isinstance(cell, CompactCell) or cell.gives_sum))
        self.adds = cell.carries if isinstance(cell, CompactCell) else True
        self.shortcut: FoldedConv | None = None
        if not isinstance(cell, CompactCell) and isinstance(cell.shortcut, nn.Sequential):
            self.shortcut = FoldedConv(cell.shortcut[0], cell.shortcut[1], relu=False)

    def forward(self, x: Tensor) -> Tensor:
        added = x if self.shortcut is None else self.shortcut(x)
        outer: Tensor = self.last(self.first(x), added if self.adds else None)
        return outer


class FoldedPlainCell(nn.Module):
    """A :class:`~ramify.nn.cell.PlainCell` or :class:`~ramify.nn.cell.UnpaddedCell`."""

    def __init__(self, cell: PlainCell | UnpaddedCell) -> None:
        super().__init__()
        self.conv = FoldedConv(cell.conv, cell.norm if isinstance(cell, PlainCell) else None, relu=True)
        self.pools = isinstance(cell, UnpaddedCell) or cell.stride != 1
        self.rounds_up = isinstance(cell, PlainCell)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return F.max_pool2d(x, 2, ceil_mode=self.rounds_up) if self.pools else x


class FoldedLinearCell(nn.Module):
    """A :class:`~ramify.nn.cell.LinearCell`."""

    def __init__(self, cell: LinearCell) -> None:
        super().__init__()
        self.linear = FoldedLinear(cell.linear, relu=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x.flatten(1))
        return x[:, :, None, None]


class FoldedHead(nn.Module):
    """A :class:`~ramify.nn.exit.PooledHead`: ``[B, channels, H, W] -> [B, classes]``.

    The columns of its weights are ordered as a channels-last map lies in memory, so flattening copies nothing.
    """

    def __init__(self, head: PooledHead) -> None:
        super().__init__()
        self.grid = head.grid
        self.share = float(head.share) if head.fixed is None else head.fixed
        self.conv = None if head.conv is None else FoldedConv(head.conv, head.norm, relu=True)
        self.norm = None if head.norm is None or head.conv is not None else FoldedNorm(head.norm)
        weight, bias = folded(head.linear)
        assert bias is not None
        columns = weight.unflatten(1, (-1, *head.grid)).permute(0, 2, 3, 1).flatten(1)
        self.weight, self.bias = _fixed(columns), _fixed(bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.conv is not None:
            x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return F.linear(self.pool(x).permute(0, 2, 3, 1).flatten(1), self.weight, self.bias)

    def pool(self, x: Tensor) -> Tensor:
        """``[B, channels, H, W] -> [B, channels, *grid]``."""
        height, width = x.shape[2:]
        rows, columns = self.grid
        if (height, width) == (rows, columns):
            return x
        if height % rows or width % columns:
            return self._mixed(F.adaptive_avg_pool2d, F.adaptive_max_pool2d, x, (rows, columns))
        # Windows of one size have faster kernels.
        return self._mixed(F.avg_pool2d, F.max_pool2d, x, (height // rows, width // columns))

    def _mixed(self, average: Pool, largest: Pool, x: Tensor, size: Grid) -> Tensor:
        if self.share == 0.0:
            return average(x, size)
        if self.share == 1.0:
            return largest(x, size)
        return average(x, size).lerp_(largest(x, size), self.share)


class FoldedStage(nn.Module):
    """A :class:`~ramify.nn.network.Stage`: ``trunk -> (trunk, logits [B, C])``."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.cells = nn.ModuleList(_folded_cell(cell) for cell in stage.cells)
        if not isinstance(stage.exit, PooledHead):
            raise InputError(f"deploy: got an exit {type(stage.exit).__name__}; accepted: PooledHead")
        self.exit = FoldedHead(stage.exit)
        self.dense, self.reads = stage.dense, stage.plan.exit_channels
        self.plans = stage.plan.cells

    def forward(self, trunk: Tensor) -> tuple[Tensor, Tensor]:
        output = trunk
        for cell, plan in zip(self.cells, self.plans, strict=True):
            if plan.pooled:
                trunk = halved(trunk)
            output = cell(trunk)
            onward = F.relu(output) if plan.gives_sum else output
            trunk = torch.cat((trunk, onward), dim=1) if self.dense else onward
        # The last cell's output lies in one piece; the same channels of the concatenation do not.
        read = output if output.shape[1] == self.reads else trunk[:, -self.reads :]
        return trunk, self.exit(read)


def folded(
    layer: Masked, norm: nn.BatchNorm2d | None = None, divisor: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of one layer that computes ``norm(layer(x / divisor))`` in evaluation mode.

    They are computed in float64 and rounded once. Without ``norm``, a layer without a bias has none afterwards.

    Args:
        divisor: one number for each input channel of a convolution.
    """
    device, dtype = layer.weight.device, layer.weight.dtype
    # MPS has no float64, so the processor folds.
    weight = (layer.weight * layer.mask).detach().cpu().double()
    bias = None if layer.bias is None else layer.bias.detach().cpu().double()
    if divisor is not None:
        weight = weight / divisor.cpu().double()[:, None, None]
    if norm is not None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance, scale, shift = (
            value.detach().cpu().double() for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        scale = scale / (variance + norm.eps).sqrt()
        weight = weight * scale[:, None, None, None]
        bias = shift - mean * scale if bias is None else shift + (bias - mean) * scale
    return weight.to(device, dtype), None if bias is None else bias.to(device, dtype)


def _folded_cell(cell: nn.Module) -> nn.Module:
    match cell:
        case TwoLayerCell() | PreactivationCell():
            return FoldedTwoLayerCell(cell)
        case PlainCell() | UnpaddedCell():
            return FoldedPlainCell(cell)
        case SeparableCell():
            layers = ((cell.conv1, cell.norm1), (cell.conv2, cell.norm2))
            return nn.Sequential(*(FoldedConv(conv, norm, relu=True) for conv, norm in layers))
        case DepthwiseCell() | GroupedCell() | CompactCell():
            return FoldedBranchCell(cell)
        case LinearCell():
            return FoldedLinearCell(cell)
    accepted = (
        "TwoLayerCell, PreactivationCell, PlainCell, UnpaddedCell, SeparableCell, DepthwiseCell, GroupedCell, "
        "CompactCell, LinearCell"
    )
    raise InputError(f"deploy: got a cell {type(cell).__name__}; accepted: {accepted}")


def _fixed(value: Tensor) -> nn.Parameter:
    """A copy that does not train, without numbers too small for a normal float32."""
    value = value.detach()
    value = value.masked_fill(value.abs() < torch.finfo(torch.float32).tiny, 0)
    return nn.Parameter(value, requires_grad=False)
