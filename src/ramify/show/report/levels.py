"""A network in levels, as it is drawn: each stage with its cells, its exit, and what happened to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ramify.config.rules import Config
from ramify.nn.attached import Attached
from ramify.nn.cells import CellPlan
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network
from ramify.run.events import Grew, GrowthEnded, Pruned, Widened
from ramify.show.report.facts import Facts
from ramify.show.words import percent, short

MANY = 12
"""With more cells than so many, runs of the same cell are taken as one."""


@dataclass(frozen=True)
class Bar:
    """One or several equal cells in a row: which of the network's, from 0, its channels, and how dense it is."""

    first: int
    last: int
    plan: CellPlan
    density: float | None

    @property
    def words(self) -> str:
        """``'8 cells, 16 → 16 channels'``; with inner channels of their own in the middle."""
        plan = self.plan
        many = f"{self.last - self.first + 1} cells, " if self.last > self.first else ""
        widths = (plan.in_channels, plan.out_channels)
        inner = "" if plan.inner_channels in widths else f" → {plan.inner_channels}"
        halves = ", half the size" if plan.stride == 2 or plan.pooled else ""
        return f"{many}{plan.in_channels}{inner} → {plan.out_channels} channels{halves}"


@dataclass(frozen=True)
class Level:
    """One stage: its bars, its exit and what happened to it."""

    stage: int
    bars: tuple[Bar, ...]
    exists: bool
    final: bool
    story: str
    exit_words: tuple[str, str]


def levels_of(facts: Facts) -> tuple[Level, ...]:
    """Every stage of the network, those that have not grown included."""
    network, summary = facts.network, facts.summary
    plans = network.plans if isinstance(network, Network) else ()
    joins = sum(len(stage.cells) for stage in plans) > MANY and facts.config.network.kind != "dense"
    levels: list[Level] = []
    at = 0
    for stage in range(len(plans) or len(network.stages)):
        exists = stage < len(network.stages)
        bars: list[Bar] = []
        for i, cell in enumerate(plans[stage].cells if plans else ()):
            bars.append(Bar(at + i, at + i, cell, _density(facts, stage, i) if exists else None))
        at += len(bars)
        joined = tuple(_joined(bars)) if joins else tuple(bars)
        final = plans[stage].final if plans else stage == len(network.stages) - 1
        words = ("", "")
        if exists:
            each = summary.exits[stage]
            score = each.test or each.valid
            on = "test" if each.test else "validation"
            words = (f"{percent(score.top1)} {on}" if score else "not measured", f"{short(each.macs)} MACs")
        levels.append(Level(stage, joined, exists, final, _story(facts, stage, exists), words))
    return tuple(levels)


def _density(facts: Facts, stage: int, cell: int) -> float:
    masks = [layer.mask for layer in masked_layers(facts.network.stages[stage].get_submodule(f"cells.{cell}")).values()]
    total = sum(mask.numel() for mask in masks)
    return sum(int(mask.sum()) for mask in masks) / total if total else 1.0


def _joined(bars: Sequence[Bar]) -> list[Bar]:
    """Bars of equal cells that follow each other as one."""
    joined: list[Bar] = []
    for bar in bars:
        if joined and joined[-1].plan == bar.plan:
            before = joined[-1]
            share = None
            if before.density is not None and bar.density is not None:
                # Equal cells have equally many weights, so their densities may be averaged.
                many = before.last - before.first + 1
                share = (before.density * many + bar.density) / (many + 1)
            joined[-1] = Bar(before.first, bar.last, bar.plan, share)
        else:
            joined.append(bar)
    return joined


def _story(facts: Facts, stage: int, exists: bool) -> str:
    """When a stage came, and what was done to it."""
    if not exists:
        return "not grown" if facts.summary.finished else "not grown yet"
    grown = facts.summary.stages[stage].grown
    # A run with a parent has its parent's growths; its own epochs count from 1 again.
    whose = f" of {Path(facts.config.parent).name}" if facts.config.parent else ""
    parts = ["there from the start" if grown is None else f"grew before epoch {grown}{whose}"]
    if isinstance(facts.network, Attached) and stage < len(facts.network.points):
        parts.insert(0, f"up to {facts.network.points[stage].name}")
    frozen = _frozen(facts.config, facts, stage)
    if frozen:
        parts.append(frozen)
    wider = [each.epoch for each in facts.changes if isinstance(each, Widened) and each.widening.stage == stage]
    if wider:
        parts.append(f"widened before {_epochs(wider)}")
    pruned = [each.epoch for each in facts.changes if isinstance(each, Pruned) and stage in each.pruning.stages]
    if pruned:
        parts.append(f"pruned before {_epochs(pruned)}")
    return ", ".join(parts)


def _frozen(config: Config, facts: Facts, stage: int) -> str:
    if config.train.exits_only:
        return "cells frozen, only its exit learned" if stage < len(facts.network.stages) - 1 else "frozen"
    later = [each.epoch for each in facts.changes if isinstance(each, Grew) and each.growth.stage == stage + 1]
    if config.growth.freeze == "none" or not later:
        return ""
    moments = [each.epoch for each in facts.changes if isinstance(each, Grew | Widened)]
    over = [each.epoch for each in facts.changes if isinstance(each, GrowthEnded)]
    if not over and len(moments) >= config.growths:
        over = moments[-1:]
    if config.growth.freeze == "before" or not over:
        return f"frozen from epoch {later[0]}"
    return f"frozen from epoch {later[0]} to {over[0] - 1}" if over[0] > later[0] else ""


def _epochs(epochs: Sequence[int]) -> str:
    """``'epoch 6'``, ``'epochs 6 and 9'``, ``'epochs 3, 6 and 9'``; of many, the first, how many, and the last."""
    if len(epochs) == 1:
        return f"epoch {epochs[0]}"
    if len(epochs) > 5:
        return f"epochs {epochs[0]} to {epochs[-1]}, {len(epochs)} times"
    return f"epochs {', '.join(map(str, epochs[:-1]))} and {epochs[-1]}"
