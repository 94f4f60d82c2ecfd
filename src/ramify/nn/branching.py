"""Networks with exits: logits of all exits at once, or an answer at the first exit that is sure enough."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from ramify.errors import ConfigError, InputError
from ramify.nn.graph import ChannelGroup
from ramify.nn.modes import keeping_modes

COMPACT_FROM = 1 / 32
"""Share of a stage's pictures that must have left for the others to be copied together. To copy a picture takes a
twentieth of the time that one cell takes for it."""


class Judgement(NamedTuple):
    """Answers at an exit: ``classes`` int64 ``[B]``, ``confidence`` in [0, 1] ``[B]``, ``leaves`` bool ``[B]``."""

    classes: Tensor
    confidence: Tensor
    leaves: Tensor


class Judge(Protocol):
    """Who decides at each exit whether a picture leaves there; see :class:`ramify.ops.exits.policy.Policy`."""

    @property
    def exits(self) -> int:
        """The number of exits."""
        ...

    def judge(self, logits: Tensor) -> Judgement:
        """Judge the last of ``logits`` ``[i + 1, B, C]``, those of the exits so far; at the last exit all leave."""
        ...

    def known(self, at: int) -> bool | None:
        """Whether every picture leaves at exit ``at``, from 0; False where none does, None where it depends on it."""
        ...


class Prediction(NamedTuple):
    """Answers to a batch of pictures, each from the exit where it left.

    Attributes:
        classes: int64 ``[B]``.
        exits: int64 ``[B]``, from 0.
        confidence: float32 ``[B]`` in [0, 1].
        ran: for each stage, how many pictures were undecided when it ran.
    """

    classes: Tensor
    exits: Tensor
    confidence: Tensor
    ran: tuple[int, ...]


class Branching(nn.Module):
    """A classifier of stages, each ``trunk -> (trunk, logits [B, C])``; the last exit is the final classifier.

    In a ``cascade`` the logits of an exit are those of its stage plus those of the exit before it, as in an additive
    model (Boosted Dynamic Neural Networks, arXiv:2211.16726; Zero Time Waste, arXiv:2106.05409).

    Attributes:
        stages: those that exist, one for each exit.
        cascade: whether exits add to the logits before them.
        mean, std: float ``[channels]``, subtracted from and divided into the pictures; 0 and 1 until
            :meth:`set_normalization`. They are saved with the weights.
        input_shape: of one picture, ``(channels, height, width)``.
        classes: the number of classes.
        any_floats: whether, without a normalization, pictures are whatever the user's own module reads.
    """

    stages: nn.ModuleList
    cascade: bool = False
    any_floats: bool = False
    mean: Tensor
    std: Tensor
    input_shape: tuple[int, ...]
    classes: int

    def enter(self, images: Tensor) -> Tensor:
        """The input of the first stage, from ``images [B, channels, H, W]`` in [0, 1]."""
        raise NotImplementedError

    @property
    def complete(self) -> bool:
        """Whether every stage exists, the final classifier included."""
        return True

    def append_stage(self, seed: int | None = None) -> nn.Module:
        """Add the next stage, in the mode, precision and on the device of the others, and return it.

        Raises:
            ConfigError: the network is complete.
        """
        count = len(self.stages)
        raise ConfigError(f"stages: got {count + 1}; accepted: up to {count}, as the network is complete")

    def stage_modules(self, stage: int) -> dict[str, nn.Module]:
        """The modules that belong to a stage, counted from 0, by name."""
        return {f"stages.{stage}": self.stages[stage]}

    def internal_classifiers(self) -> list[nn.Module]:
        """The classifiers of all exits that exist but the final one, shallowest first."""
        heads = [stage.get_submodule("exit") for stage in self.stages]
        return heads[:-1] if self.complete else heads

    def channel_groups(self) -> tuple[ChannelGroup, ...]:
        """The groups of channels that the network can lose, in the order in which it makes them."""
        raise NotImplementedError

    def smaller(self, lost: Sequence[ChannelGroup]) -> Self:
        """A network of this shape without the channels in ``lost``, some of :meth:`channel_groups`, of any weights."""
        raise NotImplementedError

    def inner_groups(self, stage: int) -> tuple[ChannelGroup, ...]:
        """The groups of channels between layers of a stage, and perhaps others: those that can gain channels."""
        return self.channel_groups()

    def why_not_widened(self, stage: int) -> str:
        """Why a stage cannot gain channels; empty if it may."""
        return ""

    def note_widths(self, stage: int, channels: int) -> None:
        """Record that each place in a stage that can gain channels has gained ``channels``."""

    def blank(self, count: int = 1) -> Tensor:
        """``count`` pictures of zeros, on the network's device and in its precision."""
        return torch.zeros(count, *self.input_shape, device=self.mean.device, dtype=self.mean.dtype)

    def set_normalization(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set ``mean`` and ``std``, one number for each channel, in units of pictures in [0, 1].

        Raises:
            ConfigError: not one number for each channel, or a ``std`` that is not positive.
        """
        channels = self.mean.numel()
        if len(mean) != channels or len(std) != channels or not all(value > 0 for value in std):
            raise ConfigError(
                f"normalization: got mean {list(mean)}, std {list(std)}; accepted: {channels} numbers each, std > 0"
            )
        self.mean.copy_(torch.tensor(mean))
        self.std.copy_(torch.tensor(std))

    def forward(self, images: Tensor) -> Tensor:
        """The logits of every exit, ``[E, B, C]``.

        Raises:
            InputError: in evaluation mode, the pictures are whole numbers, or have values above 1.
        """
        if not self.training:
            self.check(images)
        return torch.stack(self.exit_logits(images))

    def check(self, images: Tensor) -> None:
        """As :func:`check_images`; with ``any_floats`` and without a normalization any floats will do."""
        try:
            check_images(images)
        except InputError:
            normalized = bool((self.mean != 0).any() or (self.std != 1).any())
            if normalized or not (self.any_floats and images.is_floating_point()):
                raise

    def classify(self, images: Tensor) -> Tensor:
        """The class of each of ``images [B, channels, H, W]`` at the last exit, int64 ``[B]``, in evaluation mode.

        Example:
            >>> import ramify
            >>> config = ramify.NetworkConfig(structure=(1,), input_shape=(1, 8, 8), classes=10)
            >>> ramify.Network(config).classify(torch.rand(5, 1, 8, 8)).shape
            torch.Size([5])
        """
        with keeping_modes(self), torch.inference_mode():
            logits: Tensor = self.eval()(images)
        return logits[-1].argmax(dim=1)

    def exit_logits(self, images: Tensor) -> list[Tensor]:
        """The logits ``[B, C]`` of each exit, shallowest first."""
        return self.trunk_and_logits(images)[1]

    def trunk_and_logits(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The trunk behind the last stage that exists, and the logits ``[B, C]`` of each exit, shallowest first."""
        trunk = self.enter(images)
        logits: list[Tensor] = []
        for at in range(len(self.stages)):
            trunk, own = self.run_stage(at, trunk, logits[-1] if logits else None)
            logits.append(own)
        return trunk, logits

    def run_stage(
        self, at: int, trunk: Tensor, before: Tensor | None, share: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """The trunk behind stage ``at``, and the logits ``[B, C]`` of its exit.

        Args:
            at: a stage that exists, from 0.
            trunk: from the stage before it, or :meth:`enter`.
            before: the logits ``[B, C]`` of the exit before it, used in a cascade alone; None for the first.
            share: of its exit's gradient that goes into the trunk (:mod:`ramify.nn.equilibrium`).
        """
        trunk, logits = self.stages[at](trunk) if share is None else self.stages[at](trunk, share)
        return trunk, before + logits if self.cascade and before is not None else logits

    def predict(self, images: Tensor, policy: Judge) -> Prediction:
        """Answer each picture at the first exit where ``policy`` lets it leave, in evaluation mode, without gradients.

        A stage computes only the pictures that are still undecided.

        Args:
            images: ``[B, channels, H, W]`` in [0, 1], on the network's device.
            policy: for as many exits as there are.

        Raises:
            InputError: ``policy`` is made for another number of exits, or the pictures have values above 1.

        Example:
            >>> import ramify
            >>> config = ramify.NetworkConfig(kind="full_ic", structure=(0, 1, 0), input_shape=(1, 8, 8), classes=10)
            >>> policy = ramify.Policy(thresholds=(0.0,))  # everything leaves at the first exit
            >>> answer = ramify.Network(config).predict(torch.rand(5, 1, 8, 8), policy)
            >>> answer.exits.tolist(), answer.ran
            ([0, 0, 0, 0, 0], (5, 0))
        """
        self.check(images)
        if policy.exits != len(self.stages):
            raise InputError(f"policy: got one for {policy.exits} exits; accepted: for {len(self.stages)}, which exist")
        training = self.training
        if training:
            self.eval()
        try:
            with torch.inference_mode():
                return _answer(self, self.enter(images), policy)
        finally:
            if training:
                self.train()


def stage_of(name: str) -> int:
    """The stage of a layer or tensor, from 0, by its name in a network; the stem belongs to the first."""
    first, *rest = name.split(".")
    return int(rest[0]) if first == "stages" else 0


def check_images(images: Tensor) -> None:
    """Check that pictures are floats with values up to 1.

    On a GPU this waits for the device. Nothing is checked while a graph is recorded or compiled.

    Raises:
        InputError: they are whole numbers, or have values above 1.

    Example:
        >>> check_images(torch.tensor([[[[255]]]], dtype=torch.uint8))
        Traceback (most recent call last):
            ...
        ramify.errors.InputError: images: got uint8; accepted: floats with values in [0, 1], as images / 255 makes them
    """
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]  # its module has no types
    if type(images) is not Tensor or images.is_meta or tracing or torch.compiler.is_compiling():
        return
    accepted = "accepted: floats with values in [0, 1], as images / 255 makes them"
    if not images.is_floating_point():
        raise InputError(f"images: got {str(images.dtype).removeprefix('torch.')}; {accepted}")
    if images.numel() == 0 or (images.is_cuda and torch.cuda.is_current_stream_capturing()):
        return
    highest = float(images.detach().amax())
    if highest > 1:
        raise InputError(f"images: got values up to {highest:g}; {accepted}")


def _answer(network: Branching, trunk: Tensor, policy: Judge) -> Prediction:
    count, device = len(trunk), trunk.device
    if count == 1:
        return _answer_one(network, trunk, policy)
    classes, exits = torch.zeros(2, count, dtype=torch.int64, device=device)
    confidence = torch.zeros(count, device=device)
    rows = torch.arange(count, device=device)  # which picture each row of the trunk is
    undecided = torch.ones(count, dtype=torch.bool, device=device)  # of the rows
    left = count
    seen: list[Tensor] = []
    ran = [0] * len(network.stages)
    for index in range(len(ran)):
        if left == 0:
            break
        ran[index] = left
        trunk, logits = network.run_stage(index, trunk, seen[-1] if seen else None)
        seen.append(logits)
        known = policy.known(index)
        if known is False:
            continue
        judgement = policy.judge(_stacked(seen))
        leaves = undecided if known else judgement.leaves & undecided
        leaving = leaves.nonzero()[:, 0]
        if len(leaving) == 0:
            continue
        pictures = rows[leaving]
        classes[pictures] = judgement.classes[leaving]
        confidence[pictures] = judgement.confidence[leaving].float()
        exits[pictures] = index
        left -= len(leaving)
        undecided = undecided & ~leaves
        if 0 < left <= (1 - COMPACT_FROM) * len(rows):
            stay = undecided.nonzero()[:, 0]
            trunk, rows, undecided = _select_rows(trunk, stay), rows[stay], undecided[stay]
            seen = [logits[stay] for logits in seen]
    return Prediction(classes, exits, confidence, tuple(ran))


def _answer_one(network: Branching, trunk: Tensor, policy: Judge) -> Prediction:
    """One picture: one value is read back at each exit that must be judged."""
    seen: list[Tensor] = []
    stages = len(network.stages)
    for index in range(stages):
        trunk, logits = network.run_stage(index, trunk, seen[-1] if seen else None)
        seen.append(logits)
        known = policy.known(index)
        if known is False:
            continue
        judgement = policy.judge(_stacked(seen))
        if known or judgement.leaves.item():
            break
    ran = tuple(int(at <= index) for at in range(stages))
    return Prediction(judgement.classes, torch.full_like(judgement.classes, index), judgement.confidence.float(), ran)


def _stacked(seen: Sequence[Tensor]) -> Tensor:
    return seen[0][None] if len(seen) == 1 else torch.stack(tuple(seen))


def _select_rows(trunk: Tensor, rows: Tensor) -> Tensor:
    """``trunk[rows]``, in its layout. Pictures that lie channels last are copied whole, not value by value."""
    if trunk.dim() != 4 or not trunk.is_contiguous(memory_format=torch.channels_last):
        return trunk[rows]
    _, channels, height, width = trunk.shape
    whole = trunk.permute(0, 2, 3, 1).reshape(len(trunk), -1).index_select(0, rows)
    return whole.view(len(rows), height, width, channels).permute(0, 3, 1, 2)
