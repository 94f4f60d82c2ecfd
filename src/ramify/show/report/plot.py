"""A plot of a page: an interactive figure, the table of its numbers, and that table as CSV and JSON."""

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup
from PIL.ImageColor import getrgb

from ramify.show.report.page import html
from ramify.show.words import csv_lines

Value = str | float | int | None
Trace = dict[str, object]

ACCENT, GREY = "#3a6fd8", "#858c96"
"""Colors of middle lightness, which stand out from white and from black."""

_SHADES = ("#d58a00", "#d0603a", "#b5528f", "#8458c2", "#4460d4")
"""From the first exit to the last, lighter to darker; the color-blind can tell them apart."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "triangle-down")
"""Marks of the exits; they repeat."""

MANY = 8
"""With more exits than this a plot has no legend: the hover names the exit."""


@dataclass(frozen=True)
class Table:
    """The numbers of a plot: names of columns, and rows of as many values; None where there is none."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]


@dataclass(frozen=True)
class Plot:
    """What the macro ``plot`` draws: JSON for plotly, the table of the numbers, and the files to save that table."""

    name: str
    record: Markup
    table: Table
    files: Sequence[tuple[str, str, str]]


def plot(name: str, table: Table, traces: Sequence[Trace], layout: Mapping[str, object]) -> Plot:
    """A figure that the script of the page draws.

    Args:
        name: unique on a page, of lower-case letters, digits and hyphens; also the name of the downloads.
        table: every number of it.
        traces, layout: of plotly, which checks them. Fonts and colors come from the template in ``templates/page.js``.

    Raises:
        ValueError: plotly knows no such property.
    """
    from plotly.graph_objects import Figure  # type: ignore[import-untyped,unused-ignore]

    record = json.loads(Figure(data=list(traces), layout={"template": {}, **layout}).to_json())
    record["layout"].pop("template", None)
    # Inside a script element, nothing may look like its end.
    text = re.sub("[<>&]", lambda sign: f"\\u{ord(sign[0]):04x}", json.dumps(record, separators=(",", ":")))
    return Plot(name, Markup(text), table, data_files(name, table))  # nosec B704 - JSON, signs of HTML escaped above


def scatter(mode: str, x: Sequence[object], y: Sequence[object], hover: str | None, **more: object) -> Trace:
    """A trace of lines or markers; without ``hover`` it does not answer the mouse."""
    shown = {"hoverinfo": "skip"} if hover is None else {"hovertemplate": hover}
    return {"type": "scatter", "mode": mode, "x": list(x), "y": list(y), **shown, **more}


def bars(x: Sequence[object], y: Sequence[object], hover: str, **more: object) -> Trace:
    """A trace of bars."""
    return {"type": "bar", "x": list(x), "y": list(y), "hovertemplate": hover, **more}


def exit_color(exit_: int, exits: int) -> str:
    """The color of one exit, counted from 0, of ``exits``: the same in every plot and drawing.

    Example:
        >>> exit_color(0, 4), exit_color(3, 4)
        ('#d58a00', '#4460d4')
    """
    place = (len(_SHADES) - 1) * (exit_ / (exits - 1) if exits > 1 else 1.0)
    below = min(int(place), len(_SHADES) - 2)
    pairs = zip(getrgb(_SHADES[below]), getrgb(_SHADES[below + 1]), strict=True)
    return "#" + "".join(f"{round(low + (place - below) * (high - low)):02x}" for low, high in pairs)


def exit_symbol(exit_: int) -> str:
    """The mark of one exit, counted from 0, in plots that have marks."""
    return SYMBOLS[exit_ % len(SYMBOLS)]


def faded(color: str, opacity: float = 0.4) -> str:
    """``color`` with an ``opacity`` in [0, 1].

    Example:
        >>> faded("#d58a00", 0.5)
        'rgba(213,138,0,0.5)'
    """
    return f"rgba({','.join(map(str, getrgb(color)))},{opacity:g})"


def plotly_text(text: str, most: int | None = None) -> str:
    """``text`` such that plotly, which reads some tags and entities, shows it unchanged; cut to ``most`` characters.

    Example:
        >>> plotly_text("<b> & co"), plotly_text("a long name", 6)
        ('&lt;b&gt; &amp; co', 'a lon…')
    """
    if most is not None and len(text) > most:
        text = f"{text[: most - 1]}…"
    return escape(text, quote=False)


def json_text(table: Table) -> str:
    """``table`` as a JSON list of objects, one a row; a number that is not finite is null."""
    rows = [[None if isinstance(it, float) and not math.isfinite(it) else it for it in row] for row in table.rows]
    return json.dumps([dict(zip(table.columns, row, strict=True)) for row in rows])


def data_uri(media: str, content: bytes) -> str:
    """``content`` as a data URI."""
    return f"data:{media};base64,{base64.b64encode(content).decode()}"


def data_files(name: str, table: Table) -> list[tuple[str, str, str]]:
    """``table`` as ``<name>.csv`` and ``<name>.json``: name of the file, data URI, kind."""
    return [
        (f"{name}.csv", data_uri("text/csv", csv_lines(table.columns, table.rows).encode()), "CSV"),
        (f"{name}.json", data_uri("application/json", json_text(table).encode()), "JSON"),
    ]


def downloads(name: str, table: Table) -> Markup:
    """Links that save ``table``; see :func:`data_files`."""
    return html("links", "Data", data_files(name, table))
