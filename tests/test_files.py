from pathlib import Path

import pytest

from ramify.errors import RunError
from ramify.files import readable_folder, replace_folder, write_atomic


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "last"
    replace_folder(folder, {"a": b"1", "b": b"2"})
    replace_folder(folder, {"a": b"3"})
    assert {entry.name: entry.read_bytes() for entry in folder.iterdir()} == {"a": b"3"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["last"]


def test_a_failed_replacement_keeps_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "last"
    replace_folder(folder, {"a": b"old"})

    def full(path: Path, content: bytes) -> None:
        raise RunError("the disk is full")

    monkeypatch.setattr("ramify.files.write_atomic", full)
    with pytest.raises(RunError):
        replace_folder(folder, {"a": b"new"})
    assert (folder / "a").read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["last"]


@pytest.mark.parametrize("killed_after", ["writing beside", "first renaming", "second renaming"])
def test_a_kill_at_any_moment_of_the_swap_leaves_a_whole_folder(tmp_path: Path, killed_after: str) -> None:
    """What a process killed in mid-swap leaves is read whole, and the next replacement puts it in order."""
    folder, fresh, old = tmp_path / "last", tmp_path / ".last.abcd1234.tmp", tmp_path / "last.old"
    replace_folder(folder, {"a": b"old"})
    fresh.mkdir()
    (fresh / "a").write_bytes(b"new")
    if killed_after != "writing beside":
        folder.replace(old)
    if killed_after == "second renaming":
        fresh.replace(folder)
    assert (readable_folder(folder) / "a").read_bytes() == (b"new" if killed_after == "second renaming" else b"old")
    replace_folder(folder, {"a": b"newest"})
    assert (folder / "a").read_bytes() == b"newest"
    assert [entry.name for entry in tmp_path.iterdir()] == ["last"]
