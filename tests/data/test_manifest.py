"""A manifest is read back as it was, and finds its pictures again by name and by content."""

import gzip
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ramify.data import manifest as module
from ramify.data.manifest import Manifest, changes, manifest_of, match, read_manifest, write_manifest
from ramify.data.pictures import Files
from ramify.errors import CheckpointError

CLASSES = ("cat", 'dög, "the" dog')


def files(contents: dict[str, tuple[int, int]]) -> Files:
    """Files by name, each with a content and a class."""
    digests = torch.zeros(len(contents), 16, dtype=torch.uint8)
    digests[:, 0] = torch.tensor([content for content, _ in contents.values()], dtype=torch.uint8)
    return Files(tuple(contents), digests, torch.tensor([label for _, label in contents.values()]))


BEFORE = {"a": (1, 0), "b": (2, 1), "c": (3, 0), "d": (4, 1), "e": (5, 0), "unused": (6, 0)}
KNOWN = manifest_of(files(BEFORE), CLASSES, [torch.tensor([0, 1]), torch.tensor([2]), torch.tensor([4, 3])])


@pytest.mark.parametrize("large", [1, 1000])
def test_it_is_read_back(tmp_path: Path, large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE", large)
    write_manifest(tmp_path, KNOWN)
    assert read_manifest(tmp_path) == KNOWN
    name = "manifest.csv.gz" if large == 1 else "manifest.csv"
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "manifest.sha256"]
    assert KNOWN.parts == (0, 0, 1, 2, 2, 3)


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"])), unique=True, max_size=5))
def test_any_name_is_read_back(names: list[str]) -> None:
    held = Manifest(tuple(names), tuple(names), tuple("00" for _ in names), tuple(0 for _ in names))
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(Path(folder), held)
        assert read_manifest(Path(folder)) == held


def test_a_damaged_one_is_a_sentence(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    (tmp_path / "manifest.csv").write_text("part,class,digest,file\nelsewhere,cat,00,1.png\n")
    with pytest.raises(CheckpointError, match=r"manifest\.csv: is damaged"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.csv").unlink()
    (tmp_path / "manifest.csv.gz").write_bytes(gzip.compress(b"x" * 100)[:30])
    with pytest.raises(CheckpointError, match=r"manifest\.csv\.gz: is damaged"):
        read_manifest(tmp_path)


def found(now: dict[str, tuple[int, int]], same: bool = True) -> tuple[dict[str, str], str]:
    """The part of each file that is there now, and what has changed, in words."""
    there = files(now)
    matched = match(KNOWN, there, CLASSES, same)
    parts = {
        name: "new" if part < 0 else module.PARTS[part] for name, part in zip(now, matched.parts.tolist(), strict=True)
    }
    return parts, str(changes(KNOWN, matched))


def test_what_is_as_it_was_is_found() -> None:
    parts, said = found(BEFORE)
    assert parts == {"a": "train", "b": "train", "c": "valid", "d": "test", "e": "test", "unused": "unused"}
    assert said == "as they were"
    assert match(KNOWN, files(BEFORE), CLASSES, True).ids("test").tolist() == [4, 3]  # in the order they had


@pytest.mark.parametrize(
    ("change", "parts", "said"),
    [
        ({"new": (9, 0)}, {"new": "new"}, "1 new"),
        ({"e": None}, {}, "1 missing (1 test)"),
        ({"e": (8, 0)}, {"e": "test"}, "1 changed (1 test)"),
        ({"d": (4, 0)}, {"d": "test"}, "1 changed (1 test)"),  # it has another label now
        ({"a": None, "renamed": (1, 0)}, {"renamed": "train"}, "as they were"),
        ({"copy": (1, 0)}, {"copy": "train"}, "as they were"),  # a copy of what was trained on is no test
        ({"e": (1, 0)}, {"e": "train"}, "1 missing (1 test)"),  # what was trained on, under the name of a test picture
        ({"unused": None}, {}, "as they were"),
    ],
)
def test_a_change_is_said_and_moves_no_other(
    change: dict[str, tuple[int, int] | None], parts: dict[str, str], said: str
) -> None:
    now = {name: value for name, value in {**BEFORE, **change}.items() if value is not None}
    there, words = found(now)
    assert words == said
    for name, part in there.items():
        expected = parts.get(name, found(BEFORE)[0].get(name))
        assert part == expected, name


def test_elsewhere_only_the_content_counts() -> None:
    parts, _ = found({"a": (7, 0), "x": (2, 1), "y": (4, 1)}, same=False)
    assert parts == {"a": "new", "x": "train", "y": "test"}
