"""Labels from a CSV file: the class of each picture, and perhaps its part and its group."""

import csv
import io
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ramify.data.layout import Layout, part_of
from ramify.data.listing import UNLISTED, Skipped, first_problems
from ramify.data.names import class_name, shown
from ramify.errors import DataError, unknown_name

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "file": ("file", "filename", "file_name", "path", "filepath", "image", "image_path", "name", "id", "image_id"),
    "label": ("label", "class", "category", "target", "class_name"),
    "part": ("part", "split", "set", "subset", "fold_part"),
    "group": ("group",),
}
"""The accepted names of each column, in any case."""

_NAMED = 20
"""Problems that an error lists."""


@dataclass(frozen=True)
class Row:
    """A line of the table; ``part`` and ``group`` may be empty."""

    line: int
    file: str
    label: str
    part: str
    group: str


def read_table(content: bytes, where: str, group: str | None = None) -> tuple[Row, ...]:
    """The rows of a CSV file whose first line names its columns, with commas, semicolons or tabs.

    ``group`` is the column of groups, if another one than "group"; ``where`` names the table in an error.

    Raises:
        DataError: it is not text, lacks a column, or a row lacks a value or has an unknown part.

    Example:
        >>> read_table(b"file,label\\n1.png,cat\\n", "labels.csv")[0].label
        'cat'
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: is not text in UTF-8 ({error}); accepted: a CSV file in UTF-8") from error
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        lines = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"{where}: cannot be read as CSV ({error}); accepted: file,label lines") from error
    header = [name.strip().lower() for name in lines[0]] if lines else []
    places = {kind: _place(header, names) for kind, names in _COLUMNS.items()}
    if group is not None and "(" not in group:  # else it is a regular expression for the names of the pictures
        if group.lower() not in header:
            raise DataError(unknown_name("data.group", group, header))
        places["group"] = header.index(group.lower())
    for kind in ("file", "label"):
        if places[kind] is None:
            raise DataError(
                f"{where}: got the columns {', '.join(header) or 'of an empty file'}; accepted: a first line with "
                f"{kind} ({', '.join(_COLUMNS[kind])}), such as file,label"
            )
    rows, problems = [], []
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        value = {
            kind: cells[place].strip() if place is not None and place < len(cells) else ""
            for kind, place in places.items()
        }
        part = part_of(value["part"]) if value["part"] else ""
        if not value["file"] or not value["label"]:
            problems.append(f"{where}:{number}: got no {'file' if not value['file'] else 'label'}; accepted: both")
        elif part is None:
            problems.append(f"{where}:{number}: part: got {value['part']!r}; accepted: train, valid, test, or nothing")
        else:
            label = class_name(shown(value["label"]))
            rows.append(Row(number, value["file"], label, part, shown(value["group"])))
    if problems:
        raise first_problems(problems, _NAMED)
    return tuple(rows)


def arrange_table(rows: Sequence[Row], names: Sequence[str], table: str, where: str) -> tuple[Layout, dict[str, str]]:
    """The layout that a table describes, and the group of each picture that has one.

    Args:
        rows: of the table.
        names: the pictures of the source. A row's file is a name, or the end of exactly one, with or without
            its ending. Where no row has a part and every picture lies in a folder of one, such as ``test/7.png``, that
            is its part.
        table: the table, for an error.
        where: the source, for an error.

    Raises:
        DataError: a row names no picture, or a picture has two labels or parts; fewer than two classes; a class that
            the training part lacks.
    """
    exact = set(names)
    by_stem: dict[str, list[str]] = {}
    for name in names:
        base = posixpath.basename(name)
        for key in {base, posixpath.splitext(base)[0]}:
            by_stem.setdefault(key, []).append(name)
    problems: list[str] = []
    chosen: dict[str, Row] = {}
    for row in rows:
        file = shown(row.file.replace("\\", "/").removeprefix("./"))
        fitting = [file] if file in exact else _fitting(file, by_stem)
        if len(fitting) != 1:
            got = "which is not there" if not fitting else f"which could be {fitting[0]} or {fitting[1]}"
            problems.append(f"{table}:{row.line}: got {file}, {got}; accepted: a picture in {where}")
        else:
            other = chosen.setdefault(fitting[0], row)
            for kind, here, there in (
                ("label", row.label, other.label),
                ("part", row.part or "train", other.part or "train"),
            ):
                if here != there:
                    twice = f"got {file} as {here!r}, which line {other.line} has as {there!r}; accepted: one {kind}"
                    problems.append(f"{table}:{row.line}: {twice}")
    if problems:
        raise first_problems(problems, _NAMED)
    by_folder, notes = {name: _part_by_folder(name) for name in chosen}, []
    if "train" in by_folder.values() and all(by_folder.values()) and not any(row.part for row in rows):
        notes = [f"{table}: names no parts; the folders do: {', '.join(sorted({*map(str, by_folder.values())}))}"]
    parts: dict[str, list[tuple[str, str]]] = {"train": [], "valid": [], "test": []}
    for name, row in chosen.items():
        part = (by_folder[name] if notes else row.part) or "train"
        parts[part].append((row.label, name))
    classes = tuple(sorted({label for label, _ in parts["train"]}))
    for part in ("valid", "test"):
        problems += [
            f"{table}: class {label} is in the {part} part and not in train; accepted: classes that train has"
            for label in sorted({label for label, _ in parts[part]} - set(classes))
        ]
    if len(classes) < 2:
        problems.append(f"{table}: got {len(classes)} classes to train on; accepted: at least 2")
    if problems:
        raise first_problems(problems, _NAMED)
    labeled = {
        part: tuple((name, classes.index(label)) for label, name in sorted(pairs)) for part, pairs in parts.items()
    }
    skipped = tuple(Skipped(name, UNLISTED) for name in names if name not in chosen)
    groups = {name: row.group for name, row in chosen.items() if row.group}
    return Layout(classes, labeled["train"], labeled["test"], labeled["valid"], skipped, tuple(notes)), groups


def _part_by_folder(name: str) -> str | None:
    """The part after which the innermost such folder of a picture is named."""
    return next((part for folder in name.split("/")[-2::-1] if (part := part_of(folder))), None)


def _place(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _fitting(file: str, by_stem: Mapping[str, list[str]]) -> list[str]:
    """The pictures whose name ends in ``file``, after a ``/``, with or without the file's ending."""
    ends = f"/{file}"
    return [
        name
        for name in by_stem.get(posixpath.basename(file), [])
        if f"/{name}".endswith(ends) or f"/{posixpath.splitext(name)[0]}".endswith(ends)
    ]
