"""Trackers by name: what is refused before a run, and what goes wrong in one without ending it."""

import shutil
import sys
from pathlib import Path

import pytest

from ramify.config.rules import Config
from ramify.run.events import EpochDone, Event, NewBest, Started
from ramify.run.folder import read_lines
from ramify.show.trackers.registry import Forgiving
from ramify.show.trackers.tensorboard import TensorBoardLog
from ramify.training.run import train
from tests.conftest import TINY, CommandLine, tiny


def spoil(event: Event) -> None:
    """A file comes to stand where the logs are."""
    if isinstance(event, EpochDone) and event.epoch == 2:
        shutil.rmtree("runs/mine/tensorboard")
        Path("runs/mine/tensorboard").touch()


def test_logs_that_cannot_be_written_are_reported_once_and_the_training_goes_on() -> None:
    pytest.importorskip("tensorboard")
    warnings: list[str] = []
    summary = train(tiny("name=mine"), [Forgiving(TensorBoardLog(), "tensorboard", warnings.append), spoil])
    assert summary.epochs == 4
    assert len(read_lines(Path("runs/mine/metrics.jsonl"))) == 4
    [sentence] = warnings
    assert sentence.startswith("tensorboard: logs no more (")
    assert sentence.endswith("; the training goes on")


def test_what_is_no_failure_of_a_tracker_is_not_forgiven() -> None:
    def faulty(event: Event) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Forgiving(faulty, "mine", print)(NewBest(1, 0.5))


def test_the_next_run_is_tracked_though_this_one_failed() -> None:
    seen: list[str] = []

    def once(event: Event) -> None:
        seen.append(type(event).__name__)
        if len(seen) == 1:
            raise OSError("no space left")

    warnings: list[str] = []
    observer = Forgiving(once, "mine", warnings.append)
    started = Started("one", "runs/one", Config(), "cpu", "float32", (3, 2, 1), 2, stages=1, epoch=0)
    for event in (started, NewBest(1, 0.5), started, NewBest(1, 0.5)):
        observer(event)
    assert seen == ["Started", "Started", "NewBest"]
    assert len(warnings) == 1


def test_an_unknown_tracker_is_refused_with_the_nearest(ramify: CommandLine) -> None:
    answer = ramify("train", *TINY, "--track", "tensorbord")
    assert answer.code == 2
    assert answer.err == "error: --track: got 'tensorbord' (nearest: tensorboard); accepted: tensorboard, wandb\n"
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_told_before_the_run_begins(
    ramify: CommandLine, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for module in [module for module in sys.modules if module.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    answer = ramify("train", *TINY, "--track", name)
    assert answer.code == 2
    assert f"error: --track {name}: needs the package {name} " in answer.err
    assert f"pip install 'ramify[{name}]'" in answer.err
    assert not Path("runs").exists()


@pytest.mark.slow
def test_a_run_that_was_tracked_is_tracked_to_its_end(ramify: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ramify.training.loop.evaluate", interrupted)
        assert ramify("train", *TINY, "name=mine", "--track", "tensorboard").code == 1
    before = len(list(Path("runs/mine/tensorboard").glob("events*")))
    assert ramify("train", "--resume", "mine").code == 0
    assert len(list(Path("runs/mine/tensorboard").glob("events*"))) == before + 1


def test_each_of_several_runs_has_its_logs(ramify: CommandLine) -> None:
    pytest.importorskip("tensorboard")
    assert ramify("train", *TINY, "train.epochs=3", "name=mine", "--repeats", "2", "--track", "tensorboard").code == 0
    for seed in (0, 1):
        assert Path(f"runs/mine-seed{seed}/tensorboard/exit_3").is_dir()
