"""How each class does: tables for the terminal, and CSV files."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ramify.errors import InputError
from ramify.files import write_atomic
from ramify.run.classes import ClassFigures, ClassResults
from ramify.show.terminal.table import table, titled
from ramify.show.words import count, csv_lines, percent

_CLASSES = 40
"""Classes that are shown: of more, those with the lowest recall."""

_NAME = 18
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
    caption = "precision: of what it takes for the class; recall: of the pictures of the class"
    parts = titled(f"Classes, as {results.title} answers", _figures_table(results.classes), caption)
    if mistakes and results.mistakes:
        rows = [
            [
                each.file or f"picture {each.picture}",
                each.label,
                each.answer,
                percent(each.confidence),
                str(each.exit + 1),
            ]
            for each in results.mistakes[:mistakes]
        ]
        columns = ["file", "class", "answer", "confidence", "exit"]
        parts += [Text(), *titled(f"The surest mistakes of {results.title}", table(columns, rows))]
    return Group(*parts)


def _figures_table(classes: Sequence[ClassFigures]) -> Table:
    shown = classes
    if len(classes) > _CLASSES:
        ranked = sorted(classes, key=lambda each: -1.0 if each.recall is None else each.recall)
        shown = [each for each in ranked if each.count][:_CLASSES]
    rows = [
        [each.name, count(each.count), percent(each.accuracy), percent(each.precision), percent(each.recall)]
        for each in shown
    ]
    rows += [[f"({len(classes) - len(shown)} more)"]] if len(shown) < len(classes) else []
    return table(["class", "pictures", "accuracy", "precision", "recall"], rows, tight=True, widest=_NAME)


def matrix_table(results: ClassResults) -> RenderableType:
    """The confusion matrix, a row for each true class."""
    names = [each.name for each in results.classes]
    rows: list[list[str | Text]] = [
        [
            name,
            *(
                Text(str(number) if number else "·", style="bold" if at == i else "" if number else "dim")
                for i, number in enumerate(row)
            ),
        ]
        for at, (name, row) in enumerate(zip(names, results.matrix, strict=True))
    ]
    made = table(["true \\ answer", *(name[:_NAME] for name in names)], rows, tight=True, widest=_NAME)
    return Group(*titled(f"Confusion matrix of {results.title}", made))


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


def _write(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    write_atomic(path, csv_lines(columns, rows).encode())
