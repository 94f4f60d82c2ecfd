"""Files with a checksum: JSON documents, numbered lines of JSON, and text.

A document has the field ``sha256``, each line a number and a checksum, a text a first line with the checksum of the
rest. A file without a checksum is accepted: an older ramify wrote it, or somebody edited it and removed the checksum.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ramify.errors import CheckpointError, InputError

KEY, NUMBER = "sha256", "line"
DEPTH = 100
"""The most levels of lists and mappings in a document."""

_COMMENT = re.compile(rb"# sha256 ([0-9a-f]{64}): [^\n]*\n")
_START = b"# sha256 "
_TAIL = 1 << 22
"""Bytes at the end of a file in which its last line is searched."""


def checksum(content: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def seal(document: Mapping[str, object]) -> str:
    """Checksum of a document, whatever the order and the spacing of its file."""
    return checksum(json.dumps(document, sort_keys=True).encode())


def sealed_json(document: Mapping[str, object]) -> bytes:
    """The document as a file, with its checksum in it.

    Example:
        >>> check_seal(parse_object(sealed_json({"a": 1}), "a.json"), "a.json")
        {'a': 1}
    """
    rest = {key: value for key, value in document.items() if key != KEY}
    return (json.dumps({**rest, KEY: seal(rest)}, indent=2) + "\n").encode()


def parse_object(content: bytes | str, where: str) -> dict[str, object]:
    """The JSON object in ``content``, its checksum unread.

    Raises:
        CheckpointError: it is none, or nested deeper than :data:`DEPTH`.
    """
    try:
        document: object = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or _is_deep(document):
        raise _damaged(where, f"it is no JSON object of at most {DEPTH} levels")
    return document


def check_seal(document: dict[str, object], where: str, needed: bool = False) -> dict[str, object]:
    """``document`` without its checksum; one that is ``needed`` may not be missing.

    Raises:
        CheckpointError: the checksum does not match.
    """
    rest = {key: value for key, value in document.items() if key != KEY}
    if KEY not in document and not needed:
        return rest
    if document.get(KEY) != seal(rest):
        raise _damaged(where, "its checksum does not match", "" if needed else KEY)
    return rest


def read_checked(path: Path, expected: str | None) -> bytes:
    """The content of the file with the checksum ``expected``; None: not checked.

    Raises:
        OSError: it cannot be read.
        CheckpointError: the checksum does not match.
    """
    content = path.read_bytes()
    if expected is not None and checksum(content) != expected:
        raise _damaged(str(path), "its checksum does not match")
    return content


def sealed_text(content: bytes) -> bytes:
    """``content`` after a comment line (of YAML) with its checksum.

    Example:
        >>> check_text(sealed_text(b"seed: 1\\n"), "a.yaml")
        >>> check_text(sealed_text(b"seed: 1\\n")[:-2], "a.yaml")
        Traceback (most recent call last):
            ...
        ramify.errors.CheckpointError: a.yaml: is damaged (its checksum does not match); accepted: the file as ramify \
wrote it, or without its first line if you changed it yourself
    """
    return f"# sha256 {checksum(content)}: of the lines below; remove this line if you edit them\n".encode() + content


def check_text(content: bytes, where: str) -> None:
    """Check text from :func:`sealed_text`; text without a checksum is accepted.

    Raises:
        CheckpointError: the text is damaged.
    """
    comment = _COMMENT.match(content)
    if comment is None and not content.startswith(_START) and not (content and _START.startswith(content.rstrip())):
        return
    if comment is None or checksum(content[comment.end() :]) != comment[1].decode():
        raise _damaged(where, "its checksum does not match", "first line")


def _damaged(where: str, how: str, removable: str = "") -> CheckpointError:
    by_hand = f", or without its {removable} if you changed it yourself" if removable else ""
    return CheckpointError(f"{where}: is damaged ({how}); accepted: the file as ramify wrote it{by_hand}")


def _is_deep(value: object, levels: int = DEPTH) -> bool:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return values is not None and (levels == 0 or any(_is_deep(inner, levels - 1) for inner in values))


# Lines.


@dataclass(frozen=True)
class Lines:
    """The content of a file of lines.

    Attributes:
        records: of the whole lines, without number and checksum; a line that was cut short by a kill is left out.
        damaged: numbers of the damaged lines, and of those missing before a whole one.
        numbered: whether any line has a number and a checksum.
    """

    records: tuple[dict[str, object], ...]
    damaged: tuple[int, ...]
    numbered: bool


def sealed_line(record: Mapping[str, object], number: int) -> str:
    """A record as the line ``number`` of a file, counted from 1.

    Example:
        >>> parse_lines((sealed_line({"a": 1}, 1) + sealed_line({"a": 2}, 2)).encode()).records
        ({'a': 1}, {'a': 2})
    """
    numbered = {**record, NUMBER: number}
    return json.dumps({**numbered, KEY: seal(numbered)[:16]}) + "\n"


def sealed_lines(records: Sequence[Mapping[str, object]]) -> bytes:
    """A whole file of lines."""
    return "".join(sealed_line(record, number) for number, record in enumerate(records, start=1)).encode()


def parse_line(line: bytes) -> tuple[dict[str, object], int | None] | None:
    """The record in a line and its number, None without one; None where the line is damaged."""
    try:
        document = parse_object(line, "line")
    except CheckpointError:
        return None
    if NUMBER not in document and KEY not in document:
        return document, None
    known = document.pop(KEY, None)
    if known != seal(document)[:16]:
        return None
    number = document.pop(NUMBER, None)
    return document, number if isinstance(number, int) else None


def parse_lines(content: bytes) -> Lines:
    """The records in a file of lines, and which lines are damaged or missing.

    Lines without number and checksum may stand before those that have them.
    """
    *whole, rest = content.split(b"\n")
    if rest and parse_line(rest) is not None:
        whole.append(rest)
    records: list[dict[str, object]] = []
    damaged: list[int] = []
    expected, numbered = 1, False
    for line in whole:
        parsed = parse_line(line)
        if parsed is None or (numbered and parsed[1] is None):
            damaged.append(expected)
            expected += 1
            continue
        record, number = parsed
        if number is not None:
            numbered = True
            if number < expected:  # a repeated line
                damaged.append(number)
                continue
            damaged += range(expected, min(number, expected + len(whole)))
            expected = number
        expected += 1
        records.append(record)
    return Lines(tuple(records), tuple(damaged), numbered)


def next_number(path: Path) -> int:
    """The number of the next line of ``path``; an incomplete last line is removed first.

    Raises:
        OSError: the file cannot be read or cut.
    """
    if not path.exists():
        return 1
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
        if not tail.endswith(b"\n"):
            tail = tail[: tail.rfind(b"\n") + 1]
            file.truncate(max(0, size - _TAIL) + len(tail))
        last = parse_line(tail.rstrip(b"\n").rpartition(b"\n")[2]) if tail else ({}, 0)
        if last is not None and last[1] is not None:
            return last[1] + 1
        # Lines without numbers: those of an older ramify.
        file.seek(0)
        return file.read().count(b"\n") + 1


def damage(path: Path, lines: Lines) -> str:
    """The damage in a file of lines, for a sentence."""
    first = lines.damaged[0]
    more = f" and {len(lines.damaged) - 1} more" if len(lines.damaged) > 1 else ""
    return f"{path}:{first}: is damaged or missing{more}"


def unreadable(path: Path, error: OSError) -> InputError:
    """The sentence for a file that the system refused to read."""
    return InputError(f"{path}: cannot be read ({error.strerror or error})")
