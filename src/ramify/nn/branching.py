"""What every network with exits does: logits of all of them at once, or an answer at the first that is sure enough."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from ramify.errors import ConfigError, InputError
from ramify.nn.graph import ChannelGroup

WORTH_SORTING_OUT = 1 / 32
"""Of the pictures that a stage carries, the share that must have left for the others to be copied together. To copy
a picture takes a twentieth of the time that one cell takes for it; with fewer gone, they are computed on unheeded."""


class Judgement(NamedTuple):
    """What one exit makes of a batch: its answers, how sure it is of each, and which pictures it lets go.

    ``classes`` int64 ``[B]``, ``confidence`` float in [0, 1] ``[B]``, ``leaves`` bool ``[B]``.
    """

    classes: Tensor
    confidence: Tensor
    leaves: Tensor


class Judge(Protocol):
    """Who decides at each exit whether a picture leaves there; see :class:`ramify.ops.exits.policy.Policy`."""

    @property
    def exits(self) -> int:
        """For how many exits it is made."""
        ...

    def judge(self, logits: Tensor) -> Judgement:
        """Judge the last of ``logits`` ``[i + 1, B, C]``, those of the exits so far; the last exit lets all go."""
        ...

    def known(self, at: int) -> bool | None:
        """What is known of exit ``at``, from 0, before its logits are seen: True where every picture leaves there,
        False where none does, so that it need not be judged, None where it depends on the picture."""
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
    """A classifier of stages, each ``trunk -> (trunk, logits [B, C])``, the last exit being the final classifier.

    In a ``cascade`` an exit answers with the sum of what its stage gives and of what the exit before it answers, as in
    an additive model (Boosted Dynamic Neural Networks, arXiv:2211.16726; Zero Time Waste, arXiv:2106.05409): a later
    exit corrects the earlier ones, and none of their work is lost. Whoever runs stages one by one does so by
    :meth:`run_stage`, and hands on the logits with the trunk.

    In training a stage takes a second argument, the share of its exit's gradient that goes into the trunk (see
    :mod:`ramify.nn.equilibrium`).

    Attributes:
        stages: those that exist, one for each exit.
        cascade: whether exits add to the answers before them.
        mean, std: float ``[channels]``, subtracted from and divided into the pictures; 0 and 1 until
            :meth:`set_normalization`. They are saved with the weights, so a loaded network reads pictures as the
            trained one did.
        input_shape: of one picture, ``(channels, height, width)``.
        classes: how many there are.
    """

    stages: nn.ModuleList
    cascade: bool = False
    mean: Tensor
    std: Tensor
    input_shape: tuple[int, ...]
    classes: int

    def enter(self, images: Tensor) -> Tensor:
        """What the first stage reads, made of ``images [B, channels, H, W]`` in [0, 1]."""
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
        there = len(self.stages)
        raise ConfigError(f"stages: got {there + 1}; accepted: up to {there}, as the network is complete")

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
        """A network of this shape without the channels in ``lost``, some of :meth:`channel_groups`.

        Its weights are of no account: it is to be given those that stay.
        """
        raise NotImplementedError

    def inner_groups(self, stage: int) -> tuple[ChannelGroup, ...]:
        """The groups among which those are that lie between layers of a stage, and can gain channels."""
        return self.channel_groups()

    def why_not_widened(self, stage: int) -> str:
        """Why a stage cannot gain channels; empty if it may."""
        return ""

    def note_widths(self, stage: int, channels: int) -> None:
        """Take note that every place in a stage that could has gained so many channels."""

    def blank(self, count: int = 1) -> Tensor:
        """``count`` pictures of zeros as the network takes them, on its device and in its precision."""
        return torch.zeros(count, *self.input_shape, device=self.mean.device, dtype=self.mean.dtype)

    def set_normalization(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Normalize pictures by ``mean`` and ``std``, one number for each channel, in units of pictures in [0, 1].

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
        """See that ``images`` are floats up to 1; while a graph is recorded there are no values to look at.

        Raises:
            InputError: they are whole numbers, or have values above 1.
        """
        check_images(images)

    def classify(self, images: Tensor) -> Tensor:
        """The class that the last exit gives each picture, int64 ``[B]``; in evaluation mode, without gradients.

        Args:
            images: ``[B, channels, H, W]`` in [0, 1], on the network's device.

        Example:
            >>> import ramify
            >>> config = ramify.NetworkConfig(structure=(1,), input_shape=(1, 8, 8), classes=10)
            >>> ramify.Network(config).classify(torch.rand(5, 1, 8, 8)).shape
            torch.Size([5])
        """
        training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                logits: Tensor = self(images)
        finally:
            self.train(training)
        return logits[-1].argmax(dim=1)

    def exit_logits(self, images: Tensor) -> list[Tensor]:
        """The logits ``[B, C]`` of each exit, shallowest first."""
        trunk, logits = self.enter(images), None
        found: list[Tensor] = []
        for at in range(len(self.stages)):
            trunk, logits = self.run_stage(at, trunk, logits)
            found.append(logits)
        return found

    def run_stage(
        self, at: int, trunk: Tensor, before: Tensor | None, share: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """What stage ``at``, from 0, makes of the trunk, and the logits ``[B, C]`` with which its exit answers.

        Args:
            at: a stage that exists.
            trunk: what the stage before it gave, or :meth:`enter`.
            before: the logits ``[B, C]`` of the exit before it, which count in a cascade alone; None for the first.
            share: the second argument of the stage, where it trains in gradient equilibrium.
        """
        trunk, logits = self.stages[at](trunk) if share is None else self.stages[at](trunk, share)
        return trunk, before + logits if self.cascade and before is not None else logits

    def predict(self, images: Tensor, policy: Judge) -> Prediction:
        """Answer each picture at the first exit that ``policy`` lets it leave from.

        A stage computes only the pictures that are still undecided; a single picture stops at its exit. The network
        computes in evaluation mode, without gradients, and is left in the mode it had.

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


