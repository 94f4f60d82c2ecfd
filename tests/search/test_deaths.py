"""A coordinator that dies inside its file operations, and damaged records: nothing is lost, nothing doubled."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ramify.errors import InputError
from ramify.search.mend import RECORD_LOST
from ramify.search.storage import JOURNAL, SEARCH
from ramify.search.study import SPACE, open_search, start_search
from tests.conftest import NIGHTLY
from tests.search.quick import WANTED, finish, killed, quick_space, record


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    return record(finish(tmp_path_factory.mktemp("calm")))


def closed_once(journal: Path) -> None:
    """In the journal, a trial is closed by one line: its state and its values."""
    closed = Counter(
        line["trial_id"]
        for line in map(json.loads, journal.read_text().splitlines())
        if line.get("values") is not None and "state" in line and "trial_id" in line
    )
    assert closed == dict.fromkeys(range(WANTED), 1)


def test_a_kill_at_any_file_operation_loses_nothing(tmp_path: Path, calm: list[object]) -> None:
    count = 1
    while killed(tmp_path / str(count), count, half=count % 2 == 0):
        killed(tmp_path / str(count), 1 + count % 7, half=False)  # and again, soon after it was started again
        known = (tmp_path / str(count) / "quick" / SEARCH).exists()
        search = finish(tmp_path / str(count), None if known else WANTED)
        assert record(search) == calm, f"killed at file operation {count}"
        closed_once(search.folder / JOURNAL)
        count += 1 if NIGHTLY else 4
    assert count > 20


def test_a_death_after_why_a_trial_failed_and_before_that_it_failed(tmp_path: Path, calm: list[object]) -> None:
    search = start_search("quick", quick_space(), WANTED, searches_dir=tmp_path)
    search._write(search.add().number, "failed", "no memory")
    search.close()
    assert record(finish(tmp_path)) == calm


def test_a_line_that_a_death_cut_short_is_dropped(tmp_path: Path, calm: list[object]) -> None:
    journal = finish(tmp_path, 2).folder / JOURNAL
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "worker')
    assert len(open_search("quick", searches_dir=tmp_path).trials()) == 2
    assert record(finish(tmp_path)) == calm


def garbled(lines: list[bytes]) -> list[bytes]:
    """A line of results, in the middle, is no JSON any more."""
    at = next(i for i, line in enumerate(lines) if b"rung:2" in line)
    return [*lines[:at], b"\0\xff{garbage\n", *lines[at + 1 :]]


def unborn(lines: list[bytes]) -> list[bytes]:
    """The line of a trial's birth is gone."""
    at = next(i for i, line in enumerate(lines) if b'"number": 1' in line)
    return [*lines[:at], *lines[at + 1 :]]


def foreign(lines: list[bytes]) -> list[bytes]:
    """A line of something else."""
    return [*lines[:3], b'{"name": "somebody else\'s"}\n', b"[1]\n", *lines[3:]]


def headless(lines: list[bytes]) -> list[bytes]:
    """The first lines are gone: the study itself, and its space."""
    return [line for line in lines if b'"number":' in line or b"trial_id" in line]


@pytest.mark.parametrize(("damage", "lost"), [(garbled, 0), (unborn, 1), (foreign, 0), (headless, 0)])
def test_what_can_be_saved_of_a_damaged_journal_is_saved(
    tmp_path: Path, calm: list[object], damage: Callable[[list[bytes]], list[bytes]], lost: int
) -> None:
    journal = finish(tmp_path).folder / JOURNAL
    damaged = b"".join(damage(journal.read_bytes().splitlines(keepends=True)))
    journal.write_bytes(damaged)
    with pytest.raises(InputError, match=r"journal.log: is damaged .*ramify search start quick saves"):
        open_search("quick", searches_dir=tmp_path)
    search = finish(tmp_path)
    assert [trial.failed for trial in search.trials()].count(RECORD_LOST) == lost
    # Of a line with results that is gone, the later results of its trial are there.
    whole = [one for i, one in enumerate(calm) if not ((lost and i == 1) or (damage is garbled and i == 0))]
    assert [one for one in record(search) if one in calm] == whole
    assert all(trial.finished for trial in search.trials())
    assert journal.with_suffix(".damaged").read_bytes() == damaged
    assert record(open_search("quick", searches_dir=tmp_path)) == record(search)


def test_lines_that_are_lost_at_the_end_are_missed(tmp_path: Path, calm: list[object]) -> None:
    journal = finish(tmp_path).folder / JOURNAL
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-3]))
    with pytest.raises(InputError, match=r"it ends after line \d+ of \d+"):
        open_search("quick", searches_dir=tmp_path)
    assert record(finish(tmp_path)) == calm


def test_a_file_that_is_no_record_is_left_alone(tmp_path: Path) -> None:
    journal = finish(tmp_path, 1).folder / JOURNAL
    for content in (b"Dear diary,\n", b"\x89PNG\r\n\x1a\n\0\0", b'{"a": 1}\n{"b": 2}\n'):
        journal.write_bytes(content)
        with pytest.raises(InputError, match=r"journal.log: is no record of a search; accepted: to move it away"):
            finish(tmp_path)
        assert journal.read_bytes() == content


def test_a_search_that_lost_its_record_begins_again(tmp_path: Path, calm: list[object]) -> None:
    (finish(tmp_path).folder / JOURNAL).unlink()
    with pytest.raises(InputError, match="which is no search"):
        open_search("quick", searches_dir=tmp_path)
    assert record(finish(tmp_path)) == calm


def test_other_damaged_files(tmp_path: Path, calm: list[object]) -> None:
    folder = finish(tmp_path).folder
    for name in (SEARCH, SPACE):
        (folder / name).write_bytes(b"\xff{")
    (folder / JOURNAL).rename(folder / "elsewhere")
    # Where the record is not in the folder, nothing else says where it is.
    with pytest.raises(InputError, match=r"search.json: is damaged; accepted: .*--storage"):
        open_search("quick", searches_dir=tmp_path)
    (folder / "elsewhere").rename(folder / JOURNAL)
    assert record(finish(tmp_path)) == calm
    kept = json.loads((folder / SEARCH).read_text())
    assert (kept["storage"], kept["trials"]) == (None, WANTED)
