"""A branching network of the user's own layers: each stage is a traced graph of operations with an exit behind it."""

import copy
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, fx, nn

from ramify.nn.branching import Branching
from ramify.nn.equilibrium import scale_gradient
from ramify.nn.graph import ChannelGraph, ChannelGroup, channel_graph
from ramify.nn.masked import masked_layers
from ramify.nn.resize import remove_channels
from ramify.nn.survey import ExitPoint


class AttachedStage(nn.Module):
    """The operations up to one place, and the exit there: ``trunk -> (trunk, logits [B, C])``.

    Attributes:
        body: the operations, with their layers under ``body.net`` by the names that they have in the module.
        exit: reads the trunk; None where the trunk is the logits.
    """

    def __init__(self, body: fx.GraphModule, head: nn.Module | None) -> None:
        super().__init__()
        self.body = body
        self.exit = head

    def forward(self, trunk: Tensor, share: float = 1.0) -> tuple[Tensor, Tensor]:
        trunk = self.body(trunk)
        return trunk, trunk if self.exit is None else self.exit(as_map(scale_gradient(trunk, share)))


class Attached(Branching):
    """A branching network of the user's own layers, ``images -> logits [E, B, C]``.

    :func:`ramify.attach_exits` makes one of a module, and :func:`ramify.branches` one of stages.

    Attributes:
        stages: one :class:`AttachedStage` for each exit that exists.
        pending: stages that are still to grow; they are no submodules yet.
        points: where the exits stand in the module, without the last; empty for :func:`ramify.branches`.
        frozen: whether the layers, without the exits, never learn and always stay in evaluation mode.
        frozen_parameters: the names of the parameters that never learn, also of stages to come.
    """

    any_floats = True

    def __init__(
        self,
        stages: Sequence[AttachedStage],
        input_shape: Sequence[int],
        classes: int,
        *,
        points: Sequence[ExitPoint] = (),
        frozen: bool = False,
        existing: int | None = None,
    ) -> None:
        super().__init__()
        existing = len(stages) if existing is None else existing
        self.input_shape, self.classes = tuple(input_shape), classes
        self.stages = nn.ModuleList(stages[:existing])
        self.pending = tuple(stages[existing:])
        self.points = tuple(points)
        self.frozen = frozen
        self.frozen_parameters = frozenset(
            f"stages.{at}.{name}"
            for at, stage in enumerate(stages)
            for name, parameter in stage.named_parameters()
            if not parameter.requires_grad
        )
        like = next(self.stages.parameters(), torch.empty(0))
        self.register_buffer("mean", torch.zeros(self.input_shape[0], device=like.device, dtype=like.dtype))
        self.register_buffer("std", torch.ones(self.input_shape[0], device=like.device, dtype=like.dtype))

    def enter(self, images: Tensor) -> Tensor:
        """The pictures, normalized."""
        shape = (-1, *[1] * (len(self.input_shape) - 1))
        return (images - self.mean.view(shape)) / self.std.view(shape)

    @property
    def complete(self) -> bool:
        """Whether every stage exists."""
        return not self.pending

    def append_stage(self, seed: int | None = None) -> AttachedStage:
        if self.complete:
            super().append_stage(seed)
        stage, *others = self.pending
        stage.to(self.mean).train(self.training)
        self.pending = tuple(others)
        self.stages.append(stage)
        return stage

    def internal_classifiers(self) -> list[nn.Module]:
        heads = [stage.exit for stage in self._stages() if stage.exit is not None]
        return heads[: len(self.stages) - 1] if self.complete else heads

    def exit_parameters(self) -> list[nn.Parameter]:
        """The parameters of all exits, for an optimizer."""
        return [parameter for stage in self._stages() if stage.exit for parameter in stage.exit.parameters()]

    def _stages(self) -> list[AttachedStage]:
        return [stage for stage in self.stages if isinstance(stage, AttachedStage)]

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the network; where it is ``frozen``, of the exits alone."""
        super().train(mode)
        if self.frozen:
            for stage in self._stages():
                stage.body.eval()
        return self

    def channel_groups(self) -> tuple[ChannelGroup, ...]:
        """See :func:`ramify.ops.pruning.channels.channels`: groups of layers that have masks."""
        known = masked_layers(self).keys()
        return tuple(
            group
            for group in self._graph().groups
            if known >= {place.name for place in (*group.makers, *group.readers, *group.filters, *group.gates)}
        )

    def pinned(self) -> dict[str, int]:
        """Reasons why channels cannot be removed, and how many channels each keeps."""
        return dict(self._graph().pinned)

    def _graph(self) -> ChannelGraph:
        """Stages to come read the trunk, so that its channels stay until the last one exists."""
        return channel_graph(self, self.blank(2), None if self.complete else self.trunk_and_logits)

    def smaller(self, lost: Sequence[ChannelGroup]) -> Self:
        small = copy.deepcopy(self)
        remove_channels(small, [stage.body for stage in small._stages()], lost)
        return small


def as_map(trunk: Tensor) -> Tensor:
    """``[B, C, H, W]`` as it is, ``[B, F]`` as ``[B, F, 1, 1]``, ``[B, T, F]`` as its mean over tokens, alike."""
    if trunk.ndim == 3:
        trunk = trunk.mean(dim=1)
    return trunk[:, :, None, None] if trunk.ndim == 2 else trunk
