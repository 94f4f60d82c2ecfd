"""The manifest of a run: its pictures, and the part of each, so that no training picture is ever tested on.

It is ``manifest.csv`` in the run's folder (``manifest.csv.gz`` of a large set), a line a picture: its part, its class,
the digest of its content, and its file.
"""

import csv
import gzip
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ramify.data.pictures import Files
from ramify.errors import CheckpointError
from ramify.files import write_atomic
from ramify.sealed import checksum

NAME, COMPACT, SUM = "manifest.csv", "manifest.csv.gz", "manifest.sha256"
MANIFESTS = (NAME, COMPACT, SUM)
LARGE = 20_000
"""A manifest of so many pictures is compressed."""

PARTS = ("train", "valid", "test", "unused")
"""The parts; a picture is unused where ``data.limit`` or ``data.fold`` leaves it out."""

NEW = -1
_HEADER = ["part", "class", "digest", "file"]


@dataclass(frozen=True)
class Manifest:
    """The pictures of a run.

    Attributes:
        names: of the files, those of each part in the part's own order.
        labels: the name of each one's class.
        digests: of the files' contents, in hexadecimal digits.
        parts: for each an index into :data:`PARTS`.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    digests: tuple[str, ...]
    parts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Match:
    """The present pictures of a source, compared with a manifest.

    Attributes:
        parts: of each present picture in the manifest (an index into :data:`PARTS`), or :data:`NEW`, int64 ``[N]``.
        rows: its line in the manifest, or -1.
        changed: whether its content or class is another one than in the manifest, bool ``[N]``.
        missing: lines of the manifest without a present picture.
    """

    parts: torch.Tensor
    rows: torch.Tensor
    changed: torch.Tensor
    missing: tuple[int, ...]

    def ids(self, part: str) -> torch.Tensor:
        """The pictures in ``part`` (or "new"), in the order of the manifest, int64 ``[M]``."""
        ids = (self.parts == (NEW if part == "new" else PARTS.index(part))).nonzero()[:, 0]
        return ids[torch.argsort(self.rows[ids], stable=True)]


@dataclass(frozen=True)
class Changes:
    """Changes of a run's pictures: how many are new, and of each part how many are missing or changed."""

    new: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.new or self.missing or self.changed)

    def __str__(self) -> str:
        phrases = [f"{self.new:,} new"] if self.new else []
        for kind, counts in (("missing", self.missing), ("changed", self.changed)):
            if counts:
                by_part = ", ".join(f"{count:,} {part}" for part, count in counts.items())
                phrases.append(f"{sum(counts.values()):,} {kind} ({by_part})")
        return ", ".join(phrases) or "as they were"


def manifest_of(
    files: Files, classes: Sequence[str], parts: Sequence[torch.Tensor], unlisted: torch.Tensor | None = None
) -> Manifest:
    """The manifest of a set with ``parts`` (ids of train, valid and test), without the files ``unlisted``."""
    lines = [(part, row) for part, ids in enumerate(parts) for row in ids.tolist()]
    used = {row for _, row in lines} | set([] if unlisted is None else unlisted.tolist())
    lines += [(PARTS.index("unused"), row) for row in range(len(files.names)) if row not in used]
    digests, labels = files.digests.numpy(), files.labels.tolist()
    return Manifest(
        names=tuple(files.names[row] for _, row in lines),
        labels=tuple(classes[labels[row]] for _, row in lines),
        digests=tuple(digests[row].tobytes().hex() for _, row in lines),
        parts=tuple(part for part, _ in lines),
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest`` to a run's ``folder``.

    Raises:
        RunError: it cannot be written.
    """
    text, parts = io.StringIO(), (PARTS[part] for part in manifest.parts)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    writer.writerows(zip(parts, manifest.labels, manifest.digests, manifest.names, strict=True))
    content = text.getvalue().encode("utf-8")
    name, other = (COMPACT, NAME) if len(manifest) >= LARGE else (NAME, COMPACT)
    content = gzip.compress(content, 6, mtime=0) if name == COMPACT else content
    for old in (other, SUM):
        (folder / old).unlink(missing_ok=True)
    write_atomic(folder / name, content)
    write_atomic(folder / SUM, f"{checksum(content)}  {name}\n".encode())  # as sha256sum writes it


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in a run's ``folder``; None where there is none.

    Raises:
        CheckpointError: it is damaged.
    """
    path = next((folder / name for name in (NAME, COMPACT) if (folder / name).exists()), None)
    if path is None:
        return None
    try:
        known = (folder / SUM).read_text(encoding="utf-8").split() if (folder / SUM).exists() else None
        content = path.read_bytes()
        if known is not None and known != [checksum(content), path.name]:
            raise ValueError(f"it is not the one whose checksum is in {SUM}")
        text = (gzip.decompress(content) if path.name == COMPACT else content).decode("utf-8")
        header, *lines = csv.reader(io.StringIO(text))
        if header != _HEADER:
            raise ValueError(f"its columns are {header}")
        parts = tuple(PARTS.index(line[0]) for line in lines)
        return Manifest(
            tuple(line[3] for line in lines), tuple(line[1] for line in lines), tuple(line[2] for line in lines), parts
        )
    except (OSError, EOFError, ValueError, IndexError, csv.Error) as error:
        raise CheckpointError(f"{path}: is damaged ({error}); accepted: the file as ramify wrote it") from error


def match(manifest: Manifest, files: Files, classes: Sequence[str], same_source: bool) -> Match:
    """Find the pictures of ``files``, with labels in ``classes``, in ``manifest``.

    A picture is found by its name where the source is the same, and else by its content: a renamed picture, or a copy,
    is in the part that it was in; of copies in several parts, the training part counts.
    """
    digests = [digest.tobytes().hex() for digest in files.digests.numpy()]
    by_name = {name: row for row, name in enumerate(manifest.names)} if same_source else {}
    by_content: dict[str, int] = {}
    for line in sorted(range(len(manifest)), key=manifest.parts.__getitem__, reverse=True):
        by_content[manifest.digests[line]] = line
    # Lists, as filling a tensor number by number takes ten times as long.
    parts, rows, changed = [NEW] * len(digests), [-1] * len(digests), [False] * len(digests)
    labels, seen = files.labels.tolist(), set[int]()
    for i, (name, digest) in enumerate(zip(files.names, digests, strict=True)):
        row: int | None = by_name.get(name)
        known = by_content.get(digest)
        if row is None:
            row = known
        elif known is not None and manifest.digests[row] != digest and manifest.parts[known] < manifest.parts[row]:
            row = known  # a training picture has the name of another one now
        if row is None:
            continue
        parts[i], rows[i] = manifest.parts[row], row
        changed[i] = manifest.digests[row] != digest or manifest.labels[row] != classes[labels[i]]
        seen.add(row)
    missing = tuple(line for line in range(len(manifest)) if line not in seen)
    return Match(
        torch.tensor(parts, dtype=torch.int64),
        torch.tensor(rows, dtype=torch.int64),
        torch.tensor(changed, dtype=torch.bool),
        missing,
    )


def changes(manifest: Manifest, present: Match) -> Changes:
    """How many pictures are new, missing and changed, without those that the run never used."""
    missing = Counter(PARTS[manifest.parts[row]] for row in present.missing)
    changed = Counter(PARTS[part] for part in present.parts[present.changed].tolist())
    return Changes(
        int((present.parts == NEW).sum()),
        {part: missing[part] for part in PARTS[:-1] if missing[part]},
        {part: changed[part] for part in PARTS[:-1] if changed[part]},
    )
