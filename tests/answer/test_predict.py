"""``ramify predict``: class, confidence, exit and milliseconds of each file; a broken one stops no other."""

import json
from pathlib import Path

import pytest

from ramify.exporting.write import Export
from tests.conftest import CommandLine
from tests.serve.serving import huge_header, picture

pytestmark = pytest.mark.slow


def test_a_run_and_its_export_answer_files_alike(ramify: CommandLine, demo: Path, exported: Export, png: Path) -> None:
    found = [json.loads(ramify("predict", name, str(png), "--json").out) for name in (str(demo), exported.folder)]
    assert [each["engine"] for each in found] == ["PyTorch", "ONNX Runtime"]
    [ours], [theirs] = (each["pictures"] for each in found)
    assert (ours["name"], ours["exit"], ours["converted"]) == (theirs["name"], theirs["exit"], None)
    assert ours["confidence"] == pytest.approx(theirs["confidence"], abs=1e-4)
    assert min(ours["milliseconds"], theirs["milliseconds"]) > 0


def test_the_table_tells_what_was_asked(ramify: CommandLine, exported: Export, png: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(picture(3, "RGB", (30, 20), "JPEG"))
    found = ramify("predict", exported.folder, str(png), str(tmp_path / "photo.jpg"), "--threshold", "0")
    assert found.code == 0
    for said in ("digit.png", "1 of 3", "30x20 RGB made 8x8 gray", "2 pictures, leaving at each exit: 2 / 0 / 0"):
        assert said in found.out
    as_json = ramify("predict", exported.folder, str(png), "--threshold", "0", "--json")
    assert [each["exit"] for each in json.loads(as_json.out)["pictures"]] == [1], "exits count from 1, as the server's"
    assert found.out.startswith("policy: leave where the highest probability reaches 0, as asked for")


def test_broken_files_are_told_and_the_others_answered(
    ramify: CommandLine, demo: Path, png: Path, tmp_path: Path
) -> None:
    (tmp_path / "bomb.png").write_bytes(huge_header(10_000))
    (tmp_path / "notes.txt").write_text("no picture")
    files = [str(tmp_path / "bomb.png"), str(png), str(tmp_path / "notes.txt"), str(tmp_path / "gone.png")]
    found = ramify("predict", str(demo), *files)
    assert found.code == 2
    assert "digit.png" in found.out
    assert [line.partition(": ")[2].partition(": ")[2] for line in found.err.splitlines()] == [
        "got a picture of 10000x10000 = 100,000,000 pixels; accepted: up to 89,000,000",
        "is not a picture, or its start is damaged; accepted: a whole picture file",
        "there is no such file; accepted: a picture file, or a folder of them",
    ]


def test_a_run_without_a_policy_says_what_is_used(ramify: CommandLine, png: Path) -> None:
    assert ramify("train", "--quiet", "name=bare", "data.limit=60", "network.structure=[1]", "train.epochs=2").code == 0
    found = ramify("predict", "bare", str(png))
    assert "policy: none was calibrated, so every picture goes to the last exit (ramify calibrate" in found.out
