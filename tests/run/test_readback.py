"""Reading runs back: load, describe, measure again."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import ramify
from ramify.data.sources import load_source
from ramify.errors import ConfigError, InputError
from ramify.run.events import EpochDone, Event
from ramify.run.readback import describe, remeasure
from ramify.run.saved import load
from ramify.training.run import train
from tests.conftest import tiny, trained


def test_a_run_is_loaded_by_name_folder_or_checkpoint() -> None:
    folder = trained("name=mine")
    images = torch.rand(2, 1, 8, 8)
    expected = load("mine")(images)
    assert expected.shape == (3, 2, 10)
    for path in (folder, str(folder), folder / "best"):
        assert torch.equal(ramify.load(path)(images), expected)
    assert load(folder / "last")(images).shape == (3, 2, 10)


def test_a_run_that_does_not_exist_names_the_nearest() -> None:
    trained("name=mine").rename("runs/digits_one")
    with pytest.raises(InputError, match=r"got 'digits_on', which is no run in runs; .* \(nearest: digits_one\)"):
        load("digits_on")
    with pytest.raises(InputError, match="there: none"):
        load("x", runs_dir="elsewhere")


def test_a_finished_run_is_described_by_its_summary() -> None:
    summary = train(tiny("name=mine"))
    assert describe(Path("runs/mine")) == summary


def test_a_moved_run_is_found_under_its_new_name() -> None:
    trained("name=mine")
    Path("runs/mine").rename("runs/yours")
    assert describe(Path("runs/yours")).name == "yours"


def test_a_run_under_way_is_described_by_what_it_has() -> None:
    class Stop(BaseException):
        pass

    def stop(event: Event) -> None:
        if isinstance(event, EpochDone) and event.epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        train(tiny("name=mine"), [stop])
    found = describe(Path("runs/mine"))
    assert (found.finished, found.epoch, found.planned_epochs) == (False, 2, 4)
    assert (len(found.exits), found.exits_planned) == (2, 3)
    assert [stage.grown for stage in found.stages] == [None, 2]
    assert all(each.test is None and each.valid is not None for each in found.exits)


def test_measuring_again_gives_the_same_figures() -> None:
    summary = train(tiny("name=mine"))
    found = remeasure(Path("runs/mine"))
    count, exits = found.pictures, found.exits
    assert summary.pictures is not None
    assert count == summary.pictures[2]
    assert [each.test for each in exits] == [each.test for each in summary.exits]


def write_pictures(folder: Path, classes: str, mode: str, size: int) -> None:
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(5):
            Image.new(mode, (size, size), int(name) * 20 + i if mode == "L" else (10 * i, 0, 0)).save(
                folder / name / f"{i}.png"
            )


def test_pictures_of_another_size_and_mode_are_converted(tmp_path: Path) -> None:
    trained("name=mine")
    write_pictures(tmp_path / "photos", "31", "RGB", 20)
    found = remeasure(Path("runs/mine"), [f"data.source={tmp_path / 'photos'}", "data.limit=null"])
    assert found.source.endswith("photos")
    assert (found.pictures, len(found.exits)) == (10, 3)


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    """A folder with only some of the classes gets the network's labels, not its own."""
    trained("name=mine")
    write_pictures(tmp_path / "digits", "37", "L", 8)
    found = remeasure(Path("runs/mine"), [f"data.source={tmp_path / 'digits'}", "data.limit=null"])
    pictures = load_source(ramify.DataConfig(source=found.source))
    assert found.pictures == len(pictures.train) == 10
    answers = load("mine")(pictures.train.images.float() / 255).argmax(dim=2)
    truth = torch.tensor([int(pictures.classes[label]) for label in pictures.train.labels])
    expected = (answers == truth).float().mean(dim=1)
    assert [each.test.top1 for each in found.exits if each.test] == pytest.approx(expected.tolist())


def test_classes_that_the_network_does_not_know_are_refused(tmp_path: Path) -> None:
    trained("name=mine")
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(5):
            Image.new("L", (8, 8), i).save(tmp_path / "pets" / name / f"{i}.png")
    with pytest.raises(InputError, match=r"with class 'cat'; accepted: classes of the network \(0, 1, 2"):
        remeasure(Path("runs/mine"), [f"data.source={tmp_path / 'pets'}", "data.limit=null"])


def test_only_pictures_and_place_can_be_changed() -> None:
    trained("name=mine")
    with pytest.raises(ConfigError, match=r"got 'network.channels=3'; accepted: data\.\*, train\.device"):
        remeasure(Path("runs/mine"), ["network.channels=3"])
