"""The network as a drawing: what is computed from top to bottom, stage by stage, as inline SVG.

A bar is a cell, as wide as it has channels, and filled as far as it is dense. Exits branch off to the right. In dense
wiring arcs on the left lead from every output to all cells that read it.
"""

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from markupsafe import Markup

from ramify.nn.attached import Attached
from ramify.nn.cells import CellPlan
from ramify.nn.masked import masked_layers
from ramify.nn.network import Network, architecture
from ramify.run.events import Grew, GrowthEnded, Pruned, Widened
from ramify.run.receipt import Receipt
from ramify.show.report.facts import Facts
from ramify.show.report.page import html
from ramify.show.report.plot import Table, data_files, exit_colour
from ramify.show.words import count, network_words, percent, plural, short

WIDE, NARROW = 760, 358
"""Widths of the two drawings, in pixels: the page shows the one that fits."""

CELL, GAP, HEAD, EXIT, PAD = 26, 8, 32, 42, 14
"""Heights of a cell, of the space between two, of the line over a stage, and of an exit; and the margin of a stage."""

MANY = 12
"""With more cells than this, equal cells in a row are drawn as one bar."""


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
        inner = "" if plan.inner_channels in (plan.in_channels, plan.out_channels) else f" → {plan.inner_channels}"
        halves = ", half the size" if plan.stride == 2 or plan.pooled else ""
        return f"{many}{plan.in_channels}{inner} → {plan.out_channels} channels{halves}"

    @property
    def hint(self) -> str:
        """What the mouse shows."""
        which = f"cell {self.first + 1}" if self.first == self.last else f"cells {self.first + 1} to {self.last + 1}"
        share = "" if self.density is None else f", {percent(self.density)} of the weights kept"
        return f"{which}, {self.plan.type}: {self.words}{share}"


@dataclass(frozen=True)
class Level:
    """One stage: its bars, what happened to it, and the accuracy and the MACs of its exit, as words."""

    stage: int
    bars: tuple[Bar, ...]
    exists: bool
    final: bool
    story: str
    exit_words: tuple[str, str]


def network(facts: Facts) -> tuple[str, Markup]:
    """The network, drawn."""
    levels = levels_of(facts)
    channels, height, width = facts.network.input_shape
    colour = {1: "gray", 3: "color"}.get(channels, f"{channels} channels")
    lead = (
        f"A network of kind {network_words(facts.config)}, on pictures of {width} x {height} pixels ({colour}), "
        f"{len(facts.card.classes):,} classes."
    )
    how = "Computed from top to bottom. "
    if isinstance(facts.network, Network):
        how += "A bar is a cell, as wide as it has channels and filled as far as it is dense; "
    else:
        how += "The layers of a stage are those up to the named place; "
    how += "each stage ends in an exit on the right."
    if facts.config.network.kind == "dense":
        how += " Arcs on the left: every cell reads the outputs of the stem and of all cells before it side by side."
    drawings = [(kind, _Drawing(facts, levels, width).svg()) for kind, width in _WIDTHS]
    table = _table(facts, levels)
    body = html("network", drawings, how, table, data_files("network", table))
    if facts.summary.receipt is not None:
        body += html("prose", _compacted(facts.summary.receipt))
    return lead, body


_WIDTHS = (("wide-only", WIDE), ("narrow-only", NARROW))


def _compacted(found: Receipt) -> str:
    if found.removed == 0:
        return "Compaction found no dead channel to take out."
    (before, after), (large, small) = found.parameters, found.macs[-1]
    return (
        f"Compaction took {plural(found.removed, 'dead channel')} out: {count(before)} parameters became "
        f"{count(after)}, {short(large)} MACs of the last exit became {short(small)}; "
        f"logits differ by at most {found.difference:.1g}."
    )


