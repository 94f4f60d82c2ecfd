"""The network: a stem, then stages, each ending in an exit; ``forward`` gives the logits of every exit.

A :class:`~ramify.config.rules.NetworkConfig` and a number of stages rebuild a network exactly.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.config.rules import Config, NetworkConfig
from ramify.errors import ConfigError
from ramify.nn.branching import Branching
from ramify.nn.cells import CELLS, CellPlan, output_size
from ramify.nn.equilibrium import scale_gradient
from ramify.nn.exit import EXITS, GRID, ONE_PIXEL, Grid
from ramify.nn.graph import ChannelGroup, channel_graph
from ramify.nn.stem import STEMS
from ramify.nn.trunk import join
from ramify.nn.widths import CellGroups, cell_groups, existing_groups, narrowed
from ramify.nn.zoo import ZOO, Architecture, CellSpec
from ramify.seeds import drawing


@dataclass(frozen=True)
class StagePlan:
    """One stage as data.

    Attributes:
        cells: its cells, perhaps none.
        exit_channels: how many of the last channels of the trunk its exit reads.
        final: whether its exit is the final classifier.
        grid: height and width to which the exit pools.
        head: the exit's name in :data:`ramify.nn.exit.EXITS`; None for ``network.exit``, or ``average`` if ``final``.
    """

    cells: tuple[CellPlan, ...]
    exit_channels: int
    final: bool
    grid: Grid = (GRID, GRID)
    head: str | None = None

    def head_name(self, exit_name: str) -> str:
        """The name of its exit, where ``network.exit`` is ``exit_name``."""
        return self.head or ("average" if self.final else exit_name)


def architecture(config: NetworkConfig) -> Architecture:
    """The architecture that ``network.cells`` names; for ``seed`` that of the other keys."""
    if config.cells != "seed":
        return ZOO[config.cells]
    cells: list[CellSpec] = []
    widths = config.widths
    group = 0
    for strides in config.strided:
        group = min(group + strides, len(widths) - 1)  # a single width stays
        cells.append(CellSpec(config.cell, widths[group], 1 + strides))
    return Architecture(config.stem, widths[0], tuple(cells))


def plan(config: NetworkConfig) -> tuple[StagePlan, ...]:
    """Every stage of the grown network, first to last.

    In a chain a cell reads the cell before it. In ``dense`` wiring a cell and the final classifier read the
    concatenation of the stem's and all earlier cells' outputs; where a cell strides, it is halved by average pooling.
    If the last cell carries an internal classifier, the last stage is the final classifier alone.

    Raises:
        ConfigError: ``config`` lacks the shape of the pictures or the places of the exits, or they are too small.

    Example:
        >>> [len(stage.cells) for stage in plan(NetworkConfig(structure=(0, 0, 1, 0, 1), input_shape=(3, 32, 32)))]
        [3, 2, 0]
    """
    if config.input_shape is None:
        raise ConfigError("network.input_shape: got nothing; accepted: a value, as a network must know its pictures")
    if config.kind != "full" and sum(config.structure) + 1 != config.exits:
        raise ConfigError(
            f"network.structure: got {sum(config.structure)} internal classifiers; accepted: as many as "
            "network.exits_at asks for; ramify.place_exits puts them there"
        )
    channels, height, width = config.input_shape
    built = architecture(config)
    if min(height, width) < built.smallest:
        raise ConfigError(
            f"network.input_shape: got {list(config.input_shape)}; accepted: sides of {built.smallest} or more "
            f"for network.cells={config.cells} (see data.size)"
        )
    dense = config.kind == "dense"
    trunk = channels if built.stem == "none" else built.width
    stages: list[StagePlan] = []
    cells: list[CellPlan] = []
    output = trunk
    if built.stem == "whitened":
        if built.width != 8 * channels:
            raise ConfigError(
                f"network.channels: got {built.width} for the stem; accepted: {8 * channels}, as network.stem=whitened "
                "has 8 for each channel of the pictures"
            )
        height, width = height - 1, width - 1
    head = config.exit if config.exit in ONE_PIXEL else None  # the plans of other networks do not name it
    for carries_exit, spec in zip(config.structure, built.cells, strict=False):
        output = spec.channels
        pooled = dense and spec.stride != 1
        stride = 1 if pooled else spec.stride
        projects = (trunk != output or stride != 1) and CELLS[spec.type].projecting
        inner = CELLS[spec.type].inner_channels(trunk, output)
        squeeze = 0 if config.squeeze is None else max(1, round(config.squeeze * inner))
        reads_sum = config.exit_reads == "sum" and bool(carries_exit) and config.kind != "full"
        cells.append(
            CellPlan(trunk, inner, output, projects, spec.type, stride, height * width, squeeze, pooled, reads_sum)
        )
        height, width = output_size(cells[-1], height, width)
        trunk = trunk + output if dense else output
        if carries_exit and config.kind != "full":
            stages.append(StagePlan(tuple(cells), output, False, _grid(config.exit, height, width), head))
            cells = []
    seed = config.cells == "seed"
    final = config.final if seed else None if built.final == "average" else built.final
    grid = _grid(config.final or "average", height, width) if seed else (1, 1)
    return (*stages, StagePlan(tuple(cells), trunk, True, grid, final))


def _grid(head: str, height: int, width: int) -> Grid:
    """The size to which an exit ``head`` pools a map."""
    return (1, 1) if head in ONE_PIXEL else (min(GRID, height), min(GRID, width))


class Stage(nn.Module):
    """The cells up to and including one exit: ``trunk -> (trunk, logits [B, C])``.

    The trunk is the input of the next stage: the last cell's output ``[B, channels, H, W]`` in a chain, the
    concatenation of all outputs so far in dense wiring.
    """

    def __init__(self, plan: StagePlan, width: int, classes: int, exit_name: str, dense: bool) -> None:
        super().__init__()
        self.plan = plan
        self.dense = dense
        # Where the exit reads just the last cell, its gradient goes there and not through all of the trunk.
        self.reads_cell = plan.exit_channels == (plan.cells[-1].out_channels if plan.cells else width)
        self.cells = nn.ModuleList(CELLS[cell.type](cell) for cell in plan.cells)
        self.exit = EXITS[plan.head_name(exit_name)](plan.exit_channels, classes, plan.grid)

    def forward(self, trunk: Tensor, share: float = 1.0) -> tuple[Tensor, Tensor]:
        output = trunk
        for cell, plan in zip(self.cells, self.plan.cells, strict=True):
            if plan.pooled:
                trunk = F.avg_pool2d(trunk, 2, ceil_mode=True)  # as in DenseNet (arXiv:1608.06993)
            output = cell(trunk)
            onward = F.relu(output) if plan.gives_sum else output
            trunk = join(trunk, onward) if self.dense else onward
        read = output if self.reads_cell else trunk[:, -self.plan.exit_channels :]
        logits: Tensor = self.exit(scale_gradient(read, share))
        return trunk, logits


class Network(Branching):
    """A branching classifier, ``images [B, channels, H, W] in [0, 1] -> logits [E, B, C]`` for the E exits it has.

    Args:
        config: the section ``network``, or a whole configuration; with ``input_shape`` and ``classes``.
        stages: how many of its stages exist; None for those its kind starts with.
        seed: seed of the weights; a stage has the same whether it exists from the start or is grown later. None
            draws from PyTorch's generator.
        plans: of every stage, where they are not those of ``config``, as after compaction.

    Raises:
        ConfigError: ``config`` is not complete, or ``stages`` is out of range.

    Example:
        >>> config = NetworkConfig(structure=(0, 1, 0), input_shape=(1, 8, 8), classes=10)
        >>> Network(config)(torch.rand(5, 1, 8, 8)).shape
        torch.Size([1, 5, 10])
        >>> Network(config, stages=2)(torch.rand(5, 1, 8, 8)).shape
        torch.Size([2, 5, 10])
    """

    def __init__(
        self,
        config: NetworkConfig | Config,
        stages: int | None = None,
        seed: int | None = None,
        plans: tuple[StagePlan, ...] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(config, Config):
            config = config.network
        if config.input_shape is None or config.classes is None:
            missing = "network.input_shape" if config.input_shape is None else "network.classes"
            raise ConfigError(f"{missing}: got nothing; accepted: a value, as a network needs to know its pictures")
        stages = config.first_stages if stages is None else stages
        if not 1 <= stages <= config.exits:
            raise ConfigError(f"stages: got {stages}; accepted: 1 to {config.exits} for this network.structure")
        self.config = config
        self.input_shape, self.classes = config.input_shape, config.classes
        self.cascade = config.cascade
        self.plans = plan(config) if plans is None else plans
        built = architecture(config)
        in_channels = config.input_shape[0]
        self.register_buffer("mean", torch.zeros(in_channels))
        self.register_buffer("std", torch.ones(in_channels))
        with drawing(seed, "stem"):
            self.stem = STEMS[built.stem](in_channels, built.width)
        self.stages = nn.ModuleList()
        for _ in range(stages):
            self.append_stage(seed)

    def enter(self, images: Tensor) -> Tensor:
        """The stem's output ``[B, channels, H, W]``."""
        trunk: Tensor = self.stem((images - self.mean[:, None, None]) / self.std[:, None, None])
        return trunk

    @property
    def trunk_channels(self) -> int:
        """How many channels the first cell reads."""
        built = architecture(self.config)
        return self.mean.numel() if built.stem == "none" else built.width

    def stage_modules(self, stage: int) -> dict[str, nn.Module]:
        """The modules that belong to a stage, by name; the stem belongs to stage 0."""
        return ({"stem": self.stem} if stage == 0 else {}) | super().stage_modules(stage)

    def channel_groups(self) -> tuple[ChannelGroup, ...]:
        """See :func:`ramify.ops.pruning.channels.channels`."""
        return existing_groups(_groups_of(self), len(self.stages))

    def smaller(self, lost: Sequence[ChannelGroup]) -> Self:
        groups, trunk = _groups_of(self), [True] * self.trunk_channels
        plans: list[StagePlan] = []  # of all stages, of those to grow too
        for index, stage in enumerate(self.plans):
            cells: list[CellPlan] = []
            for i, cell in enumerate(stage.cells):
                new, outputs = narrowed(cell, groups[f"stages.{index}.cells.{i}"], trunk, lost)
                cells.append(new)
                trunk = trunk + outputs if self.config.kind == "dense" else outputs
            plans.append(replace(stage, cells=tuple(cells), exit_channels=sum(trunk[-stage.exit_channels :])))
        # The seed keeps PyTorch's generator out of it.
        return type(self)(self.config, stages=len(self.stages), seed=0, plans=tuple(plans))

    def inner_groups(self, stage: int) -> tuple[ChannelGroup, ...]:
        prefix = f"stages.{stage}."
        cells = [groups.inner for name, groups in _groups_of(self).items() if name.startswith(prefix)]
        return tuple(group for inner in cells for group in inner)

    def why_not_widened(self, stage: int) -> str:
        groups = _groups_of(self)
        cells = [f"stages.{stage}.cells.{i}" for i in range(len(self.plans[stage].cells))]
        if not cells:
            return "which has no cells"
        fixed = [i for i, name in enumerate(cells) if not groups[name].inner]
        return f"with {self.plans[stage].cells[fixed[0]].type} cells" if fixed else ""

    def note_widths(self, stage: int, channels: int) -> None:
        old = self.plans[stage]
        cells = tuple(replace(cell, inner_channels=cell.inner_channels + channels) for cell in old.cells)
        new = replace(old, cells=cells)
        self.plans = (*self.plans[:stage], new, *self.plans[stage + 1 :])
        its_stage = self.stages[stage]
        assert isinstance(its_stage, Stage)
        its_stage.plan = new

    @property
    def complete(self) -> bool:
        """Whether every stage exists, the final classifier included."""
        return len(self.stages) == len(self.plans)

    def append_stage(self, seed: int | None = None) -> Stage:
        index, config = len(self.stages), self.config
        if self.complete:
            super().append_stage(seed)
        dense, before = config.kind == "dense", [cell for plan in self.plans[:index] for cell in plan.cells]
        width = self.trunk_channels
        if before:
            width = width + sum(cell.out_channels for cell in before) if dense else before[-1].out_channels
        with drawing(seed, "stage", index):
            stage = Stage(self.plans[index], width, self.classes, config.exit, dense)
        stage.to(self.mean).train(self.training)
        self.stages.append(stage)
        return stage


def _groups_of(network: Network) -> dict[str, CellGroups]:
    """The groups of channels that the plan of each cell can lose, by name; of the grown network."""
    return _cell_groups(network.config.model_dump_json(), network.plans)


@functools.lru_cache(maxsize=64)
def _cell_groups(text: str, plans: tuple[StagePlan, ...]) -> dict[str, CellGroups]:
    config = NetworkConfig.model_validate_json(text)
    # On a processor: the kernels of the meta device are Python, and load PyTorch's compiler.
    network = Network(config, stages=len(plans), seed=0, plans=plans)
    graph = channel_graph(network, network.blank(2))
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    return cell_groups(graph, {name: cell for _, name, cell in existing_cells(network)}, shapes)


def existing_cells(network: Network) -> list[tuple[int, str, CellPlan]]:
    """Stage, name and plan of every cell that exists, first to last."""
    return [
        (stage, f"stages.{stage}.cells.{index}", cell)
        for stage in range(len(network.stages))
        for index, cell in enumerate(network.plans[stage].cells)
    ]
