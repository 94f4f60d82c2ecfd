"""The network as a drawing: what is computed from top to bottom, stage by stage, as inline SVG.

A bar is a cell, as wide as it has channels, and filled as far as it is dense. Exits branch off to the right. In dense
wiring arcs on the left lead from every output to all cells that read it.
"""

import itertools
import math
from collections.abc import Sequence
from html import escape

from ramify.nn.network import Network, architecture
from ramify.show.report.facts import Facts
from ramify.show.report.levels import Bar, Level, levels_of
from ramify.show.report.page import Section
from ramify.show.report.parts import prose
from ramify.show.report.plot import Table, downloads_html, exit_colour, table_details_html
from ramify.show.words import count, network_words, percent, plural, short

WIDE, NARROW = 760, 358
"""Widths of the two drawings, in pixels: the page shows the one that fits."""

CELL, GAP, HEAD, EXIT, PAD = 26, 8, 32, 42, 14
"""Heights of a cell, of the space between two, of the line over a stage, and of an exit; and the margin of a stage."""


def network_section(facts: Facts) -> Section:
    """The network, drawn."""
    levels = levels_of(facts)
    dense = facts.config.network.kind == "dense"
    lead = f"A network of kind {network_words(facts.config)}, on pictures of {_shape(facts)}."
    wiring = (
        " Arcs on the left: every cell reads the outputs of the stem and of all cells before it side by side."
        if dense
        else ""
    )
    bars = (
        "A bar is a cell, as wide as it has channels and filled as far as it is dense; "
        if isinstance(facts.network, Network)
        else "The layers of a stage are those up to the named place; "
    )
    how = f"Computed from top to bottom. {bars}each stage ends in an exit on the right.{wiring}"
    drawn = "".join(
        f'<div class="{name}">{_svg(facts, levels, dense, width)}</div>'
        for name, width in (("wide-only", WIDE), ("narrow-only", NARROW))
    )
    table = _table(facts, levels)
    below = downloads_html("network", table) + table_details_html(table, "The stages of the network")
    body = f'<figure class="network">{drawn}<figcaption>{prose(how)}{below}</figcaption></figure>'
    if facts.summary.receipt is not None:
        body += prose(_compacted(facts))
    return Section("network", "The network", lead, body)


def _compacted(facts: Facts) -> str:
    found = facts.summary.receipt
    assert found is not None
    if found.removed == 0:
        return "Compaction found no dead channel to take out."
    before, after = found.parameters
    large, small = found.macs[-1]
    return (
        f"Compaction took {plural(found.removed, 'dead channel')} out: {count(before)} parameters became "
        f"{count(after)}, {short(large)} MACs of the last exit became {short(small)}; "
        f"logits differ by at most {found.difference:.1g}."
    )


def _shape(facts: Facts) -> str:
    channels, height, width = facts.network.input_shape
    colour = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    return f"{height} x {width} pixels ({colour}), {len(facts.card.classes):,} classes"


def _svg(facts: Facts, levels: Sequence[Level], dense: bool, width: int) -> str:
    return _Drawing(facts, levels, dense, width).text()


