"""``ramify report``, and the report at the end of every training."""

import json
from pathlib import Path

import pytest

from ramify.cli import report as verb
from ramify.errors import RunError
from ramify.show.report import write
from tests.conftest import TINY, CommandLine

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("with_reports")]


def test_training_ends_with_a_report_and_says_so(ramify: CommandLine) -> None:
    trained = ramify("train", *TINY, "name=one")
    assert trained.code == 0
    assert "look at report.html in it" in trained.out
    page = Path("runs/one/report.html")
    assert "<h1>one</h1>" in page.read_text()
    page.unlink()
    quiet = ramify("prune", "one", "train.epochs=1", "--quiet")
    assert (quiet.code, quiet.err) == (0, "")
    assert Path("runs/one-pruned/report.html").exists()

    written = ramify("report", "one")
    assert (written.code, written.err) == (0, "")
    assert "runs/one/report.html" in written.out
    assert page.exists()
    as_json = ramify("report", "one", "--json", "--out", "page.html")
    assert json.loads(as_json.out) == {"runs": ["one"], "path": "page.html", "written": []}
    assert Path("page.html").exists()


def test_json_training_writes_a_report_and_its_lines_stay(ramify: CommandLine) -> None:
    answer = ramify("train", *TINY, "name=one", "--json")
    assert json.loads(answer.out.splitlines()[-1])["event"] == "finished"
    assert answer.err == ""
    assert Path("runs/one/report.html").exists()


@pytest.mark.parametrize("error", [RunError("the disk is full"), ValueError("a fault"), KeyboardInterrupt()])
def test_a_report_that_fails_fails_no_run(
    ramify: CommandLine, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(write, "report", fail)
    answer = ramify("train", *TINY, "name=one")
    assert answer.code == 0
    assert Path("runs/one/summary.json").exists()
    [sentence] = answer.err.splitlines()
    assert sentence.startswith("no report was written (")
    assert sentence.endswith("try again with: ramify report runs/one")
    assert "look at" not in answer.out


def test_only_the_first_process_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    told: list[str] = []
    assert verb.report_of(None, told.append) is None  # type: ignore[arg-type]
    assert told == []
