"""Pruning: weights are ranked by a saliency, and exactly the requested number is kept."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ramify.errors import InputError
from ramify.nn.branching import Branching, stage_of
from ramify.nn.graph import ChannelGroup
from ramify.nn.masked import masked_layers
from ramify.ops.pruning.budget import Budget, keep_within
from ramify.ops.pruning.channels import alive, channels, mask_channels, owner, rank_channels, silence
from ramify.ops.pruning.saliency import SALIENCIES, Scores, ScoringBatch
from ramify.ops.surgery import reinitialize, rewire, set_masks
from ramify.seeds import derive, generator

Masks = dict[str, Tensor]
PruneUnit = Literal["weight", "channel"]
Control = Literal["none", "shuffle", "reinit", "invert"]


@dataclass(frozen=True)
class LayerPruning:
    """One layer in a pruning: its weights, and how many were kept before and after."""

    stage: int
    weights: int
    before: int
    after: int


@dataclass(frozen=True)
class Pruning:
    """The report of one pruning: each layer that it could have changed, by name."""

    criterion: str
    unit: PruneUnit
    control: Control
    reinit: bool
    layers: dict[str, LayerPruning]

    @property
    def weights(self) -> int:
        return sum(layer.weights for layer in self.layers.values())

    @property
    def before(self) -> int:
        return sum(layer.before for layer in self.layers.values())

    @property
    def after(self) -> int:
        return sum(layer.after for layer in self.layers.values())

    @property
    def changed(self) -> bool:
        """Whether any weight was masked, or redrawn."""
        return self.after < self.before or self.reinit

    @property
    def stages(self) -> tuple[int, ...]:
        return tuple(sorted({layer.stage for layer in self.layers.values()}))


@dataclass(frozen=True)
class PruningPlan:
    """A pruning to apply: the masks of layers, and the stages that are pruned; with ``grows`` masks may grow too."""

    criterion: str
    unit: PruneUnit
    control: Control
    reinit: bool
    seed: int
    stages: tuple[int, ...]
    masks: Masks
    grows: bool = False


def prune(
    network: Branching,
    keep: float | Mapping[int, float],
    criterion: str = "snip",
    batches: Sequence[ScoringBatch] = (),
    optimizer: Optimizer | None = None,
    *,
    unit: PruneUnit = "weight",
    rounds: int = 1,
    floor: int = 1,
    control: Control = "none",
    reinit: bool = False,
    seed: int = 0,
    budget: Budget | None = None,
    followers: Sequence[nn.Module] = (),
) -> Pruning:
    """Mask the weights of lowest saliency, in place; masks only shrink.

    Exactly ``round(keep * N)`` of the N weights of the network, or of each stage, are kept; ties go to the weight
    that comes first. Where fewer are left already, nothing changes and the report says so.

    Args:
        network: in any stage of growth; its own masks are respected.
        keep: the fraction to keep, in (0, 1]: one number ranks the whole network at once, a mapping from stage
            (counted from 0, stem and head included) to fraction ranks each of these stages inside itself.
        criterion: a name in :data:`ramify.ops.pruning.saliency.SALIENCIES`.
        batches: labeled pictures ``(images [B, C, H, W], labels [B])``, for criteria that need them; their scores
            are averaged.
        optimizer: its state of masked weights is cleared.
        unit: ``channel`` sums the scores over channel groups and masks whole groups; ``keep`` is then the fraction of
            these groups, and at least one in each space is kept.
        rounds: steps of this pruning; the density falls exponentially, ``(N kept) ** (r / rounds)``, and scores are
            computed again at each (SynFlow, arXiv:2006.05467).
        floor: weights that every layer keeps.
        control: a baseline for the criterion: ``invert`` keeps the lowest scores, ``shuffle`` moves each layer's mask
            to random places, ``reinit`` redraws the survivors.
        reinit: redraw the surviving weights of the pruned stages, reset their batch norm and optimizer state.
        seed: of random criteria, shuffling and redrawing.
        budget: with unit ``channel``, in place of ``keep``: as many groups are kept as fit.
        followers: modules with the same layers, such as an average of the weights, that take the same masks.

    Raises:
        InputError: an argument is unknown or out of range, a stage does not exist, a criterion needs pictures, or a
            layer would lose its last weight.

    Example:
        >>> from ramify.config.rules import NetworkConfig
        >>> from ramify.nn.network import Network
        >>> network = Network(NetworkConfig(structure=(1, 0), input_shape=(1, 8, 8), classes=10), stages=2, seed=0)
        >>> report = prune(network, 0.25, "magnitude")
        >>> report.after == round(0.25 * report.weights), report.changed
        (True, True)
        >>> prune(network, 0.25, "magnitude").changed
        False
    """
    plan = plan_pruning(
        network, keep, criterion, batches, unit, rounds, floor, control, reinit=reinit, seed=seed, budget=budget
    )
    return apply_pruning(network, plan, optimizer, followers=followers)


def plan_pruning(
    network: Branching,
    keep: float | Mapping[int, float],
    criterion: str = "snip",
    batches: Sequence[ScoringBatch] = (),
    unit: PruneUnit = "weight",
    rounds: int = 1,
    floor: int = 1,
    control: Control = "none",
    reinit: bool = False,
    seed: int = 0,
    budget: Budget | None = None,
) -> PruningPlan:
    """What :func:`prune` would mask, with the same arguments and errors; nothing changes."""
    if budget is not None and (unit != "channel" or rounds != 1 or isinstance(keep, Mapping)):
        raise InputError(
            f"prune.max_macs, prune.max_parameters: got them with prune.unit {unit} in {rounds} rounds; accepted: with "
            "whole channels of the whole network (unit channel, policy normal, rounds 1)"
        )
    groups = _groups(network, keep)
    if criterion not in SALIENCIES:
        raise InputError(f"prune.criterion: got {criterion!r}; accepted: {', '.join(SALIENCIES)}")
    if rounds < 1:
        raise InputError(f"prune.rounds: got {rounds}; accepted: a whole number >= 1")
    for images, _ in batches:
        network.check(images)
    if budget is not None:
        scores = SALIENCIES[criterion](network, batches, derive(seed, "saliency", 1))
        groups = _groups(network, keep_within(network, scores, budget))
    draft = copy.deepcopy(network)
    removable = channels(network) if unit == "channel" else ()
    before = {name: layer.mask.clone() for name, layer in masked_layers(network).items()}
    for step in range(1, rounds + 1):
        scores = SALIENCIES[criterion](draft, batches, derive(seed, "saliency", step))
        if control == "invert":
            scores = {name: -score for name, score in scores.items()}
        for stages, fraction in groups:
            share = step / rounds
            if unit == "weight":
                set_masks(draft, _keep_weights(draft, stages, scores, fraction, share, before, floor))
            else:
                shuffling = derive(seed, "shuffle") if control == "shuffle" and step == rounds else None
                set_masks(draft, _keep_channels(draft, removable, stages, scores, fraction, share, shuffling))
    masks = {name: layer.mask for name, layer in masked_layers(draft).items()}
    if control == "shuffle" and unit == "weight":
        masks = {name: _shuffled(mask, before[name], derive(seed, "shuffle", name)) for name, mask in masks.items()}
    pruned = tuple(sorted({stage for stages, _ in groups for stage in stages}))
    return PruningPlan(criterion, unit, control, reinit or control == "reinit", seed, pruned, masks)


def apply_pruning(
    network: Branching, plan: PruningPlan, optimizer: Optimizer | None = None, *, followers: Sequence[nn.Module] = ()
) -> Pruning:
    """Mask ``network`` as ``plan`` says, in place; ``optimizer`` and ``followers`` as in :func:`prune`."""
    layers = masked_layers(network)
    before = {name: int(layer.mask.sum()) for name, layer in layers.items()}
    groups = channels(network) if plan.unit == "channel" else ()
    living = [group for group, lives in zip(groups, alive(network, groups), strict=True) if lives]
    if plan.reinit:
        reinitialize(network, plan.stages, optimizer, plan.seed)
    apply_masks = rewire if plan.grows else set_masks
    apply_masks(network, plan.masks, optimizer)
    gone = [group for group, lives in zip(living, alive(network, living), strict=True) if not lives]
    silence(network, *gone, optimizer=optimizer)
    for follower in followers:
        apply_masks(follower, plan.masks)
        silence(follower, *gone)
    return Pruning(
        plan.criterion,
        plan.unit,
        plan.control,
        plan.reinit,
        {
            name: LayerPruning(stage, layers[name].mask.numel(), before[name], int(layers[name].mask.sum()))
            for stage in plan.stages
            for name in layer_names(network, stage)
        },
    )


def _groups(network: Branching, keep: float | Mapping[int, float]) -> list[tuple[tuple[int, ...], float]]:
    """Stages that are ranked together, and the fraction they keep."""
    existing = range(len(network.stages))
    if isinstance(keep, Mapping):
        absent = [stage for stage in keep if stage not in existing]
        if absent:
            raise InputError(f"prune: got stage {absent[0] + 1}; accepted: stages 1 to {len(existing)}, which exist")
        groups: list[tuple[tuple[int, ...], float]] = [((stage,), fraction) for stage, fraction in sorted(keep.items())]
    else:
        groups = [(tuple(existing), keep)]
    for _, fraction in groups:
        if not 0 < fraction <= 1:
            raise InputError(f"prune.keep_ratio: got {fraction}; accepted: a number in (0, 1]")
    return groups


def layer_names(network: Branching, stage: int) -> list[str]:
    return [
        f"{prefix}.{name}" for prefix, module in network.stage_modules(stage).items() for name in masked_layers(module)
    ]


def _keep_weights(
    network: Branching, stages: tuple[int, ...], scores: Scores, keep: float, share: float, before: Masks, floor: int
) -> Masks:
    """The masks of the layers of ``stages`` that keep the best weights, at ``share`` of the way to ``keep``."""
    names = [name for stage in stages for name in layer_names(network, stage)]
    layers = masked_layers(network)
    total = sum(layers[name].weight.numel() for name in names)
    start = sum(int(before[name].sum()) for name in names)
    target = round(keep * total)
    count = target if share == 1 else round(start * (max(target, 1) / start) ** share)
    ranks = {name: _ranked(scores[name], layers[name].mask, floor) for name in names}
    reserved = sum(int((rank == torch.inf).sum()) for rank in ranks.values())
    if count < reserved:
        kept = best({name: _ranked(scores[name], layers[name].mask, 0) for name in names}, count)
        dying = [name for name in names if layers[name].mask.any() and not kept[name].any()]
        layers_text = ", ".join(dying[:3]) + (f" and {len(dying) - 3} more" if len(dying) > 3 else "")
        raise InputError(
            f"prune.keep_ratio: got {keep:g}, {target:,} of {total:,} weights in {stages_text(stages)}, with which "
            f"{layers_text} would die; accepted: at least {rounded_up(reserved / total)}, or prune.floor=0"
        )
    return {name: kept.to(layers[name].mask.device) & layers[name].mask for name, kept in best(ranks, count).items()}


def _ranked(scores: Tensor, mask: Tensor, floor: int) -> Tensor:
    """Scores with masked weights last, and the ``floor`` best of the others first."""
    # Not every device has float64, and scores in channels-last layout have no flat view.
    rank = scores.cpu().double().masked_fill(~mask.cpu(), -torch.inf).contiguous()
    best = rank.flatten().argsort(descending=True, stable=True)[: min(floor, int(mask.sum()))]
    rank.view(-1)[best] = torch.inf
    return rank


def best(ranks: Scores, count: int) -> Masks:
    """Masks of the ``count`` highest ranks over all layers; of equal ones, those that come first."""
    flat = torch.cat([rank.flatten() for rank in ranks.values()])
    kept = torch.zeros(len(flat), dtype=torch.bool)
    kept[flat.argsort(descending=True, stable=True)[:count]] = True
    pieces = kept.split([rank.numel() for rank in ranks.values()])
    return {name: piece.view_as(rank) for (name, rank), piece in zip(ranks.items(), pieces, strict=True)}


def rounded_up(ratio: float) -> str:
    """A ratio with four digits, rounded up."""
    return f"{-(-ratio * 10_000 // 1) / 10_000:g}"


def stages_text(stages: tuple[int, ...]) -> str:
    return f"stage {stages[0] + 1}" if len(stages) == 1 else f"stages {stages[0] + 1} to {stages[-1] + 1}"


def _keep_channels(
    network: Branching,
    removable: Sequence[ChannelGroup],
    stages: tuple[int, ...],
    scores: Scores,
    fraction: float,
    share: float,
    shuffling: int | None,
) -> Masks:
    """The masks that keep the best groups of ``stages``; with a seed ``shuffling`` as many, at random."""
    groups = [group for group in removable if min(map(stage_of, group.space)) in stages]
    if not groups:
        raise InputError(f"prune.unit: got channel, but {stages_text(stages)} has no channel to lose; accepted: weight")
    rank, spaces = rank_channels(network, groups, scores)
    start, target = len(groups), round(fraction * len(groups))
    count = target if share == 1 else round(start * (max(target, 1) / start) ** share)
    if count < len(spaces):
        raise InputError(
            f"prune.keep_ratio: got {fraction:g}, {target} of {len(groups)} channels in {stages_text(stages)}, with "
            f"which a layer would die; accepted: at least {rounded_up(len(spaces) / len(groups))}"
        )
    if shuffling is not None:
        for positions in spaces.values():
            order = torch.randperm(len(positions), generator=generator(shuffling, owner(groups[positions[0]])))
            rank[positions] = rank[positions][order]
    kept = set(rank.argsort(descending=True, stable=True)[:count].tolist())
    return mask_channels(network, [group for position, group in enumerate(groups) if position not in kept])


def _shuffled(mask: Tensor, before: Tensor, seed: int) -> Tensor:
    """A mask of as many weights as ``mask`` keeps, at random places among those that ``before`` kept."""
    places = before.flatten().nonzero()[:, 0]
    order = torch.randperm(len(places), generator=generator(seed, "places"))[: int(mask.sum())]
    # A mask in channels-last layout has no flat view.
    moved = torch.zeros(mask.numel(), dtype=torch.bool, device=mask.device)
    moved[places[order.to(places.device)]] = True
    return moved.view(mask.shape)
