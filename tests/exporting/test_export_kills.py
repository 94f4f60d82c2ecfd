"""Exports that are killed inside the writing of their folder: the run stays whole, and so does an export of before."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ramify.answer.card import read_card
from ramify.exporting import hub, write
from ramify.exporting.hub import write_hub
from ramify.exporting.write import Export, Subject, Written
from ramify.files import replace_folder
from ramify.run.checkpoint import read_model
from ramify.run.saved import checkpoint_of, read_saved
from tests.killing import die_at, killed


def write_and_die(out: Path, files: dict[str, bytes], count: int) -> None:
    die_at(out.parent, count)
    replace_folder(out, files)


def test_a_kill_at_any_file_operation_of_an_export(
    demo: Path, exported: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was computed is written by processes that die, on a free place and over an export that is there."""
    network = {name: value.clone() for name, value in read_saved(demo)[0].state_dict().items()}
    kills = 0

    def dying(check: Callable[[Path], object]) -> Callable[[Path, dict[str, bytes]], None]:
        def replace(out: Path, files: dict[str, bytes]) -> None:
            nonlocal kills
            for there in (False, True):
                count = 1
                while killed(write_and_die, out, files, count):
                    kills += 1
                    count += 1
                    whole = out.exists() or out.with_name(f"{out.name}.old").exists()
                    assert whole or not there, "the export of before is lost"
                    if whole:
                        check(out)
                replace_folder(out, files)
                assert [path.name for path in out.parent.iterdir()] == [out.name], "something was left"

        return replace

    def ready(_: Subject) -> Written:
        files = [path for path in Path(exported.folder).rglob("*") if path.is_file()]
        contents = {path.relative_to(exported.folder).as_posix(): path.read_bytes() for path in files}
        return contents, exported

    monkeypatch.setitem(write.EXPORTERS, "onnx", write.Exporter(ready))  # the graphs are there
    monkeypatch.setattr(write, "replace_folder", dying(read_card))
    monkeypatch.setattr(hub, "replace_folder", dying(read_model))
    write.export(demo, tmp_path / "a" / "onnx")
    write_hub(demo, tmp_path / "b" / "hub")
    after = read_model(checkpoint_of(demo))[0].state_dict()
    assert all(bool((value == after[name]).all()) for name, value in network.items())
    print(f"{kills} kills, 0 runs or exports lost")  # noqa: T201 - the figure
    assert kills >= 20
