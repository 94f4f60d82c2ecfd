"""The one table of the terminal: names at the left, figures at the right."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Text]] = (),
    *,
    left: Sequence[int] = (0,),
    tight: bool = False,
    widest: int | None = None,
) -> Table:
    """A table of ``rows``; a string in it is text, never markup.

    Args:
        columns: headings.
        rows: as many cells each.
        left: which columns are words, at the left; the others are figures, at the right.
        tight: columns stand closer, and cells stay in one line; else cells are wrapped where a terminal is narrow.
        widest: characters of the first column that are shown.
    """
    made = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=not tight,
        collapse_padding=tight,
        padding=(0, 1),
        header_style="dim",
        border_style="dim",
    )
    for i, name in enumerate(columns):
        made.add_column(
            Text(name),
            justify="left" if i in left else "right",
            no_wrap=tight,
            overflow="ellipsis" if tight else "fold",
        )
    if widest is not None:
        made.columns[0].max_width = widest
    for row in rows:
        add(made, *row)
    return made


def add(made: Table, *cells: str | Text, bold: bool = False) -> None:
    """One more row."""
    made.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells), style="bold" if bold else "")


def bold(text: str) -> Text:
    """A figure that matters most."""
    return Text(text, style="bold")


def titled(title: str, body: RenderableType, caption: str = "") -> list[RenderableType]:
    """``body`` below a title, and below what its figures are."""
    return [bold(title), *([Text(caption, style="dim")] if caption else []), Text(), body]
