"""A plot of a page: an interactive figure, the table of its numbers, and that table as CSV and JSON."""

import base64
import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ramify.show.report.page import html

Value = str | float | int | None
Trace = dict[str, object]

ACCENT, GREY = "#3a6fd8", "#858c96"
"""Colors of middle lightness: both stand out from white and from black, so a plot needs no second set."""

_SHADES = ("#d58a00", "#d0603a", "#b5528f", "#8458c2", "#4460d4")
"""From the first exit to the last: amber to blue and lighter to darker, which the color-blind can tell apart."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "triangle-down")
"""Marks of the exits, for those who see no color; they repeat."""

MANY = 8
"""With more exits than this a plot has no legend: the hover names the exit."""


@dataclass(frozen=True)
class Table:
    """The numbers of a plot: names of columns, and rows of as many values; None where there is none."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]


def plot(name: str, caption: str, table: Table, traces: Sequence[Trace], layout: Mapping[str, object]) -> Markup:
    """A figure, drawn by the script of the page, with its table and its downloads.

    Args:
        name: unique on a page, of lower-case letters, digits and hyphens; also the name of the downloads.
        caption: what to see in it, one or two sentences.
        table: every number of it.
        traces, layout: of plotly, which checks them. ``line_color`` is short for ``{"line": {"color": ...}}``, and so
            on. Fonts and colors of the page come from the one template in ``templates/page.js``.

    Raises:
        ValueError: plotly knows no such property.
    """
    from plotly.graph_objects import Figure  # type: ignore[import-untyped,unused-ignore]

    record = json.loads(Figure(data=list(traces), layout={"template": {}, **layout}).to_json())
    record["layout"].pop("template", None)
    # Inside a script element, nothing may look like its end.
    text = re.sub("[<>&]", lambda sign: f"\\u{ord(sign[0]):04x}", json.dumps(record, separators=(",", ":")))
    record_text = Markup(text)  # nosec B704 - JSON whose signs of HTML are escaped above
    return html("plot", name, caption, record_text, table, data_files(name, table))


def scatter(mode: str, x: Sequence[object], y: Sequence[object], hover: str | None, **more: object) -> Trace:
    """A trace of lines or markers; without ``hover`` it does not answer the mouse."""
    shown = {"hoverinfo": "skip"} if hover is None else {"hovertemplate": hover}
    return {"type": "scatter", "mode": mode, "x": list(x), "y": list(y), **shown, **more}


def bars(x: Sequence[object], y: Sequence[object], hover: str, **more: object) -> Trace:
    """A trace of bars."""
    return {"type": "bar", "x": list(x), "y": list(y), "hovertemplate": hover, **more}


def exit_colour(exit_: int, exits: int) -> str:
    """The color of one exit, counted from 0, of ``exits``: the same in every plot and drawing.

    Example:
        >>> exit_colour(0, 4), exit_colour(3, 4)
        ('#d58a00', '#4460d4')
    """
    place = (len(_SHADES) - 1) * (exit_ / (exits - 1) if exits > 1 else 1.0)
    below = min(int(place), len(_SHADES) - 2)
    pairs = zip(_channels(_SHADES[below]), _channels(_SHADES[below + 1]), strict=True)
    return "#" + "".join(f"{round(low + (place - below) * (high - low)):02x}" for low, high in pairs)


def exit_symbol(exit_: int) -> str:
    """The mark of one exit, counted from 0, in plots that have marks."""
    return SYMBOLS[exit_ % len(SYMBOLS)]


def faded(colour: str, opacity: float = 0.4) -> str:
    """``colour``, as light as ``opacity`` in [0, 1] makes it.

    Example:
        >>> faded("#d58a00", 0.5)
        'rgba(213,138,0,0.5)'
    """
    return f"rgba({','.join(map(str, _channels(colour)))},{opacity:g})"


def _channels(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def plotly_text(text: str, most: int | None = None) -> str:
    """``text`` such that plotly, which reads some tags and entities, shows it unchanged; cut to ``most`` characters.

    Example:
        >>> plotly_text("<b> & co"), plotly_text("a long name", 6)
        ('&lt;b&gt; &amp; co', 'a lon…')
    """
    if most is not None and len(text) > most:
        text = f"{text[: most - 1]}…"
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def csv_text(table: Table) -> str:
    """``table`` as CSV (RFC 4180): a row of names first; None is empty, and a number reads back the same.

    Example:
        >>> csv_text(Table(("exit", "accuracy"), ((1, 0.5), (2, None))))
        'exit,accuracy\\r\\n1,0.5\\r\\n2,\\r\\n'
    """
    text = io.StringIO()
    csv.writer(text).writerows([table.columns, *table.rows])
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


def data_uri(media: str, content: bytes) -> str:
    """``content`` as an address that holds it."""
    return f"data:{media};base64,{base64.b64encode(content).decode()}"


def data_files(name: str, table: Table) -> list[tuple[str, str, str]]:
    """``table`` as ``<name>.csv`` and ``<name>.json``: the file, its address, which holds the data, and its kind."""
    return [
        (f"{name}.csv", data_uri("text/csv", csv_text(table).encode()), "CSV"),
        (f"{name}.json", data_uri("application/json", json_text(table).encode()), "JSON"),
    ]


def downloads(name: str, table: Table) -> Markup:
    """Links that save ``table``; see :func:`data_files`."""
    return html("links", "Data", data_files(name, table))
