"""A plot of a page: an interactive figure, the table of its numbers, and that table as CSV and JSON."""

import base64
import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol, cast

Value = str | float | int | None

ACCENT, GREY = "#3a6fd8", "#858c96"
"""Colours of middle lightness: both stand out from white and from black, so a plot needs no second set."""

SHADES = ("#d58a00", "#d0603a", "#b5528f", "#8458c2", "#4460d4")
"""From the first exit to the last: amber to blue and lighter to darker, which the colour-blind can tell apart."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "triangle-down")
"""Marks of the exits, for those who see no colour; they repeat."""


class Figure(Protocol):
    """A ``plotly.graph_objects.Figure``, which comes without types: what is asked of it here."""

    def to_json(self) -> str | None:
        """The figure as plotly.js reads it."""
        ...


@dataclass(frozen=True)
class Table:
    """The numbers of a plot: names of columns, and rows of as many values; None where there is none."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True)
class Plot:
    """A plot and what it shows.

    Attributes:
        name: unique on a page, of lower-case letters, digits and hyphens; also the name of its downloads.
        figure: a ``plotly.graph_objects.Figure``, see :func:`figure`; the page sets its fonts and its background.
        table: every number of it.
        caption: what to see in it, one or two sentences of plain text.
    """

    name: str
    figure: Figure
    table: Table
    caption: str


def figure(traces: Sequence[Mapping[str, object]], layout: Mapping[str, object] | None = None) -> Figure:
    """A plotly figure of ``traces`` and ``layout``, both as plain dictionaries that plotly checks.

    Example:
        >>> made = figure([{"type": "scatter", "x": [1, 2], "y": [0.5, 0.75], "name": "exit 1"}])
        >>> '"exit 1"' in (made.to_json() or "")
        True
    """
    from plotly.graph_objects import Figure as PlotlyFigure  # type: ignore[import-untyped,unused-ignore]

    # The default template is 7 kB of colours that the page sets itself.
    return cast(Figure, PlotlyFigure(data=list(traces), layout={"template": {}, **(layout or {})}))


def exit_colour(exit_: int, exits: int) -> str:
    """The colour of one exit, counted from 0, of ``exits``: the same in every plot and drawing.

    Example:
        >>> exit_colour(0, 4), exit_colour(3, 4)
        ('#d58a00', '#4460d4')
    """
    place = (len(SHADES) - 1) * (exit_ / (exits - 1) if exits > 1 else 1.0)
    below = min(int(place), len(SHADES) - 2)
    pairs = zip(_channels(SHADES[below]), _channels(SHADES[below + 1]), strict=True)
    return "#" + "".join(f"{round(low + (place - below) * (high - low)):02x}" for low, high in pairs)


def faded(colour: str, opacity: float = 0.4) -> str:
    """``colour``, as light as ``opacity`` in [0, 1] makes it.

    Example:
        >>> faded("#d58a00", 0.5)
        'rgba(213,138,0,0.5)'
    """
    return f"rgba({','.join(map(str, _channels(colour)))},{opacity:g})"


def plotly_text(text: str) -> str:
    """``text`` such that plotly, which reads some tags and entities in labels and hovers, shows it unchanged.

    Example:
        >>> plotly_text("<b> & co")
        '&lt;b&gt; &amp; co'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _channels(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def exit_symbol(exit_: int) -> str:
    """The mark of one exit, counted from 0, in plots that have marks."""
    return SYMBOLS[exit_ % len(SYMBOLS)]


def csv_text(table: Table) -> str:
    """``table`` as CSV (RFC 4180): a row of names first; None is empty, and a number reads back the same.

    Example:
        >>> csv_text(Table(("exit", "accuracy"), ((1, 0.5), (2, None))))
        'exit,accuracy\\r\\n1,0.5\\r\\n2,\\r\\n'
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    return text.getvalue()


def json_text(table: Table) -> str:
    """``table`` as a JSON list of objects, one a row; what is no finite number is null.

    Example:
        >>> json_text(Table(("exit", "accuracy"), ((1, 0.5),)))
        '[{"exit": 1, "accuracy": 0.5}]'
    """
    return json.dumps([dict(zip(table.columns, map(_finite, row), strict=True)) for row in table.rows])


def _finite(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def plot_html(plot: Plot) -> str:
    """``plot`` as a ``<figure>``: drawn by the script of the page, with its table and its downloads."""
    name = escape(plot.name)
    return (
        f'<figure class="plot" id="plot-{name}">'
        f'<div class="canvas" role="img" aria-label="{escape(plot.caption)}"></div>'
        f'<script type="application/json">{_inline(plot.figure)}</script>'
        f"<figcaption><p>{escape(plot.caption)}</p>{downloads_html(plot.name, plot.table)}"
        f"{table_details_html(plot.table, plot.caption)}</figcaption></figure>"
    )


def downloads_html(name: str, table: Table) -> str:
    """Links that save ``table`` as ``<name>.csv`` and ``<name>.json``; the data are in the links."""
    links = [
        f'<a download="{escape(name)}.{kind}" href="data:{media};base64,'
        f'{base64.b64encode(text.encode()).decode()}">{kind.upper()}</a>'
        for kind, media, text in (
            ("csv", "text/csv", csv_text(table)),
            ("json", "application/json", json_text(table)),
        )
    ]
    return f'<p class="downloads"><span>Data</span> {" ".join(links)}</p>'


def table_details_html(table: Table, caption: str) -> str:
    """``table`` folded away behind a heading that a keyboard opens."""
    return (
        "<details><summary>Show as a table</summary>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">{table_html(table)}</div>'
        "</details>"
    )


def table_html(table: Table) -> str:
    """``table`` as HTML; numbers are shortened to five digits and stand at the right."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in table.rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Value) -> str:
    if value is None:
        return "<td></td>"
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    shown = f"{value:,}" if isinstance(value, int) else f"{value:,.5g}"
    return f'<td class="number">{shown}</td>'


def _inline(drawn: Figure) -> str:
    """JSON that may stand inside a script element, whatever strings it holds."""
    record = json.loads(drawn.to_json() or "{}")
    layout = record.get("layout", {})
    layout.pop("template", None)
    return re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(record, separators=(",", ":")))
