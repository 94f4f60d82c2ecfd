"""A run knows its pictures: whatever becomes of its folder, no picture that was trained on is measured on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ramify as package
from ramify.config.rules import Config
from ramify.data.manifest import PARTS, read_manifest
from ramify.errors import ConfigError, DataError, InputError
from ramify.run.calibrate import calibrate_run
from ramify.run.derive import child_config
from ramify.run.distributed import ALONE
from ramify.run.events import EpochDone, Event, Started, StoppedEarly
from ramify.run.measuring import pictures_to_measure
from ramify.run.pictures import parts_of_run
from ramify.run.readback import remeasure
from ramify.training.prepare import prepare_run
from ramify.training.run import resume, train
from tests.conftest import CommandLine, tiny, trained

PHOTOS = Path("photos")
SMALL = ("network.structure=[1]", "network.channels=2", "train.epochs=2", "growth.epochs=[2]", "data.limit=null")


def add(first: int, last: int, root: Path = PHOTOS, classes: str = "ab") -> None:
    """Pictures that differ from one another, of two classes that can be told apart."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(first, last):
            pixels = np.random.default_rng((label, i)).integers(120 * label, 136 + 120 * label, (8, 8), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:03}.png")


MINE = (*SMALL, f"data.source={PHOTOS}", "name=mine")


def config(*overrides: str) -> Config:
    return tiny(*MINE, *overrides)


@pytest.fixture
def run() -> Path:
    add(0, 30)
    return trained(*MINE)


def names(run: Path, *overrides: str) -> dict[str, set[str]]:
    parts, _ = parts_of_run(run, package.read_config([run / "config.yaml"], overrides))
    every = {"train": parts.train, "valid": parts.valid, "test": parts.test}
    return {
        name: {parts.files.names[i] for i in part.ids.tolist()} for name, part in every.items() if part.ids is not None
    }


def test_the_manifest_has_every_picture(run: Path) -> None:
    manifest = read_manifest(run)
    assert manifest is not None
    assert sorted(manifest.names) == sorted(f"{name}/{i:03}.png" for name in "ab" for i in range(30))
    summary = json.loads((run / "summary.json").read_text())
    assert [manifest.parts.count(part) for part in range(3)] == summary["pictures"]
    kept = {
        name: {n for n, p in zip(manifest.names, manifest.parts, strict=True) if PARTS[p] == name} for name in PARTS[:3]
    }
    assert names(run) == kept


def test_a_folder_that_grows_moves_no_picture(run: Path) -> None:
    before, measured = names(run), remeasure(run)
    add(30, 44)
    assert names(run) == before
    after = remeasure(run)
    assert after.exits == measured.exits
    assert after.pictures == measured.pictures
    assert any("28 new" in note for note in after.notes)
    told: list[str] = []
    calibrate_run(run, max_drop=0.5, notice=told.append)
    assert "28 new" in told[0]


def test_new_pictures_can_be_measured_alone(run: Path) -> None:
    with pytest.raises(InputError, match="got no picture that mine does not know"):
        remeasure(run, only_new=True)
    add(30, 37)
    found = remeasure(run, only_new=True)
    assert (found.pictures, found.part) == (14, "new pictures")
    assert {m.file for r in found.results for m in r.mistakes} <= {
        f"{n}/{i:03}.png" for n in "ab" for i in range(30, 37)
    }


def test_what_is_missing_or_changed_is_said_and_refused_where_it_counts(run: Path) -> None:
    parts = names(run)
    tested, trained, valid = (sorted(parts[name]) for name in ("test", "train", "valid"))
    (PHOTOS / tested[0]).unlink()
    Image.fromarray(np.full((8, 8), 77, np.uint8)).save(PHOTOS / trained[0])
    found = remeasure(run)
    assert found.pictures == len(tested) - 1
    assert any("1 missing (1 test), 1 changed (1 train)" in note for note in found.notes)
    shutil.copy(PHOTOS / trained[1], PHOTOS / tested[1])  # what was trained on comes under the name of a test picture
    assert remeasure(run).pictures == len(tested) - 2
    Image.fromarray(np.full((8, 8), 78, np.uint8)).save(PHOTOS / valid[0])
    with pytest.raises(InputError, match="1 of its validation pictures have another content"):
        calibrate_run(run, max_drop=0.5)
    for name in tested:
        (PHOTOS / name).unlink(missing_ok=True)
    with pytest.raises(InputError, match=rf"got none of the {len(tested)} test pictures of mine"):
        remeasure(run)


