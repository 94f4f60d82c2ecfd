"""Converted runs: exits into a trained network and out of it, kept as runs of their own."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ramify.errors import RunError
from ramify.run.checkpoint import read_model
from ramify.run.derive import converted_config
from ramify.run.events import EpochDone, Event, Started
from ramify.run.readback import describe
from ramify.run.saved import load
from ramify.training.run import resume, train
from tests.conftest import CommandLine, trained

FAST = ("train.epochs=3", "train.milestones=[2]")


@pytest.fixture
def full() -> Path:
    return trained("name=whole", "network.kind=full", "train.epochs=3")


@pytest.fixture
def branching() -> Path:
    return trained("name=grown")


def images() -> torch.Tensor:
    return torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_frozen_backbone_is_bitwise_unchanged(full: Path) -> None:
    summary = train(converted_config(full, "sdn", [*FAST, "network.structure=[1,1,0]"]))
    before, after = load(full).state_dict(), load(summary.folder).state_dict()
    assert summary.name == "whole-sdn"
    assert len(summary.exits) == 3
    renamed = {"stages.0.cells.1": "stages.1.cells.0", "stages.0.cells.2": "stages.2.cells.0"}
    renamed["stages.0.exit"] = "stages.2.exit"
    for name, value in before.items():
        moved = next((new + name.removeprefix(old) for old, new in renamed.items() if name.startswith(old)), name)
        assert torch.equal(after[moved], value), name
    fresh = read_model(Path(summary.folder) / "last")[0]
    assert torch.equal(fresh(images())[-1], load(full)(images())[-1])


def test_the_exits_learn_by_the_recipe_of_the_paper(full: Path) -> None:
    seen: list[Event] = []
    train(converted_config(full, "sdn"), [seen.append])
    epochs = [event for event in seen if isinstance(event, EpochDone)]
    assert len(epochs) == 25
    assert [epochs[0].learning_rate, epochs[13].learning_rate] == [0.001, 0.001]
    assert epochs[14].learning_rate == pytest.approx(0.0001)
    for exit_ in (0, 1):
        assert epochs[-1].exits[exit_].train.loss < epochs[0].exits[exit_].train.loss


def test_taking_exits_out_leaves_the_final_answer(branching: Path) -> None:
    summary = train(converted_config(branching, "cnn"))
    assert summary.name == "grown-cnn"
    assert torch.equal(load(summary.folder)(images())[0], load(branching)(images())[-1])
    assert summary.exits[0].test == describe(branching).exits[-1].test


@pytest.mark.parametrize("exit_", [1, 2, 3])
def test_a_cut_is_its_exit(branching: Path, exit_: int) -> None:
    summary = train(converted_config(branching, exit_))
    assert summary.name == f"grown-cut{exit_}"
    assert torch.equal(load(summary.folder)(images()), load(branching)(images())[:exit_])
    assert describe(Path(summary.folder)) == summary


@pytest.mark.parametrize("strides", ["null", "[0,0,1]"])
def test_a_cut_has_the_widths_up_to_it(strides: str) -> None:
    shape = ("network.kind=full_ic", "network.channels=[4,8]", f"network.strides={strides}")
    parent = trained(*shape, "train.epochs=1", "growth.epochs=null", "name=strided")
    for exit_ in (1, 2):
        summary = train(converted_config(parent, exit_))
        assert torch.equal(load(summary.folder)(images()), load(parent)(images())[:exit_])


LONGER = ("network.structure=[1,0,1,0,1,0]", "train.epochs=3", "train.milestones=[2]")


def test_a_deeper_network_begins_as_its_parent_after_its_last_epoch(branching: Path) -> None:
    parent, _ = read_model(branching / "last")
    config = converted_config(branching, "extend", LONGER)
    summary = train(config.model_copy(update={"train": config.train.model_copy(update={"learning_rate": 1e-9})}))
    assert summary.name == "grown-extend"
    assert len(summary.exits) == 4
    assert all(stage.grown is None for stage in summary.stages)
    child, _ = read_model(Path(summary.folder) / "last")
    torch.testing.assert_close(
        child.state_dict()["stages.1.cells.0.conv1.weight"],
        parent.state_dict()["stages.1.cells.0.conv1.weight"],
        rtol=0,
        atol=1e-6,
    )


def test_the_optimizer_goes_on_with_what_it_knew(branching: Path) -> None:
    kept = read_trainer_tensors(branching)
    begun: list[Path] = []

    def stop(event: Event) -> None:
        if isinstance(event, Started):
            begun.append(Path(event.folder))
            raise RunError("stopped")

    with pytest.raises(RunError, match="stopped"):
        train(converted_config(branching, "extend", LONGER), [stop])
    inherited = read_trainer_tensors(begun[0])
    assert inherited
    assert all(torch.equal(value, kept[name]) for name, value in inherited.items())
    shared = {name for name in kept if name.startswith(("stem", "stages.0", "stages.1"))}
    assert set(inherited) == shared
    changed = converted_config(branching, "extend", [*LONGER, "train.optimizer=adam"])
    with pytest.raises(RunError, match="stopped"):
        train(changed, [stop], overwrite=True)
    assert read_trainer_tensors(begun[1]) == {}


def read_trainer_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "last" / "trainer.safetensors")


def test_an_extension_that_was_stopped_goes_on_bitwise(branching: Path) -> None:
    whole = train(converted_config(branching, "extend", [*LONGER, "name=whole-one"]))

    def stop(event: Event) -> None:
        if isinstance(event, EpochDone) and event.epoch == 2:
            raise RunError("stopped")

    with pytest.raises(RunError, match="stopped"):
        train(converted_config(branching, "extend", [*LONGER, "name=broken"]), [stop])
    broken = resume(Path("runs/broken"))
    one, other = load(whole.folder).state_dict(), load(broken.folder).state_dict()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_command_extends_and_refuses_what_does_not_extend(branching: Path, ramify: CommandLine) -> None:
    done = ramify("convert", str(branching), "--to", "extend", *LONGER)
    assert (done.code, "grown-extend" in done.out) == (0, True), done.err
    for wrong in ("network.structure=[0,1,1,0]", "network.channels=8"):
        answer = ramify("convert", str(branching), "--to", "extend", *LONGER, wrong, "name=wrong")
        assert answer.code == 2
        assert "network.structure: got" in answer.err
        assert "accepted: one that extends [1, 0, 1] up to an exit" in answer.err


def test_a_conversion_that_was_stopped_goes_on_bitwise(full: Path) -> None:
    changes = [*FAST, "network.structure=[1,1,0]"]
    whole = train(converted_config(full, "sdn", [*changes, "name=whole-one"]))

    def stop(event: Event) -> None:
        if isinstance(event, EpochDone) and event.epoch == 2:
            raise RunError("stopped")

    with pytest.raises(RunError, match="stopped"):
        train(converted_config(full, "sdn", [*changes, "name=in-two"]), [stop])
    again = resume(Path("runs/in-two"))
    assert torch.equal(load(again.folder)(images()), load(whole.folder)(images()))
    first, second = (Path(folder) / "last" / "trainer.safetensors" for folder in (whole.folder, again.folder))
    assert first.read_bytes() == second.read_bytes()


def test_a_pruned_child_of_a_converted_run(full: Path, ramify: CommandLine) -> None:
    assert ramify("convert", "whole", "--to", "sdn", *FAST, "-q").code == 0
    answer = ramify("prune", "whole-sdn", "train.epochs=1", "-q")
    assert answer.code == 0, answer.err
    assert describe(Path("runs/whole-sdn-pruned")).exits[-1].kept > 0


def test_the_command_line(branching: Path, ramify: CommandLine) -> None:
    answer = ramify("convert", "grown", "--cut", "2")
    assert answer.code == 0
    assert "grown-cut2" in answer.out
    assert "2 exits" in ramify("info", "grown-cut2").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "convert: got neither; accepted: --to or --cut"),
        (("--to", "cnn", "--cut", "1"), "convert: got both; accepted: --to or --cut"),
        (("--cut", "9"), "cut: got exit 9; accepted: 1 to 3"),
        (("--to", "sdn", "network.structure=[1,0]"), "network.structure: got 2 cells; accepted: 3"),
        (("--to", "sdn", "network.channels=8"), "network.channels: got 8; accepted: 4"),
        (("--to", "sdn", "network.structure=[0,0,0]"), "train.exits_only: got true"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(
    branching: Path, ramify: CommandLine, arguments: tuple[str, ...], message: str
) -> None:
    answer = ramify("convert", "grown", *arguments)
    assert answer.code == 2, answer.err
    assert message in answer.err
