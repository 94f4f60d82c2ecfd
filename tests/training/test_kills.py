"""Trainings that are killed, by ``kill -9``, inside every one of their file operations and between their steps."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from ramify.config.read import read_config
from ramify.config.rules import Config
from ramify.files import SUFFIX
from ramify.run.events import Event, StepDone
from ramify.run.folder import EVENTS, read_lines, read_summary
from ramify.training.run import resume, train
from tests.conftest import NIGHTLY, CommandLine
from tests.killing import die_at, killed
from tests.training.test_resume import outcome

SMALL = (
    "data.limit=60",
    "data.batch_size=20",
    "data.valid_fraction=0.3",
    "network.structure=[1,0,1]",
    "network.channels=2",
    "train.epochs=4",
    "train.learning_rate=0.05",
    "train.device=cpu",
    "train.threads=1",
    "growth.mode=loss",
    "growth.patience=1",
    "growth.min_epochs=1",
    "growth.max_epochs=1",
    "growth.until=1.0",
)
"""A network that grows by its loss, after each epoch, with a checkpoint of both kinds at the end."""

SHORT = "train.epochs=3"


def configured(folder: Path, *more: str) -> Config:
    return read_config(overrides=[*SMALL, *more, f"runs_dir={folder}"])


def train_and_die(folder: Path, count: int) -> None:
    """Begin the run, and die at a file operation."""
    die_at(folder, count, half=b'{"epoch": 2, "lo')
    train(configured(folder, SHORT))


def train_to(folder: Path, steps: int) -> None:
    """Begin the run, and die after so many steps."""
    left = steps

    def watch(event: Event) -> None:
        nonlocal left
        left -= isinstance(event, StepDone)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    train(configured(folder, SHORT), [watch])


def litter(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith((SUFFIX, ".new", ".old"))]


def goes_on(folder: Path) -> Path:
    """The run in ``folder``, gone on with or, where nothing was kept of it, begun again under the same name."""
    run = folder / "digits-iterative"
    if (run / "config.yaml").exists():
        resume(run)
    else:
        train(configured(folder, SHORT))
    assert [path.name for path in folder.iterdir()] == ["digits-iterative"]
    assert litter(folder) == []
    assert [line["event"] for line in read_lines(run / EVENTS)].count("finished") == 1
    return run


def test_a_kill_at_a_file_operation_or_a_step_loses_nothing(tmp_path: Path) -> None:
    expected = outcome(Path(train(configured(tmp_path / "calm", SHORT)).folder))
    assert "grew" in [line["event"] for line in read_lines(tmp_path / "calm/digits-iterative" / EVENTS)]
    kills, apart = 0, 1 if NIGHTLY else 9
    for work in (train_and_die, train_to):
        count = apart
        while killed(work, folder := tmp_path / f"{work.__name__}-{count}", count):
            kills += 1
            assert outcome(goes_on(folder)) == expected, f"killed at {count} of {work.__name__}"
            shutil.rmtree(folder)
            count += apart
    print(f"{kills} kills, 0 runs lost")  # noqa: T201 - the figure
    assert kills >= 60 / apart


def test_a_run_killed_before_its_configuration_leaves_its_name_free(tmp_path: Path) -> None:
    left = tmp_path / "digits-iterative"
    left.mkdir()
    for name in (".lock", ".config.yaml.abcd1234.tmp", "manifest.csv"):
        (left / name).write_text("")
    summary = train(configured(tmp_path, "train.epochs=1"))
    assert Path(summary.folder) == left
    assert litter(tmp_path) == []


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ramify.training.run.begin", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(configured(tmp_path / "runs"))
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_damaged_log_is_kept_aside_and_the_run_goes_on(tmp_path: Path, ramify: CommandLine) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.epoch == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(configured(tmp_path), [stop])
    run = tmp_path / "digits-iterative"
    metrics = run / "metrics.jsonl"
    lines = metrics.read_bytes().splitlines(keepends=True)
    damaged = lines[0] + lines[1].replace(b'"loss": ', b'"loss": 1') + lines[2]
    metrics.write_bytes(damaged)
    assert ramify("report", str(run)).code == 2
    answer = ramify("train", "--resume", str(run))
    assert answer.code == 0
    assert f"{metrics}:2: is damaged or missing; the file is kept as metrics.jsonl.damaged" in answer.out
    assert (run / "metrics.jsonl.damaged").read_bytes() == damaged
    assert [line["epoch"] for line in read_lines(metrics)] == [1, 3, 4]
    assert read_summary(run) is not None


@pytest.mark.parametrize("repeats", [(), ("--repeats", "2")])
def test_sigterm_says_how_to_go_on(
    repeats: tuple[str, ...], tmp_path: Path, ramify: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ramify.training import loop as module

    def ended(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(module, "stop_if_broken", ended)
    before = signal.getsignal(signal.SIGTERM)
    answer = ramify("train", *SMALL, f"runs_dir={tmp_path}", "--quiet", *repeats)
    assert answer.code == 1
    assert "stopped by SIGTERM; go on with: ramify train --resume digits-iterative" in answer.err
    assert len([*tmp_path.glob("digits*")]) == 1
    assert signal.getsignal(signal.SIGTERM) is before
