"""Names of classes and files that a terminal or a browser would obey are shown, never obeyed."""

import os
from pathlib import Path

import pytest

from tests.conftest import TINY, CommandLine
from tests.data.making import picture

NAMES = [b"\x1b[31mred", b"lone\xff", "right\u202eleft".encode(), b"<script>alert(1)</script>", b"plain"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for label, name in enumerate(NAMES):
        inside = Path(os.fsdecode(os.fsencode(folder) + b"/" + name.replace(b"/", b":")))
        inside.mkdir(parents=True)
        for number in range(12):
            (inside / f"{number}.png").write_bytes(picture(20 * label + number))
    return folder


def test_names_reach_no_terminal_raw(ramify: CommandLine, source: Path, tmp_path: Path) -> None:
    pictures = (f"data.source={source}", "data.size=8")
    train = ("train", *TINY, *pictures, "data.augment=none", "data.limit=null", "data.batch_size=8", "name=odd")
    file = next(source.rglob("0.png"))
    commands = [
        ("data", *pictures),
        train,
        ("info", "odd"),
        ("evaluate", "odd"),
        ("calibrate", "odd", "--max_drop", "0.1"),
        ("predict", "odd", str(file)),
        ("predict", "odd", str(file), "--json"),
        ("report", "odd"),
    ]
    for command in commands:
        answer = ramify(*command)
        assert answer.code == 0, (command, answer.err)
        for text in (answer.out, answer.err):
            assert not set("\x1b\u202e\udcff") & set(text), command
    page = Path("runs/odd/report.html").read_text()
    assert "<script>alert(1)" not in page