def test_a_renamed_folder_and_moved_files_stay_in_their_parts(run: Path) -> None:
    before = remeasure(run)
    PHOTOS.rename("elsewhere")
    after = remeasure(run, ["data.source=elsewhere"])
    assert after.exits == before.exits
    for file in Path("elsewhere/a").iterdir():
        file.rename(file.with_name(f"x{file.name}"))
    assert remeasure(run, ["data.source=elsewhere"]).exits == before.exits


def test_all_pictures_of_another_folder_are_measured(run: Path) -> None:
    add(100, 120, Path("new"))
    found = remeasure(run, ["data.source=new"])
    assert (found.pictures, found.part, found.notes) == (40, "pictures", ())
    for i in range(5):
        shutil.copy(PHOTOS / "a" / f"{i:03}.png", Path("new/a") / f"copy{i}.png")
    known = sum(f"a/{i:03}.png" in names(run)[part] for i in range(5) for part in ("train", "valid"))
    found = remeasure(run, ["data.source=new"])
    assert found.pictures == 45
    assert known == 0 or any("of these pictures were trained on" in note for note in found.notes)
    assert remeasure(run, ["data.source=new"], only_new=True).pictures == 40


def test_a_test_part_elsewhere_is_measured_alone(run: Path) -> None:
    for part, first in (("train", 200), ("test", 300)):
        add(first, first + 6, Path("split") / part)
    found = remeasure(run, ["data.source=split"])
    assert found.pictures == 12
    assert any("its 12 training pictures are not measured" in note for note in found.notes)


def test_what_deals_pictures_out_cannot_be_changed_afterwards(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.test_fraction: got 0\.9; accepted: 0\.2"):
        remeasure(run, ["data.test_fraction=0.9"])
    assert remeasure(run, ["data.limit=4"]).pictures == 4


class StopError(BaseException):
    pass


def stop_after_one(event: Event) -> None:
    if isinstance(event, EpochDone) and event.epoch == 1:
        raise StopError


def test_a_run_goes_on_with_the_same_pictures() -> None:
    add(0, 30)
    whole = train(config("name=whole"))
    with pytest.raises(StopError):
        train(config(), [stop_after_one])
    add(30, 40)
    seen: list[str] = []
    done = resume(Path("runs/mine"), [lambda event: seen.extend(event.notes) if isinstance(event, Started) else None])
    assert done.exits == whole.exits
    assert done.pictures == whole.pictures
    assert any("20 new" in note for note in seen)


@pytest.mark.parametrize("change", ["missing", "changed"])
def test_a_run_whose_pictures_are_gone_does_not_go_on(change: str) -> None:
    add(0, 30)
    with pytest.raises(StopError):
        train(config(), [stop_after_one])
    if change == "missing":
        (PHOTOS / "a/003.png").unlink()
    else:
        shutil.copy(PHOTOS / "b/003.png", PHOTOS / "a/003.png")
    with pytest.raises(InputError, match="cannot go on as it began: of its pictures in photos"):
        resume(Path("runs/mine"))


def test_a_child_keeps_the_parts_of_its_parent(run: Path) -> None:
    before = names(run)
    add(30, 40)
    child = child_config(run, ["name=child", "seed=99"])
    _, _, parts = prepare_run(child, ALONE)
    assert parts.counts == tuple(len(before[name]) for name in ("train", "valid", "test"))
    assert {parts.files.names[i] for i in parts.train.ids.tolist()} == before["train"]  # type: ignore[union-attr]
    assert any("20 new" in note for note in parts.notes)
    assert parts.manifest is not None
    assert len(parts.manifest) == 60
    with pytest.raises(ConfigError, match=r"data\.fold: got \(1, 2\); accepted: None, as in mine"):
        prepare_run(child_config(run, ["name=child", "data.fold=[1,2]"]), ALONE)


def test_a_child_elsewhere_is_not_tested_on_what_its_parent_learned(run: Path) -> None:
    add(500, 530, Path("mixed"))
    learned = sorted(names(run)["train"])
    for i, name in enumerate(learned):
        shutil.copy(PHOTOS / name, Path("mixed") / name[0] / f"m{i}.png")
    _, _, parts = prepare_run(child_config(run, ["name=child", "data.source=mixed", "data.test_fraction=0.5"]), ALONE)
    trained = {parts.files.names[i] for i in parts.train.ids.tolist()}  # type: ignore[union-attr]
    assert {f"{name[0]}/m{i}.png" for i, name in enumerate(learned)} <= trained
    assert any("were trained on by mine" in note for note in parts.notes)
    for i, name in enumerate(learned):
        write = Path("known") / ("test" if i % 2 else "train") / name[0] / f"{i}.png"
        write.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PHOTOS / name, write)
    with pytest.raises(InputError, match="known: got no test picture that mine was not trained on"):
        prepare_run(child_config(run, ["name=child", "data.source=known"]), ALONE)


