"""Tables in the one style of the terminal."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

Cells = Sequence[str | Text]


def table(
    columns: Sequence[str],
    rows: Iterable[Cells] = (),
    *,
    left: Sequence[int] = (0,),
    tight: bool = False,
    rule: bool = True,
    widest: int | None = None,
) -> Table:
    """A table of ``rows``; a string in it is text, never markup.

    Args:
        left: the columns of words, aligned at the left; the others are figures, aligned at the right.
        tight: columns stand closer, and cells stay in one line; else cells are wrapped where a terminal is narrow.
        rule: a line below the headings; without it columns stand closest.
        widest: characters of the first column that are shown.
    """
    made = Table(
        box=box.SIMPLE_HEAD if rule else None,
        show_edge=False,
        pad_edge=rule and not tight,
        collapse_padding=tight,
        padding=(0, 1) if rule else (0, 1, 0, 0),
        header_style="dim",
        border_style="dim",
    )
    for i, name in enumerate(columns):
        made.add_column(
            Text(name),
            justify="left" if i in left else "right",
            no_wrap=tight,
            overflow="ellipsis" if tight else "fold",
            max_width=widest if i == 0 else None,
        )
    for row in rows:
        add(made, *row)
    return made


def add(made: Table, *cells: str | Text, bold: bool = False, dim: bool = False) -> None:
    """Add a row."""
    texts = (Text(cell) if isinstance(cell, str) else cell for cell in cells)
    made.add_row(*texts, style="bold" if bold else "dim" if dim else "")


def bold(text: str) -> Text:
    """A figure that matters most."""
    return Text(text, style="bold")


def titled(title: str, body: RenderableType, caption: str = "") -> list[RenderableType]:
    """``body`` below a title and a caption."""
    return [bold(title), *([Text(caption, style="dim")] if caption else []), Text(), body]
