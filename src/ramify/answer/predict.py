"""Answers to picture files, one after the other."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from ramify.answer.answerer import Answerer
from ramify.answer.picture import conversion, read_file, read_header, read_picture
from ramify.errors import InputError
from ramify.show.words import percent, plural, short


@dataclass(frozen=True)
class Predicted:
    """The answer to one picture file.

    Attributes:
        picture: the file.
        label: the class, an index into the names; ``name`` is its name.
        confidence: in [0, 1].
        exit: where it left, from 1.
        milliseconds: of the network, for this picture alone; reading the file is not counted.
        converted: how the picture was made what the network reads, in words; None where it was that.
    """

    picture: str
    label: int
    name: str
    confidence: float
    exit: int
    milliseconds: float
    converted: str | None


def predict_files(network: Answerer, files: Iterable[Path]) -> Iterator[Predicted | InputError]:
    """Answer each file as a batch of one, so that it costs what its exit costs; a broken file gives its error.

    Every exit is asked about a black picture first, so that the first answer is not counted as slower than others.
    """
    network.opinions(np.zeros(network.input_shape, np.float32))
    for path in files:
        try:
            content = read_file(path)
            header = read_header(content, str(path))
            picture = read_picture(content, str(path), network.input_shape, network.reading)
        except InputError as error:
            yield error
            continue
        found = network.answer(picture[None])
        label = int(found.classes[0])
        yield Predicted(
            picture=str(path),
            label=label,
            name=network.classes[label],
            confidence=float(found.confidence[0]),
            exit=int(found.exits[0]) + 1,
            milliseconds=found.milliseconds,
            converted=conversion(header, network.input_shape),
        )


def prediction_table(found: Sequence[Predicted], exits: int) -> Table:
    """A row for each picture; how pictures were converted is told where some were."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="dim", border_style="dim")
    converted = any(each.converted for each in found)
    table.add_column("picture", overflow="fold")
    table.add_column("class", overflow="fold")
    for head in ("confidence", "exit", "milliseconds"):
        table.add_column(head, justify="right")
    if converted:
        table.add_column("converted")
    for each in found:
        cells = [percent(each.confidence), f"{each.exit} of {exits}", f"{each.milliseconds:.2f}"]
        # As plain text: a name in square brackets is no markup.
        names = Text(each.picture), Text(each.name)
        table.add_row(*names, *cells, *([each.converted or ""] if converted else []))
    return table


def work_line(found: Sequence[Predicted], macs: Sequence[int]) -> str:
    """How much work the answers were, against asking the last exit each time."""
    mean = sum(macs[each.exit - 1] for each in found) / len(found)
    shares = " / ".join(str(sum(each.exit == at for each in found)) for at in range(1, len(macs) + 1))
    return (
        f"{plural(len(found), 'picture')}, leaving at each exit: {shares}; {short(mean)} MACs a picture on average, "
        f"{percent(mean / macs[-1])} of the last exit's"
    )