class _Drawing:
    """One drawing, built from top to bottom.

    ``outputs`` are the heights at which the stem's and each cell's output leave the spine, for the arcs.
    """

    def __init__(self, facts: Facts, levels: Sequence[Level], dense: bool, width: int) -> None:
        self.facts, self.levels, self.dense, self.width = facts, levels, dense, width
        self.narrow = width < 500
        cells = sum(len(level.bars) for level in levels)
        self.gutter = min(20 + 8 * cells, 60 if self.narrow else 120) if dense else 0
        self.left = self.gutter + PAD  # where bars begin
        self.room = (width - self.left) * (0.38 if self.narrow else 0.42)
        self.most = max([bar.plan.out_channels for level in levels for bar in level.bars], default=1)
        self.parts: list[str] = []
        self.arcs: list[str] = []
        self.y = 4.0
        self.outputs: list[float] = []

    def text(self) -> str:
        self._stem()
        for level in self.levels:
            self._stage(level)
        height = self.y + 4
        label = f"The network: {network_words(self.facts.config)}"
        return (
            f'<svg viewBox="0 0 {self.width} {height:.0f}" width="{self.width}" height="{height:.0f}" role="img" '
            f'aria-label="{escape(label)}"><title>{escape(label)}</title>{"".join(self.parts)}{"".join(self.arcs)}</svg>'
        )

    def _write(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> None:
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>')

    def _stem(self) -> None:
        network = self.facts.network
        built = architecture(network.config) if isinstance(network, Network) else None
        width = 0 if built is None or built.stem == "none" else built.width
        words = f"stem, {plural(width, 'channel')}" if width else "the picture"
        bar = self._bar_width(max(1, width))
        self.parts.append(f'<rect x="{self.left}" y="{self.y}" width="{bar:.1f}" height="{CELL}" rx="6" class="stem"/>')
        self._write(self.left + bar + 12, self.y + CELL / 2 + 4, words, "quiet")
        self.y += CELL
        self.outputs.append(self.y - CELL / 2)

    def _bar_width(self, channels: int) -> float:
        share = min(channels, self.most) / self.most
        return max(24.0, self.room * math.pow(share, 0.75))

    def _stage(self, level: Level) -> None:
        colour = exit_colour(level.stage, len(self.levels))
        self.parts.append(f'<path d="M{self.left + 12} {self.y:.1f}v{GAP + 4}" class="spine"/>')
        self.y += GAP + 4
        top, place = self.y, len(self.parts)
        self.y += HEAD
        self._write(self.left, self.y - 10, f"stage {level.stage + 1}", "strong")
        if self.narrow:
            for line in _wrapped(level.story, int((self.width - self.left - PAD) / 6.6)):
                self._write(self.left, self.y + 7, line, "quiet")
                self.y += 17
            self.y += 3
        else:
            self._write(self.left + 72, self.y - 10, level.story, "quiet")
        for bar in level.bars:
            self._cell(bar, level, colour)
        self._exit(level, colour)
        self.parts.insert(
            place,
            f'<rect x="{self.gutter + 0.5}" y="{top:.1f}" width="{self.width - self.gutter - 1}" '
            f'height="{self.y - top:.1f}" rx="10" class="{"stage" if level.exists else "stage absent"}"/>',
        )

    def _cell(self, bar: Bar, level: Level, colour: str) -> None:
        x, width = self.left, self._bar_width(bar.plan.out_channels)
        middle = self.y + CELL / 2
        if self.dense:
            self._arcs(middle)
        told = f"cell {bar.first + 1}" if bar.first == bar.last else f"cells {bar.first + 1} to {bar.last + 1}"
        share = "" if bar.density is None else f", {percent(bar.density)} of the weights kept"
        hint = escape(f"{told}, {bar.plan.type}: {bar.words}{share}")
        several = bar.last > bar.first
        if several:
            # A second outline behind the first.
            self.parts.append(
                f'<rect x="{x + 5}" y="{self.y + 4:.1f}" width="{width:.1f}" height="{CELL}" rx="6" '
                f'class="cell" stroke="{colour}" opacity="0.45"/>'
            )
        filled = width * (bar.density or 0.0)
        dashed = "" if level.exists else ' stroke-dasharray="4 3"'
        box = f'x="{x}" y="{self.y:.1f}" height="{CELL}"'
        fill = f'<rect {box} width="{filled:.1f}" rx="{min(6.0, filled / 2):.1f}" fill="{colour}" opacity="0.32"/>'
        self.parts.append(
            f'<g><title>{hint}</title><rect {box} width="{width:.1f}" rx="6" class="cell" stroke="{colour}"{dashed}/>'
            f"{fill if filled >= 1 else ''}</g>"
        )
        words = bar.words.replace(" channels", "") if self.narrow else bar.words
        if bar.density is not None and bar.density < 0.9995:
            words += f" · {percent(bar.density)}" + ("" if self.narrow else " dense")
        self._write(x + width + (17 if several else 12), middle + 4, words)
        self.y += CELL + GAP + (4 if several else 0)
        self.outputs.append(middle)

    def _arcs(self, to: float) -> None:
        """From every output so far to here, the longer the further out."""
        self.arcs.append(f'<circle cx="{self.left}" cy="{to:.1f}" r="2.5" class="end"/>')
        span = max(to - self.outputs[0], 1.0)
        for source in self.outputs:
            bulge = 10 + (self.gutter - 14) * ((to - source) / max(span, 420.0)) ** 0.6
            x = self.left
            self.arcs.append(
                f'<path d="M{x} {source:.1f}C{x - bulge:.1f} {source + 6:.1f} {x - bulge:.1f} {to - 6:.1f} {x} '
                f'{to:.1f}" class="arc"/>'
            )

    def _exit(self, level: Level, colour: str) -> None:
        middle = self.y + EXIT / 2 - 3
        if self.dense and level.final:
            self._arcs(middle)
        # The mark stands at the right end of the bars, what it says in line with what they say.
        start, end = self.left + 12, self.left + (30.0 if self.narrow else self.room - 7)
        dash = "" if level.exists else ' stroke-dasharray="4 3"'
        begin = self.y - (GAP if level.bars else 0)
        self.parts.append(
            f'<path d="M{start} {begin:.1f}V{middle - 8:.1f}q0 8 8 8H{end - 7:.1f}" class="branch" '
            f'stroke="{colour}"{dash}/><circle cx="{end:.1f}" cy="{middle:.1f}" r="7" '
            f'fill="{colour if level.exists else "none"}" stroke="{colour}"{dash}/>'
        )
        final = level.final and len(self.levels) > 1
        self._write(end + 19, middle + 4, f"exit {level.stage + 1}" + (" (final)" if final else ""), "strong")
        accuracy, macs = level.exit_words
        if accuracy and self.narrow:
            self._write(end + 19, middle + 20, f"{accuracy} · {macs}", "quiet")
            self.y += 14
        elif accuracy:
            self._write(end + (120 if final else 76), middle + 4, f"{accuracy} · {macs}")
        self.y += EXIT


def _wrapped(text: str, letters: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= letters:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _table(facts: Facts, levels: Sequence[Level]) -> Table:
    """The drawing in words, one row a stage."""
    summary = facts.summary
    weights = [0, *(each.kept for each in summary.exits)]
    added = [after - before for before, after in itertools.pairwise(weights)]
    rows = tuple(
        (
            level.stage + 1,
            "; ".join(bar.words for bar in level.bars),
            summary.stages[level.stage].density if level.exists else None,
            added[level.stage] if level.exists else None,
            summary.exits[level.stage].macs if level.exists else None,
            level.story,
        )
        for level in levels
    )
    return Table(("stage", "cells", "density", "weights kept", "MACs to its exit", "history"), rows)
