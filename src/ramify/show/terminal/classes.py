"""How each class does: tables for the terminal, and CSV files."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ramify.errors import InputError
from ramify.files import write_atomic
from ramify.run.classes import ClassFigures, ClassResults
from ramify.show.words import count, percent

CLASSES = 40
"""Classes that are shown: of more, those with the lowest recall."""

NAME = 18
"""Characters of a class's name that are shown."""


def chosen_results(results: Sequence[ClassResults], exit_: str | None = None) -> ClassResults:
    """The results that ``exit_`` names: ``policy``, or the number of an exit from 1; without it those that count.

    Raises:
        InputError: there is no such exit, or no policy.
    """
    if exit_ is None:
        return results[-1]
    names = {"policy" if each.exit is None else str(each.exit + 1): each for each in results}
    if exit_ not in names:
        hint = "" if "policy" in names else "; a policy comes from ramify calibrate"
        raise InputError(f"--confusion: got {exit_!r}; accepted: {', '.join(names)}{hint}")
    return names[exit_]


def class_tables(results: ClassResults, mistakes: int = 5) -> RenderableType:
    """Count, accuracy, precision and recall of each class, and the surest mistakes with their files."""
    parts: list[RenderableType] = [
        Text(f"Classes, as {results.title} answers", style="bold"),
        Text("precision: of what it takes for the class; recall: of the pictures of the class", style="dim"),
        Text(),
        _figures_table(results.classes),
    ]
    if mistakes and results.mistakes:
        parts += [Text(), Text(f"The surest mistakes of {results.title}", style="bold"), Text()]
        parts.append(_mistakes_table(results, mistakes))
    return Group(*parts)


def matrix_table(results: ClassResults) -> RenderableType:
    """The confusion matrix, a row for each true class."""
    names = [each.name for each in results.classes]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), collapse_padding=True)
    table.add_column("true \\ answer", no_wrap=True, max_width=NAME)
    for name in names:
        table.add_column(Text(name[:NAME]), justify="right", no_wrap=True)
    for at, (name, row) in enumerate(zip(names, results.matrix, strict=True)):
        cells = [
            Text(str(number) if number else "·", style="bold" if at == i else "" if number else "dim")
            for i, number in enumerate(row)
        ]
        table.add_row(Text(name), *cells)
    return Group(Text(f"Confusion matrix of {results.title}", style="bold"), Text(), table)


def write_csv(folder: Path, results: Sequence[ClassResults]) -> None:
    """``confusion-<exit>.csv``, ``classes-<exit>.csv`` and ``mistakes-<exit>.csv`` for each exit and the policy.

    Raises:
        RunError: they cannot be written.
    """
    for each in results:
        name = "policy" if each.exit is None else f"exit-{each.exit + 1}"
        names = [klass.name for klass in each.classes]
        matrix = [[label, *row] for label, row in zip(names, each.matrix, strict=True)]
        _write(folder / f"confusion-{name}.csv", ["true class", *names], matrix)
        figures = [[k.name, k.count, k.accuracy, k.precision, k.recall] for k in each.classes]
        _write(folder / f"classes-{name}.csv", ["class", "count", "accuracy", "precision", "recall"], figures)
        wrong = [[m.file, m.label, m.answer, m.confidence, m.exit + 1] for m in each.mistakes]
        _write(folder / f"mistakes-{name}.csv", ["file", "class", "answer", "confidence", "exit"], wrong)


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_atomic(path, text.getvalue().encode())


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), header_style="dim")
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    return table


def _figures_table(classes: Sequence[ClassFigures]) -> Table:
    table = _table("class", "pictures", "accuracy", "precision", "recall")
    table.columns[0].max_width = NAME
    shown = classes
    if len(classes) > CLASSES:
        ranked = sorted(classes, key=lambda each: -1.0 if each.recall is None else each.recall)
        shown = [each for each in ranked if each.count][:CLASSES]
    for each in shown:
        table.add_row(
            Text(each.name),
            count(each.count),
            percent(each.accuracy),
            "-" if each.precision is None else percent(each.precision),
            "-" if each.recall is None else percent(each.recall),
        )
    if len(shown) < len(classes):
        table.add_row(f"({len(classes) - len(shown)} more)")
    return table


def _mistakes_table(results: ClassResults, mistakes: int) -> Table:
    table = _table("file", "class", "answer", "confidence", "exit")
    table.columns[0].no_wrap = False
    table.columns[0].overflow = "fold"
    for each in results.mistakes[:mistakes]:
        name = each.file or f"picture {each.picture}"
        table.add_row(Text(name), Text(each.label), Text(each.answer), percent(each.confidence), str(each.exit + 1))
    return table
