"""Modules to be exported, which compute what the network computes.

All are made from :func:`plain`, a copy without masks. ``images`` are float32 ``[B, C, H, W]`` in [0, 1]; normalization
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
    """A copy of ``network`` on the CPU in float32 and evaluation mode, with masks multiplied into plain layers.

    Exits become :class:`PlainHead`. Logits are those of ``network`` to the rounding of float32. Weights below
    :data:`NOTHING` become 0: ONNX Runtime would fold them into denormal numbers, which processors are slow at.
    """
    twin = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, PooledHead):
                parent.register_module(name, PlainHead(child))
            elif isinstance(child, MaskedConv2d | MaskedLinear):
                parent.register_module(name, _unmasked(child))
    for value in twin.parameters():
        value.masked_fill_(value.abs() < NOTHING, 0)
    return twin


def _unmasked(layer: Masked) -> nn.Conv2d | nn.Linear:
    """``layer`` as a plain PyTorch layer, with masked weights set to zero."""
    kind: type[nn.Conv2d] | type[nn.Linear] = nn.Conv2d if isinstance(layer, MaskedConv2d) else nn.Linear
    fresh = kind.__new__(kind)
    fresh.__dict__ = {key: copy.copy(value) if key.startswith("_") else value for key, value in layer.__dict__.items()}
    fresh.weight = nn.Parameter((layer.weight * layer.mask).detach(), requires_grad=False)
    del fresh.mask
    return fresh


class PlainHead(nn.Module):
    """A :class:`~ramify.nn.exit.PooledHead` in ONNX operations, ``[B, C, H, W] -> [B, classes]``.

    Where the grid does not divide the map, adaptive pooling has windows of several sizes, which ONNX lacks; they are
    products of row windows and column windows, so they are computed by slices.
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
        x = torch.cat([b.amax(dim, keepdim=True) if largest else b.mean(dim, keepdim=True) for b in bins], dim)
    return x


class OneStage(nn.Module):
    """Stage ``at`` alone: it reads ``images`` if it is the first, else the ``trunk`` of the stage before.

    In a cascade it also reads ``before``, the logits ``[B, classes]`` of the stage before, and adds to them. It
    returns ``(trunk, logits [B, classes])``, the last stage only the logits.
    """

    def __init__(self, network: Branching, at: int) -> None:
        super().__init__()
        self.network = network
        self.at = at

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of its arguments."""
        if self.at == 0:
            return ("images",)
        return ("trunk", "before") if self.network.cascade else ("trunk",)

    def forward(self, trunk: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor] | Tensor:
        if self.at == 0:
            trunk = self.network.enter(trunk)
        trunk, logits = self.network.run_stage(self.at, trunk, before)
        return logits if self.at + 1 == len(self.network.stages) else (trunk, logits)


class EarlyExit(nn.Module):
    """``images -> (classes, confidence, exits, ran)``: a stage is computed if a picture of the batch is undecided.

    ``classes`` int64, ``confidence`` float32 and ``exits`` int64 (from 0) are ``[B]``, as of
    :meth:`ramify.nn.branching.Branching.predict`; ``ran`` int64 ``[E]`` is 1 for each stage that was executed, a
    constant of the branch that was taken. Branches are nested ``torch.cond``.
    """

    def __init__(self, network: Branching, policy: Policy) -> None:
        super().__init__()
        self.network = network
        self.policy = policy

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self._from(0, self.network.enter(images), (), ())

    def _from(self, at: int, trunk: Tensor, seen: tuple[Tensor, ...], state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Stage ``at`` and all later ones.

        ``seen`` are the logits of earlier exits that are still needed; ``state`` is classes, confidence, exits and
        which pictures stay, empty before the first decision.
        """
        trunk, logits = self.network.run_stage(at, trunk, seen[-1] if seen else None)
        last, known = at + 1 == self.policy.exits, self.policy.known(at)
        seen = (*seen, logits) if self.policy.remembers else (logits,)
        if known is not False:
            classes, confidence, leaves = self.policy.judge_at(at, torch.stack(seen))
            new = (classes, confidence, torch.full_like(classes, at), ~leaves)
            state = _merged(state, new) if state else new
        if last:
            return self._answer(at, state[:3])
        if known is False:  # no picture leaves here
            return self._from(at + 1, trunk, seen, state)
        if not self.policy.remembers and not self.network.cascade:
            seen = ()  # a branch may only take what it uses

        def deeper(trunk: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            return self._from(at + 1, trunk, rest[: len(seen)], rest[len(seen) :])

        def stop(_: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            return self._answer(at, rest[len(seen) : len(seen) + 3])

        answer: tuple[Tensor, ...] = torch.cond(state[3].any(), deeper, stop, (trunk, *seen, *state))
        return answer

    def _answer(self, at: int, answer: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # torch.export cannot carry a literal tensor through a branch; this becomes a constant.
        ran = (torch.arange(self.policy.exits) <= at).long()
        # A branch may not return its arguments, only copies.
        return (*(tensor.clone() for tensor in answer), ran)


def _merged(old: tuple[Tensor, ...], new: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The answers so far, with those of one more exit for the pictures that have not left before."""
    stays = old[3]
    return (*(torch.where(stays, here, before) for here, before in zip(new[:3], old[:3], strict=True)), stays & new[3])


class OneJudgement(nn.Module):
    """``logits [B, C], threshold [] -> (classes, confidence, leaves)``: the decision of the policy at exit ``at``.

    Where the policy remembers, ``seen [at, B, C]``, the logits of the exits before, goes first. A picture leaves where
    its confidence is at least the threshold; above 1 none does. The last exit takes no threshold: all leave.
    """

    def __init__(self, policy: Policy, at: int) -> None:
        super().__init__()
        self.policy = policy
        self.at = at

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of its arguments."""
        seen = ("seen",) if self.policy.remembers and self.at > 0 else ()
        return (*seen, "logits") if self.at + 1 == self.policy.exits else (*seen, "logits", "threshold")

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(self.inputs, tensors, strict=True))
        logits = named["logits"][None]
        if "seen" in named:
            logits = torch.cat((named["seen"], logits))
        classes, confidence, leaves = self.policy.judge_at(self.at, logits)
        return classes, confidence, confidence >= named["threshold"] if "threshold" in named else leaves


class AllJudgements(nn.Module):
    """Several judgements: the inputs of all, one after the other, to the outputs of all."""

    def __init__(self, judges: Sequence[OneJudgement]) -> None:
        super().__init__()
        self.judges = nn.ModuleList(judges)
        self.counts = [len(judge.inputs) for judge in judges]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        outputs: list[Tensor] = []
        for judge, count in zip(self.judges, self.counts, strict=True):
            outputs += judge(*tensors[:count])
            tensors = tensors[count:]
        return tuple(outputs)