def _table(facts: Facts, levels: Sequence[Level]) -> Table:
    """The drawing in words, one row a stage."""
    summary = facts.summary
    added = [after - before for before, after in itertools.pairwise([0, *(each.kept for each in summary.exits)])]
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
    joins = sum(len(stage.cells) for stage in plans) > MANY and facts.config.network.kind != "dense"
    levels: list[Level] = []
    at = itertools.count()
    for stage in range(len(plans) or len(network.stages)):
        exists = stage < len(network.stages)
        cells = enumerate(plans[stage].cells if plans else ())
        bars = [Bar(n := next(at), n, cell, _density(facts, stage, i) if exists else None) for i, cell in cells]
        final = plans[stage].final if plans else stage == len(network.stages) - 1
        words = ("", "")
        if exists:
            each = summary.exits[stage]
            score = each.test or each.valid
            on = "test" if each.test else "validation"
            words = (f"{percent(score.top1)} {on}" if score else "not measured", f"{short(each.macs)} MACs")
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
    """When a stage came, and what was done to it."""
    if not exists:
        return "not grown" if facts.summary.finished else "not grown yet"
    grown = facts.summary.stages[stage].grown
    # A run with a parent has its parent's growths; its own epochs count from 1 again.
    whose = f" of {Path(facts.config.parent).name}" if facts.config.parent else ""
    parts = ["there from the start" if grown is None else f"grew before epoch {grown}{whose}"]
    if isinstance(facts.network, Attached) and stage < len(facts.network.points):
        parts.insert(0, f"up to {facts.network.points[stage].name}")
    wider = [each.epoch for each in facts.changes if isinstance(each, Widened) and each.widening.stage == stage]
    pruned = [each.epoch for each in facts.changes if isinstance(each, Pruned) and stage in each.pruning.stages]
    parts.append(_frozen(facts, stage))
    parts.append(f"widened before {_epochs(wider)}" if wider else "")
    parts.append(f"pruned before {_epochs(pruned)}" if pruned else "")
    return ", ".join(filter(None, parts))


def _frozen(facts: Facts, stage: int) -> str:
    growth = facts.config.growth
    if facts.config.train.exits_only:
        return "cells frozen, only its exit learned" if stage < len(facts.network.stages) - 1 else "frozen"
    later = [each.epoch for each in facts.changes if isinstance(each, Grew) and each.growth.stage == stage + 1]
    if growth.freeze == "none" or not later:
        return ""
    changed = [each.epoch for each in facts.changes if isinstance(each, Grew | Widened)]
    over = [each.epoch for each in facts.changes if isinstance(each, GrowthEnded)]
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


def element(name: str, inside: str = "", **attributes: object) -> Markup:
    """An element of SVG; ``stroke_width`` is written ``stroke-width``, and what is None is left out.

    Example:
        >>> element("text", "a < b", class_="quiet", x=1.25, fill=None)
        Markup('<text class="quiet" x="1.2">a &lt; b</text>')
    """
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    shown = ((key, f"{value:.1f}" if isinstance(value, float) else value) for key, value in given.items())
    listed = Markup("").join(Markup(' {}="{}"').format(key, value) for key, value in shown)
    tag = Markup(name)
    return Markup("<{}{}>{}</{}>").format(tag, listed, inside, tag)


