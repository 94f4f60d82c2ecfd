"""The forms in which a network leaves: modules to be exported, which compute what the network computes.

All are made from :func:`plain`, a copy without masks. ``images`` are float32 ``[B, C, H, W]`` in [0, 1]; normalisation
is inside.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ramify.nn.branching import Branching
from ramify.nn.exit import Grid, PooledHead
from ramify.nn.masked import Masked, MaskedConv2d, MaskedLinear
from ramify.ops.policy import Policy
from ramify.ship.judge import State, judge


def plain(network: Branching) -> Branching:
    """A copy of ``network`` on the CPU in float32 and evaluation mode, its masks multiplied into plain layers.

    Exits become :class:`PlainHead`. Its logits are those of ``network``, to the rounding of float32.
    """
    twin = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            fresh = _plain_layer(child)
            if fresh is not None:
                parent.register_module(name, fresh)
    return twin


def _plain_layer(layer: nn.Module) -> nn.Module | None:
    if isinstance(layer, PooledHead):
        return PlainHead(layer)
    return _unmasked(layer) if isinstance(layer, MaskedConv2d | MaskedLinear) else None


def _unmasked(layer: Masked) -> nn.Conv2d | nn.Linear:
    """A layer of PyTorch with the weights that are not masked, and all else that ``layer`` has."""
    kind: type[nn.Conv2d] | type[nn.Linear] = nn.Conv2d if isinstance(layer, MaskedConv2d) else nn.Linear
    fresh = kind.__new__(kind)
    fresh.__dict__ = {key: copy.copy(value) if key.startswith("_") else value for key, value in layer.__dict__.items()}
    fresh.weight = nn.Parameter((layer.weight * layer.mask).detach(), requires_grad=False)
    del fresh.mask
    return fresh


class PlainHead(nn.Module):
    """A :class:`~ramify.nn.exit.PooledHead` in operations that ONNX has, ``[B, C, H, W] -> [B, classes]``.

    Where the grid does not divide the map, adaptive pooling has windows of several sizes, for which ONNX has no
    operation; they are the outer product of windows of rows and windows of columns, so slices do.
    """

    def __init__(self, head: PooledHead) -> None:
        super().__init__()
        self.grid = head.grid
        self.conv = None if head.conv is None else _unmasked(head.conv)
        self.norm = head.norm
        self.share = float(head.share) if head.fixed is None else head.fixed
        self.linear = _unmasked(head.linear)

    def forward(self, x: Tensor) -> Tensor:
        if self.conv is not None:
            x = self.conv(x)
        if self.norm is not None:
            x = torch.relu(self.norm(x))
        logits: Tensor = self.linear(self.pool(x).flatten(1))
        return logits

    def pool(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, C, *grid]``."""
        if self.share == 0.0:
            return _pooled(x, self.grid, largest=False)
        if self.share == 1.0:
            return _pooled(x, self.grid, largest=True)
        mean, high = _pooled(x, self.grid, largest=False), _pooled(x, self.grid, largest=True)
        return mean + self.share * (high - mean)


