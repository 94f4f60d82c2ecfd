"""The terminal output of an export."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ramify.answer.card import Quantization
from ramify.exporting.write import Export
from ramify.show.terminal.table import table
from ramify.show.words import count, percent, plural

LOSS = 0.01
"""Accuracy that int8 may cost at an exit without a warning."""


def export_table(export: Export) -> RenderableType:
    """The files that were run, the accuracy in int8, and the stages that were executed."""
    rows = [[file.file, count(file.bytes), f"{file.difference:.1e}"] for file in export.files]
    parts: list[RenderableType] = [table(["file", "bytes", "largest difference"], rows), Text()]
    quantization, early, runtime = export.card.quantization, export.early, export.runtime
    if quantization is not None:
        parts += [quantization_table(quantization), Text()]
    reference = "PyTorch" if quantization is None else "its stages in int8"
    parts.append(Text(f"run on {plural(export.pictures, 'test picture')} and compared with {reference}"))
    line = (
        f"stages executed for {plural(early.alone, 'picture')} that came alone: {' / '.join(map(str, early.executed))}"
    )
    if runtime is not None:
        same = runtime.executed == early.executed
        line += ", in both ways" if same else f"; one by one: {' / '.join(map(str, runtime.executed))}"
    return Group(*parts, Text(line))


def quantization_table(quantization: Quantization) -> Table:
    """Accuracy of every exit in float32 and in int8."""
    rows = [
        [str(i), percent(before), percent(after), f"{100 * (after - before):+.2f}"]
        for i, (before, after) in enumerate(zip(quantization.before, quantization.after, strict=True), start=1)
    ]
    return table(["exit", "float32", "int8", "points"], rows)


def losses(quantization: Quantization) -> list[str]:
    """A sentence for each exit at which int8 costs more than :data:`LOSS`."""
    return [
        f"exit {i}: int8 takes {100 * (before - after):.1f} points off its accuracy"
        for i, (before, after) in enumerate(zip(quantization.before, quantization.after, strict=True), start=1)
        if before - after > LOSS
    ]