@dataclass
class _Drawing:
    """One drawing, made from top to bottom; ``y`` is how far it is.

    ``outputs`` are the heights at which the stem's and each cell's output leave, for the arcs.
    """

    facts: Facts
    levels: Sequence[Level]
    width: int
    y: float = 4.0
    parts: list[Markup] = field(default_factory=list)
    arcs: list[Markup] = field(default_factory=list)
    outputs: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dense = self.facts.config.network.kind == "dense"
        self.narrow = self.width < 500
        bars = [bar for level in self.levels for bar in level.bars]
        self.gutter = min(20 + 8 * len(bars), 60 if self.narrow else 120) if self.dense else 0
        self.left = self.gutter + PAD  # where bars begin
        self.room = (self.width - self.left) * (0.38 if self.narrow else 0.42)
        self.most = max([bar.plan.out_channels for bar in bars], default=1)

    def svg(self) -> Markup:
        """The whole drawing."""
        self._stem()
        for level in self.levels:
            self._stage(level)
        label = f"The network: {network_words(self.facts.config)}"
        size = {"viewBox": f"0 0 {self.width} {self.y + 4:.0f}", "width": self.width, "height": f"{self.y + 4:.0f}"}
        inside = Markup("").join([element("title", label), *self.parts, *self.arcs])
        return element("svg", inside, **size, role="img", aria_label=label)

    def _write(self, x: float, y: float, text: str, kind: str | None = None) -> None:
        self.parts.append(element("text", text, x=float(x), y=float(y), class_=kind))

    def _stem(self) -> None:
        network = self.facts.network
        built = architecture(network.config) if isinstance(network, Network) else None
        channels = 0 if built is None or built.stem == "none" else built.width
        bar = self._bar_width(max(1, channels))
        self.parts.append(element("rect", x=self.left, y=self.y, width=bar, height=CELL, rx=6, class_="stem"))
        words = f"stem, {plural(channels, 'channel')}" if channels else "the picture"
        self._write(self.left + bar + 12, self.y + CELL / 2 + 4, words, "quiet")
        self.y += CELL
        self.outputs.append(self.y - CELL / 2)

    def _bar_width(self, channels: int) -> float:
        share: float = (min(channels, self.most) / self.most) ** 0.75
        return max(24.0, self.room * share)

    def _stage(self, level: Level) -> None:
        self.parts.append(element("path", d=f"M{self.left + 12} {self.y:.1f}v{GAP + 4}", class_="spine"))
        self.y += GAP + 4
        top, place = self.y, len(self.parts)
        self.y += HEAD
        self._write(self.left, self.y - 10, f"stage {level.stage + 1}", "strong")
        if self.narrow:
            letters = int((self.width - self.left - PAD) / 6.6)
            for line in textwrap.wrap(level.story, letters, break_long_words=False, break_on_hyphens=False):
                self._write(self.left, self.y + 7, line, "quiet")
                self.y += 17
            self.y += 3
        else:
            self._write(self.left + 72, self.y - 10, level.story, "quiet")
        colour = exit_colour(level.stage, len(self.levels))
        dashed = None if level.exists else "4 3"
        for bar in level.bars:
            self._cell(bar, colour, dashed)
        self._exit(level, colour, dashed)
        box = {"x": self.gutter + 0.5, "y": top, "width": self.width - self.gutter - 1, "height": self.y - top}
        self.parts.insert(place, element("rect", **box, rx=10, class_="stage" if level.exists else "stage absent"))

    def _cell(self, bar: Bar, colour: str, dashed: str | None) -> None:
        x, y, width = self.left, float(self.y), self._bar_width(bar.plan.out_channels)
        middle = self.y + CELL / 2
        if self.dense:
            self._arcs(middle)
        several = bar.last > bar.first
        outline = {"height": CELL, "width": width, "rx": 6, "class_": "cell", "stroke": colour}
        if several:  # a second outline behind the first
            self.parts.append(element("rect", x=x + 5, y=y + 4, **outline, opacity=0.45))
        cell = element("title", bar.hint) + element("rect", x=x, y=y, **outline, stroke_dasharray=dashed)
        filled = width * (bar.density or 0.0)
        if filled >= 1:
            fill = {"width": filled, "height": CELL, "rx": min(6.0, filled / 2), "fill": colour, "opacity": "0.32"}
            cell += element("rect", x=x, y=y, **fill)
        self.parts.append(element("g", cell))
        words = bar.words.replace(" channels", "") if self.narrow else bar.words
        if bar.density is not None and bar.density < 0.9995:
            words += f" · {percent(bar.density)}" + ("" if self.narrow else " dense")
        self._write(x + width + (17 if several else 12), middle + 4, words)
        self.y += CELL + GAP + (4 if several else 0)
        self.outputs.append(middle)

    def _arcs(self, to: float) -> None:
        """From every output so far to here, the longer the further out."""
        x = self.left
        self.arcs.append(element("circle", cx=x, cy=to, r="2.5", class_="end"))
        span = max(to - self.outputs[0], 1.0)
        for source in self.outputs:
            bulge = x - 10 - (self.gutter - 14) * ((to - source) / max(span, 420.0)) ** 0.6
            path = f"M{x} {source:.1f}C{bulge:.1f} {source + 6:.1f} {bulge:.1f} {to - 6:.1f} {x} {to:.1f}"
            self.arcs.append(element("path", d=path, class_="arc"))

    def _exit(self, level: Level, colour: str, dashed: str | None) -> None:
        middle = self.y + EXIT / 2 - 3
        if self.dense and level.final:
            self._arcs(middle)
        # The mark stands at the right end of the bars, what it says in line with what they say.
        start, end = self.left + 12, self.left + (30.0 if self.narrow else self.room - 7)
        begin = self.y - (GAP if level.bars else 0)
        path = f"M{start} {begin:.1f}V{middle - 8:.1f}q0 8 8 8H{end - 7:.1f}"
        stroke = {"stroke": colour, "stroke_dasharray": dashed}
        self.parts.append(element("path", d=path, class_="branch", **stroke))
        self.parts.append(element("circle", cx=end, cy=middle, r=7, fill=colour if level.exists else "none", **stroke))
        final = level.final and len(self.levels) > 1
        self._write(end + 19, middle + 4, f"exit {level.stage + 1}" + (" (final)" if final else ""), "strong")
        accuracy, macs = level.exit_words
        if accuracy and self.narrow:
            self._write(end + 19, middle + 20, f"{accuracy} · {macs}", "quiet")
            self.y += 14
        elif accuracy:
            self._write(end + (120 if final else 76), middle + 4, f"{accuracy} · {macs}")
        self.y += EXIT