def check_images(images: Tensor) -> None:
    """See that pictures are floats with values up to 1, as networks read them.

    On a GPU this waits for the device, once for a batch. Nothing is looked at while a graph is recorded or compiled.

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
        found = policy.judge(_stacked(seen))
        leaves = undecided if known else found.leaves & undecided
        gone = leaves.nonzero()[:, 0]
        if len(gone) == 0:
            continue
        leaving = rows[gone]
        classes[leaving] = found.classes[gone]
        confidence[leaving] = found.confidence[gone].float()
        exits[leaving] = index
        left -= len(gone)
        undecided = undecided & ~leaves
        if 0 < left <= (1 - WORTH_SORTING_OUT) * len(rows):
            stay = undecided.nonzero()[:, 0]
            trunk, rows, undecided = _taken(trunk, stay), rows[stay], undecided[stay]
            seen = [each[stay] for each in seen]
    return Prediction(classes, exits, confidence, tuple(ran))


def _answer_one(network: Branching, trunk: Tensor, policy: Judge) -> Prediction:
    """One picture: there is nothing to sort out, and one value is read back at each exit that must be judged."""
    seen: list[Tensor] = []
    stages = len(network.stages)
    for index in range(stages):
        trunk, logits = network.run_stage(index, trunk, seen[-1] if seen else None)
        seen.append(logits)
        known = policy.known(index)
        if known is False:
            continue
        found = policy.judge(_stacked(seen))
        if known or found.leaves.item():
            break
    ran = tuple(int(at <= index) for at in range(stages))
    return Prediction(found.classes, torch.full_like(found.classes, index), found.confidence.float(), ran)


def _stacked(seen: Sequence[Tensor]) -> Tensor:
    return seen[0][None] if len(seen) == 1 else torch.stack(tuple(seen))


def _taken(trunk: Tensor, rows: Tensor) -> Tensor:
    """``trunk[rows]``, in its layout. Pictures that lie channels last are copied whole, not value by value."""
    if trunk.dim() != 4 or not trunk.is_contiguous(memory_format=torch.channels_last):
        return trunk[rows]
    _, channels, height, width = trunk.shape
    whole = trunk.permute(0, 2, 3, 1).reshape(len(trunk), -1).index_select(0, rows)
    return whole.view(len(rows), height, width, channels).permute(0, 3, 1, 2)
