"""A bench as a figure: a panel for each batch size and number of threads, a row for each engine."""

import io
from typing import TYPE_CHECKING

from ramify.bench.measure import Bench, Timing
from ramify.bench.table import times
from ramify.show.drawing import DIM, INK, RULE, axes, heading, log_axis
from ramify.show.report.plot import exit_color
from ramify.show.words import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BELOW = 0.34
"""Distance of the policy below the exits of its engine, in rows."""


def draw_bench(bench: Bench) -> bytes:
    """The figure as PNG.

    The horizontal axis is the time for a batch, logarithmic and shared by panels of one batch size. Exits are numbered
    discs; the policy is a diamond below them with its speedup over the last exit of the first engine (dotted line).
    Bars span the interquartile range of the rounds.

    Raises:
        InputError: matplotlib is not installed.
    """
    rows, columns = len(bench.threads), len(bench.batches)
    size = (max(7.0, 1.2 + 3.7 * columns), 1.5 + rows * (0.75 + 0.55 * len(bench.engines)))
    drawing, panels = axes(size, rows, columns, "bench")
    for line, threads in zip(panels, bench.threads, strict=True):
        for panel, batch in zip(line, bench.batches, strict=True):
            _panel(panel, bench, threads, batch)
            at_once = f"{plural(batch, 'picture')} at once, {plural(threads, 'thread')}"
            panel.set_title(at_once, fontsize=10, loc="left", color=INK)
    for panel, batch in zip(panels[-1], bench.batches, strict=True):
        unit = f"milliseconds for {plural(batch, 'picture')}" if batch > 1 else "milliseconds a picture"
        panel.set_xlabel(unit, color=INK, fontsize=9)
    heading(drawing, f"{bench.name}: how long each exit and the policy take")
    load = "" if bench.load is None else f", load {bench.load[0]:.1f} before"
    notes = (
        "discs: exits, all pictures answered there; diamond: the policy, and how many times faster it is than the last",
        f"exit in {bench.engines[0]} (dotted line); bars: quartiles of {plural(bench.rounds, 'round')} in turn",
        f"{bench.machine['processor']}, {plural(int(bench.machine['cores']), 'core')}{load}, "
        f"{', '.join(f'{name} {version}' for name, version in bench.versions.items())}",
    )
    drawing.supxlabel("\n".join(notes), fontsize=8, color=DIM, x=0.012, ha="left")
    file = io.BytesIO()
    drawing.savefig(file, format="png", facecolor="white")
    return file.getvalue()


def _panel(panel: "Axes", bench: Bench, threads: int, batch: int) -> None:
    exits = len(bench.macs)
    log_axis(panel)
    panel.grid(visible=False, axis="y")
    for lane, engine in enumerate(bench.engines):
        panel.axhline(lane, color=RULE, linewidth=1, zorder=1)
        for timing in bench.of(threads, batch, engine):
            _mark(panel, timing, lane, exits)
    whole = bench.of(threads, batch, bench.engines[0])[exits - 1]
    panel.axvline(whole.milliseconds, color=DIM, linestyle=":", linewidth=1, zorder=1)
    panel.set_yticks(range(len(bench.engines)), bench.engines)
    panel.set_ylim(len(bench.engines) - 0.4, -0.55)
    panel.margins(x=0.12)
    panel.spines["left"].set_visible(False)
    panel.tick_params(axis="y", length=0)


def _mark(panel: "Axes", timing: Timing, lane: int, exits: int) -> None:
    """The median and the interquartile range of the rounds of one exit or the policy."""
    x = timing.milliseconds
    if timing.exit is None:
        text, y, color, marker, size, order = times(timing.speedup), lane + _BELOW, INK, "D", 30, 4.5
        offset, align = (6, 0), "left"
    else:
        # A number stands above its own disc, and below the next.
        order = 4 + timing.exit / exits
        text, y, color, marker, size = str(timing.exit + 1), float(lane), exit_color(timing.exit, exits), "o", 95
        offset, align = (0, 0), "center"
    panel.annotate(
        text,
        (max(x, timing.high) if timing.exit is None else x, y),
        offset,
        textcoords="offset points",
        ha=align,
        va="center",
        fontsize=8 if timing.exit is None else 7,
        fontweight="bold",
        color=INK if timing.exit is None else "white",
        zorder=6 if timing.exit is None else order + 0.01,
    )
    bar = [timing.low, timing.high]
    panel.plot(bar, [y, y], color=color, linewidth=1.6, alpha=0.6, solid_capstyle="butt", zorder=order)
    panel.scatter([x], [y], s=size, marker=marker, color=color, edgecolors="white", linewidths=0.8, zorder=order)
