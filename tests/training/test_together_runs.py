"""Runs whose exits train together in other ways than by the sum of their losses."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ramify.errors import ConfigError
from ramify.ops.loss import distillation_losses
from ramify.run.derive import child_config, converted_config
from ramify.run.distributed import ALONE
from ramify.run.evaluate import to_float
from ramify.run.events import EpochDone, Event, Grew, NewBest, StepDone
from ramify.run.folder import read_lines
from ramify.run.saved import load
from ramify.training.prepare import prepare_run
from ramify.training.run import resume, train
from ramify.training.teacher import Teacher, find_teacher
from tests.conftest import tiny, trained
from tests.training.test_resume import Killed, kill_when, outcome, stop_at_each

TAUGHT = ("train.teacher=teacher", "train.teacher_weight=0.6", "train.distill_temperature=3")
ALL = (*TAUGHT, "train.exit_gradients=equilibrium", "train.trunk_first=1", "train.distill=0.7", "train.epochs=5")
PICTURES = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def teach(*overrides: str) -> Path:
    """A teacher, unlike its pupils, on the same pictures."""
    return trained("name=teacher", "network.kind=full", "train.epochs=2", "seed=5", *overrides)


def weights(name: str, which: str = "last") -> bytes:
    return Path("runs", name, which, "model.safetensors").read_bytes()


def never(teacher: Teacher, images: Tensor, exits: bool = False) -> Tensor:
    raise AssertionError("the teacher was asked")


@pytest.mark.parametrize("kind", ["full_ic", "iterative", "dense"])
def test_with_the_trunk_first_other_exits_stay_untouched_until_their_turn(kind: str) -> None:
    """Exits that grow are trained as long as they are the deepest; then they rest, bit for bit, until all train."""
    seen: dict[int, dict[str, Tensor]] = {}
    best: list[int] = []

    def watch(event: Event) -> None:
        if isinstance(event, EpochDone):
            saved = load("runs/mine/last").state_dict()
            seen[event.epoch] = {name.split(".")[1]: saved[name] for name in saved if name.endswith("linear.weight")}
        if isinstance(event, NewBest):
            best.append(event.epoch)

    summary = train(tiny("name=mine", f"network.kind={kind}", "train.trunk_first=2", "train.epochs=6"), [watch])
    last_alone = 2 if kind == "full_ic" else 4  # it grows before epochs 2 and 3
    for epoch in range(2, 7):
        for at, weight in seen[epoch - 1].items():
            deepest = len(seen[epoch]) - 1
            moved = not torch.equal(seen[epoch][at], weight)
            assert moved == (epoch > last_alone or int(at) == deepest), (epoch, at)
    assert best
    assert min(best) > last_alone
    assert summary.exits[0].test is not None


def test_equilibrium_changes_what_the_trunk_learns_and_nothing_of_a_single_exit() -> None:
    for way in ("sum", "equilibrium"):
        short = ("train.epochs=2", "growth.epochs=[2]", "network.structure=[1,0]")
        train(tiny(f"name={way}", f"train.exit_gradients={way}", *short))
    first, second = (read_lines(Path("runs", way, "metrics.jsonl")) for way in ("sum", "equilibrium"))
    assert first[0]["loss"] == second[0]["loss"]  # one exit
    assert first[1]["loss"] != second[1]["loss"]


def test_the_loss_told_is_the_one_that_is_minimised_and_exits_tell_cross_entropy() -> None:
    teach()
    train(tiny("name=mine", *TAUGHT, "train.distill=2", "train.epochs=1", "network.kind=full_ic"))
    train(tiny("name=plain", "train.epochs=1", "network.kind=full_ic"))
    taught, plain = (read_lines(Path("runs", name, "metrics.jsonl"))[0] for name in ("mine", "plain"))
    assert taught["loss"] != pytest.approx(plain["loss"], rel=0.01)
    for line in (taught, plain):
        assert all(0 < exit_["train"]["loss"] < 4 for exit_ in line["exits"])  # type: ignore[attr-defined]


def test_pictures_that_stay_the_same_are_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    teach()
    monkeypatch.setattr(Teacher, "ask", never)
    assert train(tiny("name=first", "data.augment=none", *TAUGHT)).finished
    with pytest.raises(AssertionError, match="the teacher was asked"):
        train(tiny("name=second", "data.augment=crop_flip", *TAUGHT))


MOMENTS: dict[str, Callable[[Event], bool]] = {
    "in the first epoch": lambda event: isinstance(event, StepDone) and event.done == 64,
    "after the last growth": lambda event: isinstance(event, Grew) and event.epoch == 3,
    "while the trunk is alone": lambda event: isinstance(event, EpochDone) and event.epoch == 3,
    "while all train": lambda event: isinstance(event, StepDone) and (event.epoch, event.done) == (5, 64),
}


def test_a_run_with_all_of_it_stopped_at_every_moment_ends_bitwise_equal() -> None:
    teach()
    whole = outcome(Path(train(tiny("name=whole", *ALL)).folder))
    stop_at_each(MOMENTS.values(), *ALL)
    assert outcome(Path("runs/stopped")) == whole


def test_a_run_goes_on_without_the_original_of_its_teacher() -> None:
    folder = teach()
    with pytest.raises(Killed):
        train(tiny("name=mine", *ALL), [kill_when(MOMENTS["while the trunk is alone"])])
    folder.rename("runs/elsewhere")
    summary = resume(Path("runs/mine"))
    assert summary.finished
    child = child_config(Path("runs/mine"), ["name=child", "train.epochs=1"])
    assert (child.train.teacher, child.train.trunk_first) == ("runs/mine/teacher", 0)
    assert train(child).finished


def test_a_compiled_run_with_all_of_it_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ramify.training.step.BACKEND", "aot_eager")
    teach()
    counts: list[int] = []
    watch = lambda event: counts.append(event.compilations) if isinstance(event, EpochDone) else None  # noqa: E731
    train(tiny("name=compiled", "train.compile=true", *ALL), [watch])
    assert counts == [1, 2, 3, 4, 4]  # a graph for each network, and one more once all exits train
    train(tiny("name=plain", *ALL))
    torch.testing.assert_close(load("compiled")(PICTURES), load("plain")(PICTURES), rtol=1e-3, atol=1e-3)


def test_a_pupil_comes_to_answer_as_its_teacher_does() -> None:
    teach("train.epochs=8")
    config, _, parts = prepare_run(tiny("name=none"), ALONE)
    assert config.train.teacher_weight is None
    images = to_float(parts.train.images)
    apart = []
    for weight in (0, 1):
        taught = ("train.teacher=teacher", f"train.teacher_weight={weight}")
        train(tiny(f"name=w{weight}", *taught, "network.kind=full_ic", "train.epochs=8"))
        with torch.no_grad():
            target = load("teacher")(images)[-1]
            apart.append(float(distillation_losses(load(f"w{weight}")(images), target, 4.0)[-1]))
    assert apart[1] < apart[0]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            "train.teacher=teacherr",
            "train.teacher: got 'teacherr', which is no run in runs; accepted: the name of a run",
        ),
        ("data.limit=200", None),
        (
            "data.size=16",
            r"train.teacher: got runs/teacher, which takes pictures of \[1, 8, 8\]; accepted: a network for \[1, 1",
        ),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused_in_one_sentence(given: str, sentence: str | None) -> None:
    teach()
    config = tiny("name=mine", "train.epochs=1", "network.kind=full", "train.teacher=teacher", given)
    if sentence is None:
        assert train(config).finished
        return
    with pytest.raises(ConfigError, match=sentence):
        train(config)
    assert not Path("runs/mine").exists()


def test_a_teacher_of_other_classes_is_refused() -> None:
    folder = teach()
    config, where, parts = prepare_run(tiny("name=mine", "train.teacher=teacher"), ALONE)
    with pytest.raises(
        ConfigError, match=r"which knows 10 classes \(0, 1, 2, 3, 4, \.\.\.\); accepted: .* 10 classes \(a,"
    ):
        find_teacher(config, where, replace(parts, classes=tuple("abcdefghij")))
    (folder / "best" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"train.teacher: .*is damaged"):
        find_teacher(config, where, parts)


def test_each_exit_learns_from_its_own_teacher_and_from_the_pictures_that_come_to_it() -> None:
    """Both change what is learned, the first exit has no exit before it, and a run goes on where it was killed."""
    teach("network.kind=full_ic")
    taught = ("train.teacher=teacher", "train.epochs=2", "network.kind=full_ic", "data.augment=none")
    plain, exits, focus = (
        train(tiny(f"name={name}", *taught, *more))
        for name, more in (
            ("plain", ()),
            ("exits", ("train.teacher_exits=true",)),
            ("focus", ("train.exit_focus=0.8",)),
        )
    )
    losses = [each.exits[-1].valid.loss for each in (plain, exits, focus) if each.exits[-1].valid is not None]
    assert len(set(losses)) == 3
    assert not converted_config(Path(exits.folder), 1).train.teacher_exits
    with pytest.raises(ConfigError, match=r"train\.teacher_exits: got true; accepted: false, as there is no"):
        train(tiny("name=none", "train.teacher_exits=true"))
