"""The network: a stem, then stages, each ending in an exit; ``forward`` gives the logits of every exit.

Depth is data: a :class:`~ramify.config.NetworkConfig` and a number of stages rebuild a network exactly,
so a saved one always loads strictly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.config import Config, NetworkConfig
from ramify.errors import ConfigError
from ramify.nn.cell import CELLS, Cell
from ramify.nn.exit import EXITS, FINAL, Exit
from ramify.nn.masked import MaskedConv2d
from ramify.seeds import drawing


@dataclass(frozen=True)
class CellPlan:
    """Channels of one cell: what it reads, what lies between its two layers, what it gives.

    ``projects`` says whether its shortcut is a 1x1 convolution; it is a fact of its own, since compaction may
    leave a projected shortcut with as many channels on both sides.
    """

    in_channels: int
    inner_channels: int
    out_channels: int
    projects: bool


@dataclass(frozen=True)
class StagePlan:
    """One stage: its cells (perhaps none), and the last channels of the trunk that its exit reads."""

    cells: tuple[CellPlan, ...]
    exit_channels: int
    final: bool


def plan(config: NetworkConfig) -> tuple[StagePlan, ...]:
    """Every stage of the grown network, first to last.

    In a chain a cell reads the cell before it; in ``dense`` wiring it reads the stem's and all earlier cells'
    outputs side by side, and so does the final classifier. If the last cell carries an internal classifier,
    the last stage is the final classifier alone.

    Example:
        >>> [len(stage.cells) for stage in plan(NetworkConfig(structure=(0, 0, 1, 0, 1)))]
        [3, 2, 0]
    """
    dense, channels = config.kind == "dense", config.channels
    stages: list[StagePlan] = []
    cells: list[CellPlan] = []
    trunk = channels
    for carries_exit in config.structure:
        projects = config.cell == "basic" and trunk != channels
        cells.append(CellPlan(trunk, channels, channels, projects))
        trunk = trunk + channels if dense else channels
        if carries_exit and config.kind != "full":
            stages.append(StagePlan(tuple(cells), channels, final=False))
            cells = []
    stages.append(StagePlan(tuple(cells), trunk, final=True))
    return tuple(stages)


class Stem(nn.Module):
    """The first block of layers, ``[B, in, H, W] -> [B, out, H, W]``."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = MaskedConv2d(in_channels, out_channels, 3)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class Stage(nn.Module):
    """The cells up to and including one exit: ``trunk -> (trunk, logits [B, C])``.

    The trunk is what the next stage reads: the last cell's output ``[B, channels, H, W]`` in a chain, the
    concatenation of all outputs so far in dense wiring.
    """

    def __init__(self, plan: StagePlan, classes: int, cell: Cell, head: Exit, dense: bool) -> None:
        super().__init__()
        self.plan = plan
        self.dense = dense
        self.cells = nn.ModuleList(
            cell(c.in_channels, c.inner_channels, c.out_channels, c.projects) for c in plan.cells
        )
        self.exit = (FINAL if plan.final else head)(plan.exit_channels, classes)

    def forward(self, trunk: Tensor) -> tuple[Tensor, Tensor]:
        for cell in self.cells:
            output: Tensor = cell(trunk)
            trunk = torch.cat((trunk, output), dim=1) if self.dense else output
        logits: Tensor = self.exit(trunk[:, -self.plan.exit_channels :])
        return trunk, logits


class Network(nn.Module):
    """A branching classifier, ``images [B, channels, H, W] in [0, 1] -> logits [E, B, C]`` for the E exits it has.

    Args:
        config: what the network is, or a whole configuration, of which the section ``network`` is taken;
            ``input_shape`` and ``classes`` must be set.
        stages: how many of its stages exist; None for those its kind starts with.
        seed: seed of the weights, in which every stage has its own, so that a stage starts with the same
            weights whether it was there from birth or grown later. None draws from PyTorch's generator.
        plans: widths of every stage where they are not those of ``config``, as compaction leaves them.

    Attributes:
        stages: the stages that exist, each with one exit.
        mean, std: float ``[channels]``, subtracted from and divided into the pictures before the stem; 0 and 1
            until :meth:`set_normalisation`. They are saved with the weights, so a loaded network reads
            pictures as the trained one did.

    Raises:
        ConfigError: ``config`` is not complete, or ``stages`` is out of range.

    Example:
        >>> config = NetworkConfig(structure=(0, 1, 0), input_shape=(1, 8, 8), classes=10)
        >>> Network(config)(torch.rand(5, 1, 8, 8)).shape
        torch.Size([1, 5, 10])
        >>> Network(config, stages=2)(torch.rand(5, 1, 8, 8)).shape
        torch.Size([2, 5, 10])
    """

    mean: Tensor
    std: Tensor

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
        self.plans = plan(config) if plans is None else plans
        in_channels = config.input_shape[0]
        self.register_buffer("mean", torch.zeros(in_channels))
        self.register_buffer("std", torch.ones(in_channels))
        with drawing(seed, "stem"):
            self.stem = Stem(in_channels, config.channels)
        self.stages = nn.ModuleList()
        for _ in range(stages):
            self.append_stage(seed)

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack(self.exit_logits(images))  # [E, B, C]

    def exit_logits(self, images: Tensor) -> list[Tensor]:
        """The logits ``[B, C]`` of each exit, shallowest first."""
        trunk = self.stem((images - self.mean[:, None, None]) / self.std[:, None, None])
        found: list[Tensor] = []
        for stage in self.stages:
            trunk, logits = stage(trunk)
            found.append(logits)
        return found

    @property
    def complete(self) -> bool:
        """Whether every stage exists, the final classifier included."""
        return len(self.stages) == len(self.plans)

    def append_stage(self, seed: int | None = None) -> Stage:
        """Add the next stage with fresh weights, on the device and in the mode of the others, and return it.

        Raises:
            ConfigError: the network is complete.
        """
        index = len(self.stages)
        if self.complete:
            raise ConfigError(f"stages: got {index + 1}; accepted: up to {index}, as the network is complete")
        config = self.config
        assert config.classes is not None
        with drawing(seed, "stage", index):
            stage = Stage(
                self.plans[index], config.classes, CELLS[config.cell], EXITS[config.exit], config.kind == "dense"
            )
        stage.to(self.mean.device).train(self.training)
        self.stages.append(stage)
        return stage

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Normalise pictures by ``mean`` and ``std``, one number for each channel, in units of pictures in [0, 1].

        Raises:
            ConfigError: not one number for each channel, or a ``std`` that is not positive.
        """
        channels = self.mean.numel()
        if len(mean) != channels or len(std) != channels or not all(value > 0 for value in std):
            raise ConfigError(
                f"normalisation: got mean {list(mean)}, std {list(std)}; accepted: {channels} numbers each, std > 0"
            )
        self.mean.copy_(torch.tensor(mean))
        self.std.copy_(torch.tensor(std))