def _pooled(x: Tensor, grid: Grid, largest: bool) -> Tensor:
    height, width = x.shape[2], x.shape[3]
    if (height, width) == grid:
        return x
    if height % grid[0] == 0 and width % grid[1] == 0:
        window = height // grid[0], width // grid[1]
        pool: Callable[..., Tensor] = nn.functional.max_pool2d if largest else nn.functional.avg_pool2d
        return pool(x, window)
    for dim in (2, 3):
        size, cells = x.shape[dim], grid[dim - 2]
        bins = [x.narrow(dim, i * size // cells, -(-(i + 1) * size // cells) - i * size // cells) for i in range(cells)]
        x = torch.cat([each.amax(dim, keepdim=True) if largest else each.mean(dim, keepdim=True) for each in bins], dim)
    return x


class AllExits(nn.Module):
    """``images -> logits [E, B, classes]``."""

    def __init__(self, network: Branching) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits


class OneStage(nn.Module):
    """Stage ``at`` alone: it reads ``images`` if it is the first, else the ``trunk`` of the one before.

    In a cascade it reads ``before`` as well, the logits ``[B, classes]`` that the one before gave, and adds to them. It
    gives ``(trunk, logits [B, classes])``, the last one only the logits.
    """

    def __init__(self, network: Branching, at: int) -> None:
        super().__init__()
        self.network = network
        self.at = at

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what it reads, in the order of its arguments."""
        if self.at == 0:
            return ("images",)
        return ("trunk", "before") if self.network.cascade else ("trunk",)

    def forward(self, given: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor] | Tensor:
        trunk = self.network.enter(given) if self.at == 0 else given
        trunk, logits = self.network.run_stage(self.at, trunk, before)
        return logits if self.at + 1 == len(self.network.stages) else (trunk, logits)


class EarlyExit(nn.Module):
    """``images -> (classes, confidence, exits, ran)``: a stage is computed if a picture of the batch is undecided.

    ``classes`` int64, ``confidence`` float32 and ``exits`` int64 (from 0) are ``[B]``, the same as
    :meth:`ramify.nn.branching.Branching.predict` gives; ``ran`` int64 ``[E]`` is 1 for each stage that was executed. It
    is a constant of the branch that was taken, so it can say nothing else than what happened.

    Branches are ``torch.cond``, one inside the other, and become ``If`` in ONNX.
    """

    def __init__(self, network: Branching, policy: Policy) -> None:
        super().__init__()
        self.network = network
        self.policy = policy

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self._from(0, self.network.enter(images), None, State())

    def _from(self, at: int, trunk: Tensor, before: Tensor | None, state: State) -> tuple[Tensor, ...]:
        """Stage ``at`` and those behind it."""
        trunk, logits = self.network.run_stage(at, trunk, before)
        state = judge(self.policy, at, logits, state)
        if at + 1 == self.policy.exits:
            return self._answer(at, state)
        if self.policy.thresholds[at] is None:
            # Nobody leaves here, so there is nothing to ask.
            return self._from(at + 1, trunk, logits, state)

        # Only what is used may be given to a branch.
        carried = (trunk, logits) if self.network.cascade else (trunk,)
        names, values = state.known.keys(), tuple(state.known.values())

        def deeper(*given: Tensor) -> tuple[Tensor, ...]:
            trunk, *before = given[: len(carried)]
            known = State(**dict(zip(names, given[len(carried) :], strict=True)))
            return self._from(at + 1, trunk, before[0] if before else None, known)

        def stop(*given: Tensor) -> tuple[Tensor, ...]:
            return self._answer(at, State(**dict(zip(names, given[len(carried) :], strict=True))))

        assert state.stays is not None
        answer: tuple[Tensor, ...] = torch.cond(state.stays.any(), deeper, stop, (*carried, *values))
        return answer

    def _answer(self, at: int, state: State) -> tuple[Tensor, ...]:
        assert state.classes is not None
        assert state.confidence is not None
        assert state.exits is not None
        # Written out as numbers, torch.export could not carry it through a branch; exported it is a constant.
        ran = (torch.arange(self.policy.exits) <= at).long()
        # A branch may not give what it was given, only copies.
        return state.classes.clone(), state.confidence.clone(), state.exits.clone(), ran


class OneJudgement(nn.Module):
    """What the policy makes of exit ``at`` alone: :func:`ramify.ship.judge.judge` of logits ``[B, classes]``.

    Attributes:
        given: names of what it reads behind the logits, fields of :class:`~ramify.ship.judge.State`.
        gives: names of what it computes anew; where a picture can stay, ``go`` comes last, a bool: whether one does.
    """

    def __init__(self, policy: Policy, at: int) -> None:
        super().__init__()
        self.policy = policy
        self.at = at
        last = at == policy.exits - 1
        patient = ("latest", "streak") if policy.criterion == "patience" else ()
        asked = any(threshold is not None for threshold in policy.thresholds[:at])
        self.given = (("classes", "confidence", "exits", "stays") if asked else ()) + (patient if at > 0 else ())
        answers = ("classes", "confidence", "exits")
        if last:
            self.gives: tuple[str, ...] = answers
        elif policy.thresholds[at] is None:
            self.gives = patient
        else:
            self.gives = (*answers, "stays", *patient, "go")

    def forward(self, logits: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        state = judge(self.policy, self.at, logits, State(**dict(zip(self.given, given, strict=True))))
        found = state.known
        if state.stays is not None:
            found["go"] = state.stays.any()
        return tuple(found[name] for name in self.gives)
