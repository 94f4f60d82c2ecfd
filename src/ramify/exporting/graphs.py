"""The forms in which a network leaves: modules to be exported, which compute what the network computes.

All are made from :func:`plain`, a copy without masks. ``images`` are float32 ``[B, C, H, W]`` in [0, 1]; normalisation
is inside.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ramify.nn.branching import Branching
from ramify.nn.exit import Grid, PooledHead
from ramify.nn.masked import Masked, MaskedConv2d, MaskedLinear
from ramify.ops.exits.policy import Policy

NOTHING = 1e-30
"""Weights nearer to 0 are exported as 0."""


def plain(network: Branching) -> Branching:
    """A copy of ``network`` on the CPU in float32 and evaluation mode, its masks multiplied into plain layers.

    Exits become :class:`PlainHead`. Its logits are those of ``network``, to the rounding of float32. What is nearer to
    0 than :data:`NOTHING` is 0: ONNX Runtime folds such numbers into denormal ones, which processors are slow at.
    """
    twin = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            fresh = _plain_layer(child)
            if fresh is not None:
                parent.register_module(name, fresh)
    for value in twin.parameters():
        value.masked_fill_(value.abs() < NOTHING, 0)
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

    Branches are ``torch.cond``, one inside the other.
    """

    def __init__(self, network: Branching, policy: Policy) -> None:
        super().__init__()
        self.network = network
        self.policy = policy

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self._from(0, self.network.enter(images), (), ())

    def _from(self, at: int, trunk: Tensor, seen: tuple[Tensor, ...], state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Stage ``at`` and those behind it.

        ``seen`` are the logits of earlier exits that are still asked for, and ``state`` the classes, the confidence,
        the exits and who stays, empty where no exit has been asked yet.
        """
        trunk, logits = self.network.run_stage(at, trunk, seen[-1] if seen else None)
        last, known = at + 1 == self.policy.exits, self.policy.known(at)
        seen = (*seen, logits) if self.policy.remembers else (logits,)
        if known is not False:
            found = self.policy.judge_at(at, torch.stack(seen))
            new = (found.classes, found.confidence, torch.full_like(found.classes, at), ~found.leaves)
            state = _merged(state, new) if state else new
        if last:
            return self._answer(at, state[:3])
        if known is False:
            # Nobody leaves here, so there is nothing to ask.
            return self._from(at + 1, trunk, seen, state)
        if not self.policy.remembers and not self.network.cascade:
            seen = ()  # only what is used may be given to a branch

        def deeper(*given: Tensor) -> tuple[Tensor, ...]:
            return self._from(at + 1, given[0], given[1 : 1 + len(seen)], given[1 + len(seen) :])

        def stop(*given: Tensor) -> tuple[Tensor, ...]:
            return self._answer(at, given[1 + len(seen) : 4 + len(seen)])

        answer: tuple[Tensor, ...] = torch.cond(state[3].any(), deeper, stop, (trunk, *seen, *state))
        return answer

    def _answer(self, at: int, answer: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # Written out as numbers, torch.export could not carry it through a branch; exported it is a constant.
        ran = (torch.arange(self.policy.exits) <= at).long()
        # A branch may not give what it was given, only copies.
        return (*(each.clone() for each in answer), ran)


def _merged(old: tuple[Tensor, ...], new: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The answers so far and those of one more exit, which counts for the pictures that have stayed."""
    stays = old[3]
    return (*(torch.where(stays, here, before) for here, before in zip(new[:3], old[:3], strict=True)), stays & new[3])


class OneJudgement(nn.Module):
    """``logits [B, C], threshold [] -> (classes, confidence, leaves)``: what the policy makes of exit ``at`` alone.

    Where the policy remembers, ``seen [at, B, C]``, the logits of the exits before, goes first. A picture leaves where
    its confidence is at least the threshold; above 1 none does. The last exit takes no threshold, and all leave.
    """

    def __init__(self, policy: Policy, at: int) -> None:
        super().__init__()
        self.policy = policy
        self.at = at

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what it reads, in the order of its arguments."""
        seen = ("seen",) if self.policy.remembers and self.at > 0 else ()
        return (*seen, "logits") if self.at + 1 == self.policy.exits else (*seen, "logits", "threshold")

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(self.inputs, given, strict=True))
        logits = named["logits"][None]
        if "seen" in named:
            logits = torch.cat((named["seen"], logits))
        classes, confidence, leaves = self.policy.judge_at(self.at, logits)
        return classes, confidence, confidence >= named["threshold"] if "threshold" in named else leaves


class AllJudgements(nn.Module):
    """Judgements side by side: what each reads, one after the other, to what each gives."""

    def __init__(self, asked: Sequence[OneJudgement]) -> None:
        super().__init__()
        self.asked = nn.ModuleList(asked)
        self.counts = [len(each.inputs) for each in asked]

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        found: list[Tensor] = []
        for each, count in zip(self.asked, self.counts, strict=True):
            found += each(*given[:count])
            given = given[count:]
        return tuple(found)
