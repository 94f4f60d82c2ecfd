"""``ramify data``: fetch pictures ahead of a run, and list the contents and the problems of a source."""

from typing import TYPE_CHECKING, Annotated

import typer

from ramify.cli.common import Arguments, AsJson, download_lines, say, say_json, show, sort_given

if TYPE_CHECKING:
    from ramify.data.duplicates import Copy
    from ramify.data.pictures import Files, PictureSet

_LISTED = 20
"""Files and copies that are named on a terminal; ``--json`` names all."""


def data(
    arguments: Arguments = None,
    near: Annotated[bool, typer.Option("--near", help="Look for near-duplicates, too: resized, saved again.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a source that has copies in several parts or classes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Load the pictures that a configuration names, fetching them if need be, and count them.

    Reports the files that are passed over, the classes that a part lacks, and the pictures in several parts or classes.

    Examples:

    - `ramify data`
    - `ramify data data.source=cifar10`
    - `ramify data data.source=photos.zip data.size=64 --near`
    """
    from ramify.config.read import read_config
    from ramify.data.duplicates import copies, copies_line, near_copies
    from ramify.data.sources import load_pictures
    from ramify.errors import DataError

    config = read_config(*sort_given(arguments or []))
    pictures = load_pictures(config.data, None if as_json else download_lines(say))
    parts = {"train": pictures.train, "valid": pictures.valid, "test": pictures.test}
    exact = copies(pictures.files, pictures.classes, parts)
    alike = near_copies(pictures.files, pictures.classes, parts) if near else ()
    if as_json:
        say_json(_record(config.data.source, pictures, exact, alike if near else None))
    else:
        _say_counts(config.data.source, pictures)
        _say_skipped(pictures.files)
        for note in pictures.files.notes:
            say(f"note: {note}")
        _say_copies("exact copies", exact)
        _say_copies("near-duplicates", alike)
        if near and not alike:
            say("no near-duplicates in several parts or classes")
    if strict and (exact or alike):
        lines = (copies_line(exact), copies_line(alike, "near-duplicates"))
        raise DataError(*(f"{line}; accepted: none with --strict" for line in lines if line is not None))


def _record(
    source: str, pictures: "PictureSet", exact: "tuple[Copy, ...]", alike: "tuple[Copy, ...] | None"
) -> dict[str, object]:
    from ramify.data.listing import counts

    def named(copy: "Copy") -> list[dict[str, str]]:
        files = zip(copy.files, copy.parts, copy.classes, strict=True)
        return [{"file": file, "part": part, "class": label} for file, part, label in files]

    files = pictures.files
    train, valid, test = _counts(pictures)
    record: dict[str, object] = {
        "source": source,
        "shape": pictures.shape,
        "classes": pictures.classes,
        "train": train,
        "valid": valid,
        "test": test,
        "passed_over": counts(files.skipped),
        "passed_over_files": [{"file": file.name, "reason": file.reason} for file in files.skipped],
        "notes": files.notes,
        "copies": list(map(named, exact)),
    }
    return record if alike is None else {**record, "near_duplicates": list(map(named, alike))}


def _counts(pictures: "PictureSet") -> list[list[int]]:
    parts = (pictures.train, pictures.valid, pictures.test)
    counted: list[list[int]] = [part.labels.bincount(minlength=len(pictures.classes)).tolist() for part in parts]
    return counted


def _say_counts(source: str, pictures: "PictureSet") -> None:
    from ramify.show.terminal.table import table

    channels, height, width = pictures.shape
    color = {1: "gray", 3: "color"}.get(channels, f"{channels}-channel")
    valid = f"{len(pictures.valid):,} validation, " if len(pictures.valid) else ""
    say(
        f"{source}: {len(pictures.train):,} training, {valid}{len(pictures.test):,} test pictures, "
        f"{color}, {width} x {height} pixels, {len(pictures.classes)} classes"
    )
    columns = dict(zip(("training", "validation", "test"), _counts(pictures), strict=True))
    if not valid:
        del columns["validation"]
    rows = [[name, *(f"{part[i]:,}" for part in columns.values())] for i, name in enumerate(pictures.classes)]
    show(table(["class", *columns], rows))


def _say_skipped(files: "Files") -> None:
    from ramify.run.pictures import passed_over_line

    line = passed_over_line(files)
    if line is not None:
        say(line)
        _say_first([f"{file.name}: {file.reason}" for file in files.skipped])


def _say_copies(kind: str, copies: "tuple[Copy, ...]") -> None:
    from ramify.data.duplicates import copies_line

    line = copies_line(copies, kind)
    if line is not None:
        say(f"note: {line}")
        named = (zip(copy.files, copy.parts, copy.classes, strict=True) for copy in copies)
        _say_first([" = ".join(f"{file} ({part}, {label})" for file, part, label in copy) for copy in named])


def _say_first(lines: list[str]) -> None:
    for line in lines[:_LISTED]:
        say(f"  {line}")
    if len(lines) > _LISTED:
        say(f"  and {len(lines) - _LISTED:,} more: ramify data --json names all")