def test_a_teacher_that_knows_the_test_is_said(run: Path) -> None:
    seen: list[str] = []
    train(
        config("name=student", "train.teacher=mine", "seed=5", "data.test_fraction=0.5"),
        [lambda event: seen.extend(event.notes) if isinstance(event, Started) else None],
    )
    assert any("the teacher was trained on" in note for note in seen)


def test_what_is_passed_over_is_kept_in_the_run_and_told(ramify: CommandLine) -> None:
    add(0, 20)
    (PHOTOS / "a" / "broken.png").write_bytes(b"-")
    (PHOTOS / "a" / "notes.txt").write_text("-")
    shutil.copy(PHOTOS / "a" / "001.png", PHOTOS / "b" / "copy.png")
    keys = [f"{key}" for key in (*SMALL, "data.source=photos", "data.batch_size=8", "train.epochs=2", "name=mine")]
    keys = [key for key in keys if key != "data.limit=null"]
    stopped = ramify("train", *keys)
    assert stopped.code == 2
    assert "photos/a/broken.png: cannot be decoded" in stopped.err
    done = ramify("train", *keys, "data.broken=skip")
    assert done.code == 0
    assert "passed over: 2 files" in done.out
    assert "1 in more than one class" in done.out
    listed = Path("runs/mine/passed_over.csv").read_text().splitlines()
    assert listed[0] == "reason,file"
    assert sorted(line.rpartition(",")[2] for line in listed[1:]) == ["a/broken.png", "a/notes.txt"]
    assert ramify("train", *keys, "data.broken=skip", "--strict", "--overwrite").code == 2
    told = ramify("data", "data.source=photos", "data.broken=skip", "--json", "--near")
    record = json.loads(told.out)
    assert {each["file"] for each in record["passed_over_files"]} == {"a/broken.png", "a/notes.txt"}
    assert record["copies"][0][0]["file"] == "a/001.png"
    assert ramify("data", "data.source=photos", "data.broken=skip", "--strict").code == 2


def test_strict_refuses_from_python() -> None:
    add(0, 10)
    shutil.copy(PHOTOS / "a" / "001.png", PHOTOS / "b" / "copy.png")
    with pytest.raises(DataError, match="accepted: none with --strict"):
        train(config(), strict=True)


# --- folds, imbalance, stopping ------------------------------------------------------------------------


