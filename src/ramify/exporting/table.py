"""What an export says of itself on the screen."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ramify.answer.card import Quantization
from ramify.exporting.write import Export
from ramify.show.terminal.table import table
from ramify.show.words import count, percent, plural

LOSS = 0.01
"""Accuracy that int8 may cost at an exit without a warning."""


def export_table(found: Export) -> RenderableType:
    """The files that were run, what int8 cost, and which stages were executed."""
    rows = [[each.file, count(each.bytes), f"{each.difference:.1e}"] for each in found.files]
    quantized = found.card.quantization
    against = "PyTorch" if quantized is None else "its stages in int8"
    lines = [f"run on {plural(found.pictures, 'test picture')} and compared with {against}", _executed(found)]
    parts: list[RenderableType] = [table(["file", "bytes", "largest difference"], rows), Text()]
    if quantized is not None:
        parts += [quantization_table(quantized), Text()]
    return Group(*parts, *map(Text, lines))


def quantization_table(found: Quantization) -> Table:
    """Accuracy of every exit in float32 and in int8."""
    rows = [
        [str(i), percent(before), percent(after), f"{100 * (after - before):+.2f}"]
        for i, (before, after) in enumerate(zip(found.before, found.after, strict=True), start=1)
    ]
    return table(["exit", "float32", "int8", "points"], rows)


def losses(found: Quantization) -> list[str]:
    """A sentence for each exit that int8 cost more than :data:`LOSS`."""
    return [
        f"exit {i}: int8 takes {100 * (before - after):.1f} points off its accuracy"
        for i, (before, after) in enumerate(zip(found.before, found.after, strict=True), start=1)
        if before - after > LOSS
    ]


def _executed(found: Export) -> str:
    """Which stages were executed for the pictures that came alone; the checks have seen that these were needed."""
    early, runtime = found.early, found.runtime
    stages = (
        f"stages executed for {plural(early.alone, 'picture')} that came alone: {' / '.join(map(str, early.executed))}"
    )
    if runtime is None:
        return stages
    same = runtime.executed == early.executed
    return stages + (", in both ways" if same else f"; one by one: {' / '.join(map(str, runtime.executed))}")
