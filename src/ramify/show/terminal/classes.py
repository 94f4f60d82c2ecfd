"""The results of each class: tables for the terminal, and CSV files."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ramify.errors import InputError
from ramify.files import write_atomic
from ramify.run.classes import ClassFigures, ClassResults
from ramify.show.terminal.table import add, table, titled
from ramify.show.words import count, csv_lines, percent

_CLASSES = 40
"""Classes that are shown: of more, those with the lowest recall."""

_NAME = 18
"""Characters of a class's name that are shown."""


def chosen_results(results: Sequence[ClassResults], exit_: str | None = None) -> ClassResults:
    """The results of ``exit_``: ``policy``, or the number of an exit from 1; by default the last results.

    Raises:
        InputError: there is no such exit, or no policy.
    """
    if exit_ is None:
        return results[-1]
    names = {"policy" if result.exit is None else str(result.exit + 1): result for result in results}
    if exit_ not in names:
        hint = "" if "policy" in names else "; a policy comes from ramify calibrate"
        raise InputError(f"--confusion: got {exit_!r}; accepted: {', '.join(names)}{hint}")
    return names[exit_]


def class_tables(results: ClassResults, mistakes: int = 5) -> RenderableType:
    """Count, accuracy, precision and recall of each class, and the surest mistakes with their files."""
    caption = "precision: of what it takes for the class; recall: of the pictures of the class"
    parts = titled(f"Classes, as {results.title} answers", _figures_table(results.classes), caption)
    if mistakes and results.mistakes:
        rows = [
            [it.file or f"picture {it.picture}", it.label, it.answer, percent(it.confidence), str(it.exit + 1)]
            for it in results.mistakes[:mistakes]
        ]
        columns = ["file", "class", "answer", "confidence", "exit"]
        parts += [Text(), *titled(f"The surest mistakes of {results.title}", table(columns, rows))]
    return Group(*parts)


def _figures_table(classes: Sequence[ClassFigures]) -> Table:
    shown = classes
    if len(classes) > _CLASSES:
        ranked = sorted(classes, key=lambda row: -1.0 if row.recall is None else row.recall)
        shown = [row for row in ranked if row.count][:_CLASSES]
    rows = [
        [row.name, count(row.count), percent(row.accuracy), percent(row.precision), percent(row.recall)]
        for row in shown
    ]
    rows += [[f"({len(classes) - len(shown)} more)"]] if len(shown) < len(classes) else []
    return table(["class", "pictures", "accuracy", "precision", "recall"], rows, tight=True, widest=_NAME)


def matrix_table(results: ClassResults) -> RenderableType:
    """The confusion matrix, a row for each true class."""
    names = [row.name for row in results.classes]
    made = table(["true \\ answer", *(name[:_NAME] for name in names)], tight=True, widest=_NAME)
    for at, (name, row) in enumerate(zip(names, results.matrix, strict=True)):
        styles = ("bold" if at == i else "" if number else "dim" for i, number in enumerate(row))
        add(made, name, *map(Text, (str(number or "·") for number in row), styles))
    return Group(*titled(f"Confusion matrix of {results.title}", made))


def write_csv(folder: Path, results: Sequence[ClassResults]) -> None:
    """``confusion-<exit>.csv``, ``classes-<exit>.csv`` and ``mistakes-<exit>.csv`` for each exit and the policy.

    Raises:
        RunError: they cannot be written.
    """
    for result in results:
        name = "policy" if result.exit is None else f"exit-{result.exit + 1}"
        classes = [row.name for row in result.classes]
        counts = [[label, *row] for label, row in zip(classes, result.matrix, strict=True)]
        figures = [[row.name, row.count, row.accuracy, row.precision, row.recall] for row in result.classes]
        wrong = [[it.file, it.label, it.answer, it.confidence, it.exit + 1] for it in result.mistakes]
        for kind, columns, rows in (
            ("confusion", ["true class", *classes], counts),
            ("classes", ["class", "count", "accuracy", "precision", "recall"], figures),
            ("mistakes", ["file", "class", "answer", "confidence", "exit"], wrong),
        ):
            write_atomic(folder / f"{kind}-{name}.csv", csv_lines(columns, rows).encode())
