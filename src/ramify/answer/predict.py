"""Answers to picture files."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from ramify.answer.answerer import Answerer
from ramify.answer.picture import conversion, read_file, read_header, read_picture
from ramify.errors import InputError
from ramify.show.terminal.table import table
from ramify.show.words import percent, plural, short


@dataclass(frozen=True)
class Predicted:
    """The answer to one picture file.

    Attributes:
        picture: the file.
        label: the class, an index into the names; ``name`` is its name.
        confidence: in [0, 1].
        exit: where it left, from 1.
        milliseconds: of the network, without reading the file.
        converted: how the picture was converted, in words; None where it was not.
    """

    picture: str
    label: int
    name: str
    confidence: float
    exit: int
    milliseconds: float
    converted: str | None


def predict_files(network: Answerer, files: Iterable[Path]) -> Iterator[Predicted | InputError]:
    """Answer each file as a batch of one, so it costs what its exit costs; a broken file gives its error."""
    # Warms up every exit, so that the first answer is not timed as slower than the others.
    network.opinions(np.zeros(network.input_shape, np.float32))
    for path in files:
        try:
            content = read_file(path)
            header = read_header(content, str(path))
            picture = read_picture(content, str(path), network.input_shape, network.reading)
        except InputError as error:
            yield error
            continue
        answers = network.predict(picture[None])
        label = int(answers.classes[0])
        yield Predicted(
            picture=str(path),
            label=label,
            name=network.classes[label],
            confidence=float(answers.confidence[0]),
            exit=int(answers.exits[0]) + 1,
            milliseconds=answers.milliseconds,
            converted=conversion(header, network.input_shape),
        )


def prediction_table(predictions: Sequence[Predicted], exits: int) -> Table:
    """A row for each picture, with a column for conversions where there are some."""
    rows = [
        [row.picture, row.name, percent(row.confidence), f"{row.exit} of {exits}", f"{row.milliseconds:.2f}"]
        for row in predictions
    ]
    columns = ["picture", "class", "confidence", "exit", "milliseconds"]
    if any(row.converted for row in predictions):
        columns.append("converted")
        rows = [[*cells, row.converted or ""] for cells, row in zip(rows, predictions, strict=True)]
    return table(columns, rows, left=(0, 1, 5))


def work_line(predictions: Sequence[Predicted], macs: Sequence[int]) -> str:
    """MACs of the answers, compared with answering every picture at the last exit."""
    mean = sum(macs[row.exit - 1] for row in predictions) / len(predictions)
    shares = " / ".join(str(sum(row.exit == at for row in predictions)) for at in range(1, len(macs) + 1))
    return (
        f"{plural(len(predictions), 'picture')}, leaving at each exit: {shares}; {short(mean)} MACs a picture "
        f"on average, {percent(mean / macs[-1])} of the last exit's"
    )
