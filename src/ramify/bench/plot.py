"""A bench as a picture: a panel for each batch and number of threads, a lane for each engine, a mark for each exit."""

import io
from typing import TYPE_CHECKING

from ramify.bench.measure import Bench, Timing
from ramify.bench.table import times
from ramify.errors import InputError
from ramify.show.report.plot import exit_colour
from ramify.show.words import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, DIM, RULE = "#2b2f36", "#6b717b", "#eceef1"
_BELOW = 0.34
"""How far the policy stands under the exits of its engine, in lanes."""


def draw_bench(bench: Bench) -> bytes:
    """The picture, as PNG.

    Across is the time for a batch, on a logarithmic scale that the panels of one size of batch share. Exits are
    numbered discs, the policy is a diamond under them with how many times faster it is than the last exit of the first
    engine, where the dotted line stands; a bar over a mark spans the middle half of the rounds.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("the plot needs matplotlib, which is not installed; pip install 'ramify[bench]'") from None

    rows, columns = len(bench.threads), len(bench.batches)
    height = 1.5 + rows * (0.75 + 0.55 * len(bench.engines))
    drawing = Figure(figsize=(max(7.0, 1.2 + 3.7 * columns), height), dpi=150, layout="constrained")
    FigureCanvasAgg(drawing)
    panels = drawing.subplots(rows, columns, sharex="col", sharey=True, squeeze=False)
    for row, threads in enumerate(bench.threads):
        for column, batch in enumerate(bench.batches):
            panel = panels[row][column]
            _panel(panel, bench, threads, batch)
            panel.set_title(
                f"{plural(batch, 'picture')} at once, {plural(threads, 'thread')}", fontsize=10, loc="left", color=INK
            )
            if row == rows - 1:
                panel.set_xlabel(
                    "milliseconds" + (f" for {plural(batch, 'picture')}" if batch > 1 else " a picture"),
                    color=INK,
                    fontsize=9,
                )
    drawing.suptitle(
        f"{bench.name}: how long each exit and the policy take",
        fontsize=12,
        fontweight="bold",
        color=INK,
        x=0.012,
        ha="left",
    )
    load = "" if bench.load is None else f", load {bench.load[0]:.1f} before"
    told = (
        "discs: exits, all pictures answered there; diamond: the policy, and how many times faster it is than the last",
        f"exit in {bench.engines[0]} (dotted line); bars: the middle half of {plural(bench.rounds, 'round')} in turn",
        f"{bench.machine['processor']}, {plural(int(bench.machine['cores']), 'core')}{load}, "
        f"{', '.join(f'{name} {version}' for name, version in bench.versions.items())}",
    )
    drawing.supxlabel("\n".join(told), fontsize=8, color=DIM, x=0.012, ha="left")
    file = io.BytesIO()
    drawing.savefig(file, format="png", facecolor="white")
    return file.getvalue()


def _panel(panel: "Axes", bench: Bench, threads: int, batch: int) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    exits = len(bench.macs)
    panel.set_xscale("log")
    for lane, engine in enumerate(bench.engines):
        found = bench.of(threads, batch, engine)
        panel.axhline(lane, color=RULE, linewidth=1, zorder=1)
        for each in found:
            _mark(panel, each, lane, exits)
    whole = bench.of(threads, batch, bench.engines[0])[exits - 1]
    panel.axvline(whole.milliseconds, color=DIM, linestyle=":", linewidth=1, zorder=1)
    panel.set_yticks(range(len(bench.engines)), bench.engines)
    panel.set_ylim(len(bench.engines) - 0.4, -0.55)
    panel.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=12))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.grid(visible=True, axis="x", color=RULE, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.margins(x=0.12)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(colors=INK, labelsize=9)
    panel.tick_params(axis="y", length=0)


def _mark(panel: "Axes", each: Timing, lane: int, exits: int) -> None:
    """One contestant: its median, the middle half of its rounds, and what it is."""
    x, low, high = each.milliseconds, each.low, each.high
    if each.exit is None:
        y, colour, marker, size = lane + _BELOW, INK, "D", 30
        panel.annotate(
            times(each.speedup),
            (max(x, high), y),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            fontweight="bold",
            color=INK,
            zorder=6,
        )
    else:
        y, colour, marker, size = float(lane), exit_colour(each.exit, exits), "o", 95
        panel.annotate(
            str(each.exit + 1),
            (x, y),
            ha="center",
            va="center",
            fontsize=7,
            fontweight="bold",
            color="white",
            # Above its own disc, and below the next.
            zorder=4.01 + each.exit / exits,
        )
    order = 4 + (0.5 if each.exit is None else each.exit / exits)
    panel.plot([low, high], [y, y], color=colour, linewidth=1.6, alpha=0.6, solid_capstyle="butt", zorder=order)
    panel.scatter([x], [y], s=size, marker=marker, color=colour, edgecolors="white", linewidths=0.8, zorder=order)
