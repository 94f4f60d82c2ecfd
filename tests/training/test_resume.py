"""A run that was stopped, whenever and however, ends with the same bits as one that was not."""

import functools
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import get_args

import pytest

from ramify.config.read import read_config
from ramify.config.train import TrainConfig
from ramify.errors import CheckpointError, InputError
from ramify.run.events import EpochDone, Event, Grew, NewBest, Observer, Pruned, Started, StepDone
from ramify.run.folder import locked, read_lines
from ramify.training.run import resume, train
from tests.conftest import TINY, edit_config, tiny
from tests.killing import command_line, forked


class Killed(BaseException):
    """Stands for kill -9: nothing in ramify catches it, so nothing is tidied up."""


def kill_when(due: Callable[[Event], bool]) -> Observer:
    def observe(event: Event) -> None:
        if due(event):
            raise Killed

    return observe


def outcome(folder: Path) -> dict[str, object]:
    """All of a finished run that must not depend on how often it was stopped."""
    timing = ("seconds", "pictures_per_second", "memory", "device_memory")
    metrics = [{k: v for k, v in line.items() if k not in timing} for line in read_lines(folder / "metrics.jsonl")]
    events = [line for line in read_lines(folder / "events.jsonl") if line["event"] != "resumed"]
    summary = json.loads((folder / "summary.json").read_text())
    names = ("last/model.safetensors", "best/model.safetensors", "last/trainer.safetensors")
    return {
        **{name: (folder / name).read_bytes() for name in names},
        "metrics": metrics,
        "events": events,
        "exits": summary["exits"],
        "epoch": summary["epoch"],
    }


@functools.cache
def uninterrupted(*overrides: str) -> dict[str, object]:
    """The outcome of a run that nobody stopped: the same for every test that compares with it."""
    return outcome(Path(train(tiny(*overrides, "name=whole")).folder))


