"""The section with the drawing of the network, stage by stage from top to bottom.

A bar is a cell: its width shows the channels, its filling the density. Exits branch off below. In dense wiring a line
goes down on the left from every output, and a tick crosses the lines that a cell reads.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from markupsafe import Markup

from ramify.nn.attached import Attached
from ramify.nn.cells import CellPlan
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network, architecture
from ramify.run.events import Grew, GrowthEnded, Pruned, Widened
from ramify.show.report.facts import Facts
from ramify.show.report.page import html
from ramify.show.report.plot import Table, data_files, exit_color
from ramify.show.words import network_words, percent, short

_MANY = 12
"""With more cells than this, equal cells in a row are drawn as one bar."""


@dataclass(frozen=True)
class Bar:
    """One or several equal cells in a row: numbers of the first and the last, from 0, their plan and density."""

    first: int
    last: int
    plan: CellPlan
    density: float | None

    @property
    def words(self) -> str:
        """``'8 cells, 16 → 16 channels'``; with inner channels of their own in the middle."""
        plan = self.plan
        many = f"{self.last - self.first + 1} cells, " if self.last > self.first else ""
        inner = "" if plan.inner_channels in (plan.in_channels, plan.out_channels) else f" → {plan.inner_channels}"
        halves = ", half the size" if plan.stride == 2 or plan.pooled else ""
        return f"{many}{plan.in_channels}{inner} → {plan.out_channels} channels{halves}"

    @property
    def hint(self) -> str:
        """The text of the tooltip."""
        which = f"cell {self.first + 1}" if self.first == self.last else f"cells {self.first + 1} to {self.last + 1}"
        share = "" if self.density is None else f", {percent(self.density)} of the weights kept"
        return f"{which}, {self.plan.type}: {self.words}{share}"


@dataclass(frozen=True)
class Level:
    """One stage: its bars, its history, and the accuracy and the MACs of its exit, as words."""

    stage: int
    bars: tuple[Bar, ...]
    exists: bool
    final: bool
    story: str
    exit_words: tuple[str, str]


def network_section(facts: Facts) -> Markup:
    """The network, drawn."""
    levels = levels_of(facts)
    table = _table(facts, levels)
    built = architecture(facts.network.config) if isinstance(facts.network, Network) else None
    channels_of_stem = 0 if built is None or built.stem == "none" else built.width
    channels, height, width = facts.network.input_shape
    return html(
        "run.network",
        facts,
        network_words(facts.config),
        f"{width} x {height} pixels ({ {1: 'gray', 3: 'color'}.get(channels, f'{channels} channels') })",
        levels,
        [exit_color(level.stage, len(levels)) for level in levels],
        channels_of_stem,
        built is not None,
        table,
        data_files("network", table),
    )


def _table(facts: Facts, levels: Sequence[Level]) -> Table:
    """The drawing in words, one row a stage."""
    summary = facts.summary
    added = [after - before for before, after in itertools.pairwise([0, *(row.kept for row in summary.exits)])]
    rows = []
    for level in levels:
        stage, cells = level.stage, "; ".join(bar.words for bar in level.bars)
        figures = (summary.stages[stage].density, added[stage], summary.exits[stage].macs) if level.exists else ()
        rows.append((stage + 1, cells, *(figures or (None, None, None)), level.story))
    return Table(("stage", "cells", "density", "weights kept", "MACs to its exit", "history"), rows)


def levels_of(facts: Facts) -> tuple[Level, ...]:
    """Every stage of the network, those that have not grown included."""
    network, summary = facts.network, facts.summary
    plans = network.plans if isinstance(network, Network) else ()
    joins = sum(len(stage.cells) for stage in plans) > _MANY and facts.config.network.kind != "dense"
    levels: list[Level] = []
    at = itertools.count()
    for stage in range(len(plans) or len(network.stages)):
        exists = stage < len(network.stages)
        cells = enumerate(plans[stage].cells if plans else ())
        bars = [Bar(n := next(at), n, cell, _density(facts, stage, i) if exists else None) for i, cell in cells]
        final = plans[stage].final if plans else stage == len(network.stages) - 1
        words = ("", "")
        if exists:
            row = summary.exits[stage]
            score, part = row.test or row.valid, "test" if row.test else "validation"
            words = (f"{percent(score.top1)} {part}" if score else "not measured", f"{short(row.macs)} MACs")
        joined = tuple(_joined(bars) if joins else bars)
        levels.append(Level(stage, joined, exists, final, _story(facts, stage, exists), words))
    return tuple(levels)


def _density(facts: Facts, stage: int, cell: int) -> float:
    masks = [layer.mask for layer in masked_layers(facts.network.stages[stage].get_submodule(f"cells.{cell}")).values()]
    total = sum(mask.numel() for mask in masks)
    return sum(int(mask.sum()) for mask in masks) / total if total else 1.0


def _joined(bars: Sequence[Bar]) -> list[Bar]:
    """Equal cells that follow each other as one bar; they have equally many weights, so densities are averaged."""
    runs = (list(run) for _, run in itertools.groupby(bars, key=lambda bar: bar.plan))
    return [
        replace(
            run[0],
            last=run[-1].last,
            density=None if run[0].density is None else sum(bar.density or 0.0 for bar in run) / len(run),
        )
        for run in runs
    ]


def _story(facts: Facts, stage: int, exists: bool) -> str:
    """When a stage was grown, frozen, widened and pruned."""
    if not exists:
        return "not grown" if facts.summary.finished else "not grown yet"
    grown = facts.summary.stages[stage].grown
    # A run with a parent has its parent's growths; its own epochs count from 1 again.
    whose = f" of {Path(facts.config.parent).name}" if facts.config.parent else ""
    parts = ["there from the start" if grown is None else f"grew before epoch {grown}{whose}"]
    if isinstance(facts.network, Attached) and stage < len(facts.network.points):
        parts.insert(0, f"up to {facts.network.points[stage].name}")
    wider = [event.epoch for event in facts.changes if isinstance(event, Widened) and event.widening.stage == stage]
    pruned = [event.epoch for event in facts.changes if isinstance(event, Pruned) and stage in event.pruning.stages]
    parts.append(_frozen(facts, stage))
    parts.append(f"widened before {_epochs(wider)}" if wider else "")
    parts.append(f"pruned before {_epochs(pruned)}" if pruned else "")
    return ", ".join(filter(None, parts))


def _frozen(facts: Facts, stage: int) -> str:
    growth = facts.config.growth
    if facts.config.train.exits_only:
        return "cells frozen, only its exit learned" if stage < len(facts.network.stages) - 1 else "frozen"
    later = [event.epoch for event in facts.changes if isinstance(event, Grew) and event.growth.stage == stage + 1]
    if growth.freeze == "none" or not later:
        return ""
    changed = [event.epoch for event in facts.changes if isinstance(event, Grew | Widened)]
    over = [event.epoch for event in facts.changes if isinstance(event, GrowthEnded)]
    if not over and len(changed) >= facts.config.growths:
        over = changed[-1:]
    if growth.freeze == "before" or not over:
        return f"frozen from epoch {later[0]}"
    return f"frozen from epoch {later[0]} to {over[0] - 1}" if over[0] > later[0] else ""


def _epochs(epochs: Sequence[int]) -> str:
    """``'epoch 6'``, ``'epochs 6 and 9'``, ``'epochs 3, 6 and 9'``; of many, the first, how many, and the last."""
    if len(epochs) == 1:
        return f"epoch {epochs[0]}"
    if len(epochs) > 5:
        return f"epochs {epochs[0]} to {epochs[-1]}, {len(epochs)} times"
    return f"epochs {', '.join(map(str, epochs[:-1]))} and {epochs[-1]}"