def test_folds_end_with_one_summary(ramify: CommandLine) -> None:
    add(0, 12)
    keys = [key for key in SMALL if key != "data.limit=null"]
    done = ramify("train", *keys, "data.source=photos", "data.batch_size=8", "name=mine", "--folds", "3")
    assert done.code == 0, done.err
    assert "mean ± std of 3" in done.out
    tested = [names(Path(f"runs/mine-fold{k}"))["test"] for k in (1, 2, 3)]
    assert sorted(name for part in tested for name in part) == sorted(
        f"{n}/{i:03}.png" for n in "ab" for i in range(12)
    )
    assert ramify("train", "data.fold=[1,3]", "--folds", "3").code == 2
    assert "data.fold" in ramify("train", "data.fold=[4,3]").err


@pytest.mark.parametrize("keys", [("train.class_weights=balanced",), ("data.sampler=balanced",)])
def test_a_rare_class_is_not_given_up(keys: tuple[str, ...]) -> None:
    random = np.random.default_rng(0)
    for label, (name, count) in enumerate((("rare", 12), ("usual", 160))):
        (PHOTOS / name).mkdir(parents=True)
        for i in range(count):  # they overlap: a network that counts pictures alike answers "usual" to nearly all
            pixels = np.clip(random.normal(120 + 16 * label, 60, (8, 8)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(PHOTOS / name / f"{i}.png")
    common = ("train.epochs=6", "growth.epochs=[2]", "data.augment=none", "network.channels=4")
    recalls = []
    for more in ((), keys):
        run = Path(train(config(*common, f"name=r{len(more)}", *more)).folder)
        parts, _ = parts_of_run(run, package.read_config([run / "config.yaml"]))
        logits = package.all_logits(package.load(run), parts.train.images)[-1]
        rare = parts.train.labels == 0
        recalls.append(float((logits.argmax(dim=1) == 0)[rare].float().mean()))
    assert recalls[1] > recalls[0]


def test_class_weights_are_checked() -> None:
    add(0, 10)
    with pytest.raises(ConfigError, match=r"train\.class_weights: got \[1\.0, 2\.0, 3\.0\]; accepted: 2 numbers"):
        train(config("train.class_weights=[1,2,3]"))
    with pytest.raises(ConfigError, match=r"corrects|equal already"):
        config("train.class_weights=balanced", "data.sampler=balanced")


def test_patience_counts_from_the_last_growth() -> None:
    add(0, 20)
    seen: list[Event] = []
    summary = train(
        config("train.epochs=12", "growth.epochs=[5]", "train.patience=2", "train.learning_rate=1e-9"), [seen.append]
    )
    (stopped,) = (event for event in seen if isinstance(event, StoppedEarly))
    assert stopped.best >= 5  # never an epoch before the last growth
    assert stopped.epoch == summary.epochs == stopped.best + 2 < 12
    assert summary.finished


@pytest.mark.parametrize(
    ("guess", "key"),
    [
        ("train.early_stopping=5", "train.patience"),
        ("data.class_weights=balanced", "train.class_weights"),
        ("train.sampler=balanced", "data.sampler"),
        ("data.folds=5", "data.fold"),
        ("train.lr=1", "train.learning_rate"),
    ],
)
def test_a_wrong_guess_is_answered_with_the_key(guess: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f"nearest known key: {key} "):
        tiny(guess)


# --- larger than memory -------------------------------------------------------------------------------


def test_a_run_on_a_set_in_a_file_has_the_same_bits() -> None:
    add(0, 24)
    inside = train(config("name=inside"))
    outside = train(config("name=outside", "data.memory_gb=0"))
    assert inside.exits == outside.exits
    pair = [package.load(f"runs/{name}").state_dict() for name in ("inside", "outside")]
    assert all(torch.equal(pair[0][key], pair[1][key]) for key in pair[0])
    assert remeasure(Path("runs/outside")).exits == remeasure(Path("runs/inside")).exits
    calibrate_run(Path("runs/outside"), max_drop=0.5)


def test_the_measured_pictures_have_names(run: Path) -> None:
    found = pictures_to_measure(run, package.read_config([run / "config.yaml"]))
    assert set(found.names) == names(run)["test"]