MOMENTS: dict[str, Callable[[Event], bool]] = {
    "before the first step": lambda event: isinstance(event, Started),
    "in the middle of the first epoch": lambda event: isinstance(event, StepDone) and event.done == 64,
    "right after a growth": lambda event: isinstance(event, Grew) and event.epoch == 2,
    "between two epochs": lambda event: isinstance(event, EpochDone) and event.epoch == 2,
    "in the middle of an epoch after a growth": lambda event: (
        isinstance(event, StepDone) and (event.epoch, event.done) == (3, 64)
    ),
    "at a best epoch": lambda event: isinstance(event, NewBest),
    "after the last epoch": lambda event: isinstance(event, EpochDone) and event.epoch == 4,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_stopped_at_any_moment_ends_bitwise_equal(moment: str) -> None:
    with pytest.raises(Killed):
        train(tiny("network.kind=dense", "name=stopped"), [kill_when(MOMENTS[moment])])
    resume(Path("runs/stopped"))
    assert outcome(Path("runs/stopped")) == uninterrupted("network.kind=dense")


def stop_at_each(moments: Iterable[Callable[[Event], bool]], *overrides: str) -> None:
    """Train ``runs/stopped`` and stop it at each of ``moments``, whichever comes first, before it may end."""
    left = list(moments)

    def due(event: Event) -> bool:
        found = next((moment for moment in left if moment(event)), None)
        if found is not None:
            left.remove(found)
        return found is not None

    with pytest.raises(Killed):
        train(tiny(*overrides, "name=stopped"), [kill_when(due)])
    while left:
        with pytest.raises(Killed):
            resume(Path("runs/stopped"), [kill_when(due)])
    resume(Path("runs/stopped"))


@pytest.mark.parametrize("kind", ["iterative", "full_ic"])
def test_a_run_stopped_at_every_moment_in_turn_ends_bitwise_equal(kind: str) -> None:
    stop_at_each(
        [due for moment, due in MOMENTS.items() if kind != "full_ic" or "growth" not in moment], f"network.kind={kind}"
    )
    assert outcome(Path("runs/stopped")) == uninterrupted(f"network.kind={kind}")


@pytest.mark.parametrize("optimizer", get_args(TrainConfig.model_fields["optimizer"].annotation))
def test_every_optimizer_goes_on_where_it_stopped(optimizer: str) -> None:
    overrides = (f"train.optimizer={optimizer}", "train.learning_rate=0.003", "network.kind=full_ic", "train.epochs=2")
    stop_at_each([lambda event: isinstance(event, EpochDone) and event.epoch == 1], *overrides)
    assert outcome(Path("runs/stopped")) == uninterrupted(*overrides)


def test_a_run_stopped_again_and_again_ends_bitwise_equal() -> None:
    with pytest.raises(Killed):
        train(tiny("name=stopped"), [kill_when(lambda event: isinstance(event, StepDone) and event.done == 32)])
    for epoch in (1, 2, 3, 4):
        with pytest.raises(Killed):
            resume(
                Path("runs/stopped"),
                [kill_when(lambda event, at=epoch: isinstance(event, EpochDone) and event.epoch == at)],  # type: ignore[misc]
            )
    resume(Path("runs/stopped"))
    assert outcome(Path("runs/stopped")) == uninterrupted()
    assert [line["epoch"] for line in read_lines(Path("runs/stopped/events.jsonl")) if line["event"] == "resumed"] == [
        1,
        2,
        3,
        4,
    ]


@pytest.mark.parametrize("operation", ["replace", "mkdir"])
def test_a_kill_at_any_step_of_writing_checkpoints_ends_bitwise_equal(
    operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies at the n-th renaming or folder of an epoch in which both checkpoints are written."""
    expected = uninterrupted()
    original = getattr(Path, operation)
    deaths = 0
    with pytest.raises(Killed):
        train(tiny("name=stopped"), [kill_when(lambda event: isinstance(event, EpochDone) and event.epoch == 2)])
    stopped = Path("runs/stopped")
    shutil.copytree(stopped, "kept")
    for nth in range(1, 30):
        calls = 0

        def dying(path: Path, *arguments: object, nth: int = nth, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls == nth:
                raise Killed
            return original(path, *arguments, **options)

        shutil.rmtree(stopped)
        shutil.copytree("kept", stopped)
        monkeypatch.setattr(Path, operation, dying)
        try:
            resume(stopped, [kill_when(lambda event: isinstance(event, StepDone) and event.epoch == 4)])
        except Killed:
            deaths += 1
        monkeypatch.setattr(Path, operation, original)
        resume(stopped)
        assert outcome(stopped) == expected, f"killed at call {nth} of {operation}"
        if calls < nth:
            break
    assert deaths >= 3


def test_a_finished_run_is_not_trained_again() -> None:
    summary = train(tiny("name=mine"))
    before = Path("runs/mine/events.jsonl").read_bytes()
    seen: list[Event] = []
    assert resume(Path("runs/mine"), [seen.append]) == summary
    assert seen == []
    assert Path("runs/mine/events.jsonl").read_bytes() == before


def test_a_line_cut_short_by_a_kill_is_dropped() -> None:
    with pytest.raises(Killed):
        train(tiny("name=stopped"), [kill_when(lambda event: isinstance(event, EpochDone) and event.epoch == 3)])
    with Path("runs/stopped/metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "loss": 0.1')
    resume(Path("runs/stopped"))
    assert outcome(Path("runs/stopped")) == uninterrupted()


def test_a_run_in_use_is_not_resumed() -> None:
    with pytest.raises(Killed):
        train(tiny("name=stopped"), [kill_when(lambda event: isinstance(event, EpochDone))])
    with locked(Path("runs/stopped")), pytest.raises(InputError, match="in use by another process"):
        resume(Path("runs/stopped"))


def test_a_damaged_checkpoint_is_not_resumed() -> None:
    with pytest.raises(Killed):
        train(tiny("name=stopped"), [kill_when(lambda event: isinstance(event, EpochDone) and event.epoch == 2)])
    path = Path("runs/stopped/last/trainer.safetensors")
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 1
    path.write_bytes(blob)
    with pytest.raises(CheckpointError, match=r"trainer\.safetensors: is damaged \(its checksum does not match\)"):
        resume(Path("runs/stopped"))


def test_pictures_that_have_changed_are_noticed() -> None:
    with pytest.raises(Killed):
        train(tiny("name=stopped"), [kill_when(lambda event: isinstance(event, EpochDone) and event.epoch == 2)])
    edit_config(Path("runs/stopped"), "channels: 4", "channels: 5")
    with pytest.raises(InputError, match="not of this configuration and these pictures"):
        resume(Path("runs/stopped"))


def test_a_process_killed_at_random_moments_ends_bitwise_equal(tmp_path: Path) -> None:
    """The real thing: ``kill -9`` of the command, again and again, at moments that fall where they will."""
    overrides = [*TINY[:-3], "train.epochs=12", "growth.epochs=[4,8]", "train.device=cpu", "train.threads=1"]
    whole = Path(train(read_config(overrides=["name=whole", *overrides])).folder)
    metrics = tmp_path / "runs/killed/metrics.jsonl"
    arguments = ["train", "name=killed", *overrides]
    kills = 0
    for lines in (2, 5, 8, 10):
        process = forked(command_line, tmp_path / "output", *arguments)
        while process.is_alive() and not (metrics.exists() and len(metrics.read_bytes().splitlines()) >= lines):
            time.sleep(0.01)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        arguments = ["train", "--resume", "killed"]
    resume(tmp_path / "runs/killed")
    assert kills >= 3
    assert outcome(tmp_path / "runs/killed") == outcome(whole)


PRUNED = (
    "prune.enabled=true",
    "prune.policy=iterative",
    "prune.keep_ratio=0.6",
    "prune.min_ratio=0.3",
    "prune.epochs=[2,4]",
)


AROUND: dict[str, Callable[[Event], bool]] = {
    "right after it": lambda event: isinstance(event, Pruned) and event.epoch == 2,
    "in its epoch": lambda event: isinstance(event, StepDone) and (event.epoch, event.done) == (2, 64),
    "between two": lambda event: isinstance(event, EpochDone) and event.epoch == 3,
    "in the second one's epoch": lambda event: isinstance(event, StepDone) and (event.epoch, event.done) == (4, 32),
}


@pytest.mark.parametrize("moment", AROUND)
def test_a_run_stopped_around_a_pruning_ends_bitwise_equal(moment: str) -> None:
    with pytest.raises(Killed):
        train(tiny(*PRUNED, "name=stopped"), [kill_when(AROUND[moment])])
    resume(Path("runs/stopped"))
    assert outcome(Path("runs/stopped")) == uninterrupted(*PRUNED)


def test_a_run_stopped_again_and_again_around_prunings_that_draw_anew_ends_bitwise_equal() -> None:
    overrides = (*PRUNED, "prune.reinit=true", "growth.freeze=before")
    stop_at_each(AROUND.values(), *overrides)
    assert outcome(Path("runs/stopped")) == uninterrupted(*overrides)
