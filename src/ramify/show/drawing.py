"""Pictures through matplotlib: an empty drawing in the shared style, and saving it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ramify.errors import InputError
from ramify.needs import need

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, DIM, RULE = "#2b2f36", "#6b717b", "#eceef1"


def axes(
    size: tuple[float, float], rows: int = 1, columns: int = 1, extra: str = "search"
) -> tuple["Figure", Sequence[Sequence["Axes"]]]:
    """A drawing of ``size`` inches and its panels, which share their axes along rows and columns.

    Args:
        extra: the extra of ramify that brings matplotlib, for the error.

    Raises:
        InputError: matplotlib is not installed.
    """
    need(extra, "matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(drawing)
    panels = [list(row) for row in drawing.subplots(rows, columns, sharex="col", sharey="row", squeeze=False)]
    for panel in (panel for row in panels for panel in row):
        panel.grid(visible=True, color=RULE, linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(colors=INK, labelsize=9)
    return drawing, panels


def heading(drawing: "Figure", text: str) -> None:
    """Set the title of a drawing, at its left."""
    drawing.suptitle(text, fontsize=12, fontweight="bold", color=INK, x=0.012, ha="left")


def log_axis(panel: "Axes", units: bool = False) -> None:
    """Make the x axis logarithmic with ticks at 1, 2 and 5; with ``units`` large numbers are written as ``20 k``."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=12))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.xaxis.set_major_formatter(EngFormatter() if units else FuncFormatter(lambda value, _: f"{value:g}"))


def save_drawing(drawing: "Figure", path: Path) -> None:
    """Write a drawing as SVG, PDF or PNG, by the ending of the file.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        drawing.savefig(path, facecolor="white")
    except (OSError, ValueError) as error:
        raise InputError(f"plot: {path} cannot be written ({error})") from None
