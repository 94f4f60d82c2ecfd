"""What the sections and plots of a comparison share: colours and marks of the groups, words, tables, legends."""

from collections.abc import Sequence
from html import escape

from ramify.show.terminal.groups import LAST, Group, Spread
from ramify.show.words import short

COLOURS = ("#3a6fd8", "#d0603a", "#2a9468", "#9a5bc8", "#bd8500", "#2391ab", "#c4487f", "#78838f")
"""Colours of the groups, of middle lightness: they stand out from white and from black. They repeat."""

MARKS = (
    ("circle", "●"),
    ("square", "■"),
    ("diamond", "◆"),
    ("triangle-up", "▲"),
    ("triangle-down", "▼"),
    ("pentagon", "⬟"),
    ("cross", "✚"),
    ("x", "✖"),
)
"""Marks of the groups for those who see no colour, as plotly calls them and as letters; stars are for policies."""


def colour(group: int) -> str:
    """The colour of a group, from 0."""
    return COLOURS[group % len(COLOURS)]


def mark(group: int) -> tuple[str, str]:
    """The mark of a group, from 0: plotly's name, and a letter that looks like it."""
    # One further for each time that the colours have repeated, so that the pairs do not.
    return MARKS[(group + group // len(COLOURS)) % len(MARKS)]


def swatch(group: int) -> str:
    """The mark of a group in its colour, as HTML."""
    return f'<span class="swatch" aria-hidden="true" style="color:{colour(group)}">{mark(group)[1]}</span>'


def legend(groups: Sequence[Group]) -> str:
    """A button for each group that hides it in all plots; in HTML, where it can wrap and leaves a plot its height."""
    buttons = (
        f'<button type="button" aria-pressed="true" data-group="{i}">{swatch(i)}{escape(group.label)}</button>'
        for i, group in enumerate(groups)
    )
    return f'<p class="legend" role="group" aria-label="Groups shown">{"".join(buttons)}</p>'


def exit_words(exit_: int) -> str:
    """``0 -> 'exit 1'``, ``LAST -> 'last exit'``."""
    return "last exit" if exit_ == LAST else f"exit {exit_ + 1}"


def plus_minus(told: Spread | None, unit: str, digits: int | None = None) -> str:
    """A mean with its deviation; ``unit`` is ``%`` of a share, ``points`` of a difference, ``s``, or ``short``.

    Example:
        >>> plus_minus(Spread(0.975, 0.004, 3), "%"), plus_minus(Spread(-0.01, None, 1), "points")
        ('97.50 ± 0.40 %', '-1.00')
    """
    if told is None:
        return "-"
    if unit == "short":
        mean = f"{'-' if told.mean < 0 else ''}{short(abs(told.mean))}"
        return mean if not told.deviation else f"{mean} ± {short(told.deviation)}"
    factor, usual, after = {"%": (100, 2, " %"), "points": (100, 2, ""), "s": (1, 1, " s")}[unit]
    places = usual if digits is None else digits
    mean = f"{factor * told.mean:{'+' if unit == 'points' else ''}.{places}f}"
    return f"{mean}{after}" if told.deviation is None else f"{mean} ± {factor * told.deviation:.{places}f}{after}"


def pictures(groups: Sequence[Group]) -> set[tuple[object, ...]]:
    """What decides on the test pictures, for all groups."""
    sections = [group.config.data for group in groups]
    return {(data.source, data.limit, data.test_fraction, data.size) for data in sections}


def scroll(table: str, label: str, kind: str = "tight") -> str:
    """A table that scrolls inside itself where the screen is narrow."""
    return f'<div class="scroll {kind}" tabindex="0" role="region" aria-label="{escape(label)}">{table}</div>'


Cell = tuple[str, float | str | None]
"""The HTML of a cell, and the value by which its column is sorted; None is at the end whatever the direction."""


def sortable(headings: Sequence[str], words: int, rows: Sequence[Sequence[Cell]], label: str) -> str:
    """A table that sorts itself by any column; the first ``words`` columns are words, the others numbers."""
    classes = ["" if i < words else ' class="number"' for i in range(len(headings))]
    head = "".join(
        f'<th scope="col"{each}><button type="button">{escape(heading)}</button></th>'
        for heading, each in zip(headings, classes, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{each}{'' if value is None else f' data-value={_quoted(value)}'}>{html}</td>"
            for (html, value), each in zip(row, classes, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    table = f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return scroll(table, label, "tight whole")


def _quoted(value: float | str) -> str:
    return f'"{escape(str(value))}"'
