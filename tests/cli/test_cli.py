"""The command line: every verb, what it prints, and what it says to bad input."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ramify.config.presets import presets
from ramify.config.read import read_config
from ramify.config.rules import Config
from ramify.errors import RunError
from ramify.run.folder import locked
from tests.conftest import TINY, CommandLine, trained
from tests.killing import command_line, forked


def assert_refused(answer: object, sentence: str, code: int = 2) -> None:
    """One clear sentence on the error stream, the right exit code, no traceback."""
    assert answer.code == code  # type: ignore[attr-defined]
    errors = answer.err.strip().splitlines()  # type: ignore[attr-defined]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert sentence in errors[0]


def test_train_then_info_then_evaluate(ramify: CommandLine) -> None:
    trained = ramify("train", *TINY, "name=mine")
    assert trained.code == 0
    assert "grew stage 2: 2 cells and its exit, + 1,216 weights" in trained.out
    assert "grew stage 3: the final classifier, + 640 weights" in trained.out
    assert "read it back with: ramify info mine" in trained.out
    told = ramify("info", "mine")
    assert told.code == 0
    for word in ("exit", "parameters", "weights", "MACs", "valid top-1", "test top-1", "density", "grown before epoch"):
        assert word in told.out
    measured = ramify("evaluate", "mine", "--json")
    summary = json.loads(Path("runs/mine/summary.json").read_text())
    again = json.loads(measured.out)
    assert [each["test"] for each in again["exits"]] == [each["test"] for each in summary["exits"]]


def test_json_lines_tell_the_whole_run(ramify: CommandLine) -> None:
    answer = ramify("train", *TINY, "--json")
    events = [json.loads(line) for line in answer.out.splitlines()]
    kinds = [event["event"] for event in events if event["event"] != "best"]
    assert kinds == ["started", "epoch", "grew", "epoch", "grew", "epoch", "epoch", "finished"]
    assert events[-1]["exits"][-1]["test"]["top1"] >= 0


def test_quiet_prints_the_table_alone(ramify: CommandLine) -> None:
    answer = ramify("train", *TINY, "--quiet")
    assert "epoch 1/4" not in answer.out
    assert "test top-1" in answer.out


def test_repeats_end_with_mean_and_deviation(ramify: CommandLine) -> None:
    answer = ramify("train", *TINY, "name=mine", "seed=5", "--repeats", "3")
    assert answer.code == 0
    assert "mean ± std of 3" in answer.out
    names = sorted(path.name for path in Path("runs").iterdir())
    assert names == ["mine-seed5", "mine-seed6", "mine-seed7"]
    told = ramify("info", *names)
    assert told.out.split() == answer.out[answer.out.index(" run  ") :].split()
    compared = json.loads(ramify("info", *names, "--json").out)
    tests = [[each["test"]["top1"] for each in run["exits"]] for run in compared]
    mean = sum(run[-1] for run in tests) / 3
    assert f"{100 * mean:.2f} ±" in answer.out.rstrip().splitlines()[-1]


def test_repeats_in_json_end_with_the_mean(ramify: CommandLine) -> None:
    answer = ramify("train", *TINY, "--repeats", "2", "--json")
    lines = [json.loads(line) for line in answer.out.splitlines()]
    tests = [[each["test"]["top1"] for each in line["exits"]] for line in lines if line["event"] == "finished"]
    assert lines[-1]["mean"] == pytest.approx([sum(pair) / 2 for pair in zip(*tests, strict=True)])
    assert len(lines[-1]["std"]) == 3


def test_several_documents_are_several_runs(ramify: CommandLine) -> None:
    Path("list.yaml").write_text("name: one\n---\nname: two\nseed: 1\n")
    answer = ramify("train", "list.yaml", *TINY)
    assert answer.code == 0
    assert "run 1 of 2" in answer.out
    assert sorted(path.name for path in Path("runs").iterdir()) == ["one", "two"]


def test_one_run_that_fails_does_not_keep_the_others_from_running(ramify: CommandLine) -> None:
    Path("list.yaml").write_text("name: bad\ntrain.learning_rate: 1e30\n---\nname: good\n")
    overrides = [text for text in TINY if not text.startswith("train.learning_rate")]
    answer = ramify("train", "list.yaml", *overrides, "--quiet")
    assert answer.code == 1
    assert "run 2 of 2" in answer.out
    assert " good " in answer.out  # the table of those that did not fail
    assert "error: run 1: epoch 1: the loss is" in answer.err
    assert "error: 1 of 2 runs failed" in answer.err
    assert Path("runs/good/summary.json").exists()


def test_an_unfinished_run_is_measured_on_its_validation_pictures(
    ramify: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ramify.training.outcome.evaluate", interrupted)  # before the test set is read
        assert ramify("train", *TINY, "name=mine").code == 1
    answer = ramify("evaluate", "mine")
    assert answer.code == 0
    assert "mine on 20 validation pictures" in answer.out
    assert "the run has not finished" in answer.out + answer.err
    assert ramify("report", "mine").code == 0
    assert "validation pictures" in Path("runs/mine/report.html").read_text()


def test_a_shift_beyond_the_picture_is_refused(ramify: CommandLine) -> None:
    answer = ramify("train", *TINY, "data.augment=crop", "data.shift=8", "data.border=reflect", "name=far")
    assert (answer.code, "data.shift: got 8; accepted: less than 8" in answer.err) == (2, True), answer.err
    assert not Path("runs/far").exists()


def test_prune_makes_a_run_that_names_its_parent(ramify: CommandLine) -> None:
    trained("name=mine")
    answer = ramify("prune", "mine", "prune.keep_ratio=0.3", "prune.criterion=magnitude", "train.epochs=2")
    assert answer.code == 0
    assert "epoch 1: pruned stages 1 to 3 by magnitude: " in answer.out
    assert "density 2" in answer.out or "density 3" in answer.out
    told = ramify("info", "mine-pruned")
    assert "; from runs/mine" in told.out
    assert "stages.1.cells.0.conv1" in told.out
    assert ramify("prune", "mine", "--quiet", "train.epochs=2").code == 0
    assert Path("runs/mine-pruned-2").exists()


def test_prune_compact_takes_channels_out_and_says_what_that_gave(ramify: CommandLine) -> None:
    trained("name=mine", "network.kind=dense")
    lean = ramify("prune", "mine", "prune.unit=channel", "train.epochs=1", "--compact")
    assert lean.code == 0
    assert "channels taken out, logits differ by at most" in lean.out
    assert "batch 64" in lean.out
    small = json.loads(ramify("info", "mine-pruned", "--json").out)[0]
    assert small["exits"][-1]["parameters"] == small["receipt"]["parameters"][1] < small["receipt"]["parameters"][0]
    alone = ramify("prune", "mine", "--compact")
    assert alone.code == 0
    assert "nothing was taken out, as no channel is dead" in alone.out
    assert Path("runs/mine-compact/compact/model.safetensors").exists()


def test_a_keep_ratio_that_would_kill_a_layer_is_refused(ramify: CommandLine) -> None:
    answer = ramify("train", *TINY, "prune.enabled=true", "prune.epochs=[1]", "prune.keep_ratio=0.001", "name=mine")
    assert_refused(answer, "prune.keep_ratio: got 0.001")


def test_resume_of_a_finished_run_tells_its_figures(ramify: CommandLine) -> None:
    first = ramify("train", *TINY, "name=mine", "--quiet")
    again = ramify("train", "--resume", "mine")
    assert again.code == 0
    assert again.out == first.out


def test_runs_dir_is_one_place_for_every_verb(ramify: CommandLine) -> None:
    assert ramify("train", *TINY, "name=mine", "--runs_dir", "here", "--quiet").code == 0
    assert Path("here/mine/summary.json").exists()
    assert ramify("info", "mine", "--runs_dir", "here").code == 0
    assert ramify("evaluate", "mine", "--runs_dir", "here").code == 0
    assert ramify("info", "here/mine").code == 0


def test_config_prints_what_a_run_would_do(ramify: CommandLine) -> None:
    Path("mine.yaml").write_text("train:\n  epochs: 100\n")
    answer = ramify("config", "mine.yaml", "network.structure=[1,0]")
    assert "epochs: [40]" in answer.out
    Path("again.yaml").write_text(answer.out)
    assert ramify("config", "again.yaml").out == answer.out
    assert json.loads(ramify("config", "mine.yaml", "--json").out)["train"]["epochs"] == 100


def test_config_keys_names_every_key_with_default_and_meaning(ramify: CommandLine) -> None:
    text = ramify("config", "--keys").out
    rows = json.loads(ramify("config", "--keys", "--json").out)
    assert len(rows) > 35
    for row in rows:
        assert row["key"] in text
        assert row["accepts"] in text
        assert row["meaning"] in text


def test_data_counts_the_pictures(ramify: CommandLine) -> None:
    assert "digits: 1,438 training, 359 test pictures, gray, 8 x 8 pixels, 10 classes" in ramify("data").out
    counted = json.loads(ramify("data", "--json").out)
    assert sum(counted["train"]) + sum(counted["test"]) == 1797


def picture_folder(path: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 6) -> Path:
    for shade, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for i in range(each):
            Image.new("RGB", (9, 12), (100 * shade, 10 * i, 0)).save(path / name / f"{i}.png")
    return path


def test_an_image_folder_from_start_to_end(ramify: CommandLine) -> None:
    picture_folder(Path("pets"))
    given = [text for text in TINY if not text.startswith(("data.limit", "data.batch_size"))]
    assert ramify("train", *given, "data.source=pets", "data.batch_size=4", "data.valid_fraction=0.3").code == 0
    assert ramify("evaluate", "pets-iterative").code == 0
    assert "12" in ramify("data", "data.source=pets").out


REFUSED = [
    (("train", "train.epoch=3"), "unknown key train.epoch; nearest known key: train.epochs"),
    (("train", "network.structure=[0,2]"), "network.structure: got [0, 2]; accepted: a list of 0 and 1"),
    (("train", "network.structure=[]"), "network.structure: got []; accepted: a list of 0 and 1"),
    (("train", "growth.epochs=[9,5,12]"), "growth.epochs: got [9, 5, 12]; accepted: epochs in rising order"),
    (("train", "growth.epochs=[5,9,99]"), "accepted: epochs from 2 to train.epochs"),
    (("train", "growth.epochs=[5]"), "growth.epochs: got [5]; accepted: a list of 3"),
    (("train", "growth.epochs=[5,6,7,8]"), "growth.epochs: got [5, 6, 7, 8]; accepted: a list of 3"),
    (("train", "train.gammas=[0.1]", "train.milestones=[5,9]"), "train.gammas: got [0.1]; accepted: a list of 2"),
    (("train", "train.learning_rate=-1"), "train.learning_rate: got -1; accepted: a number > 0"),
    (("train", "train.learning_rate=fast"), "train.learning_rate: got 'fast'; accepted: a number > 0"),
    (("train", "data.source=nowhere/at/all"), "'nowhere/at/all', which is neither a known name nor a path"),
    (("train", "missing.yaml"), "missing.yaml: got a file that does not exist"),
    (("train", "--resume", "nothing"), "got 'nothing', which is no run in runs"),
    (("train", "--resume", "nothing", "train.epochs=3"), "accepted: --resume NAME alone"),
    (("train", "--minutes", "1", "--rescale", "3"), "--minutes: got --rescale beside it"),
    (("train", "--minutes", "0"), "minutes: got 0; accepted: a finite number > 0"),
    (("train", "--minutes", "inf"), "minutes: got inf; accepted: a finite number > 0"),
    (("info", "nothing"), "got 'nothing', which is no run in runs"),
    (("evaluate", "nothing"), "got 'nothing', which is no run in runs"),
    (("config", "prune.enabled=maybe"), "prune.enabled: got 'maybe'; accepted: true, false"),
    (("train", "prune.enabled=true"), "prune.epochs: got []; accepted: at least one epoch, as prune.enabled is true"),
    (("train", "prune.keep_ratio=1.5"), "prune.keep_ratio: got 1.5; accepted: a number in (0, 1]"),
    (("train", "prune.keep_ratio=[0.5,0.5]"), "prune.keep_ratio: got [0.5, 0.5]; accepted: one number, or a list of 4"),
    (
        ("train", "prune.enabled=true", "prune.policy=skip_layer", "prune.epochs=[2,3]"),
        "prune.epochs: got [2, 3]; accepted: epoch 5 or later for pruning 2, as stage 2 grows then",
    ),
    (
        ("train", "prune.enabled=true", "prune.policy=skip_layer", "prune.epochs=[2,9,13,14,15]"),
        "prune.epochs: got [2, 9, 13, 14, 15]; accepted: at most 4",
    ),
    (
        ("train", "prune.enabled=true", "prune.epochs=[2]", "prune.keep_ratio=[0.5,0.5,0.5,0.5]"),
        "accepted: one number, as policy normal ranks the whole network at once",
    ),
    (
        ("train", "prune.enabled=true", "prune.epochs=[2]", "prune.unit=channel", "network.cell=skip_second"),
        "prune.unit: got 'channel'; accepted: weight",
    ),
    (("prune", "nothing"), "got 'nothing', which is no run in runs"),
    (("report", "nothing"), "got 'nothing', which is no run in runs"),
]


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED)
def test_bad_input_is_refused_in_one_sentence(ramify: CommandLine, arguments: tuple[str, ...], sentence: str) -> None:
    assert_refused(ramify(*arguments), sentence)
    assert not Path("runs").exists()


def test_a_folder_with_one_class(ramify: CommandLine) -> None:
    picture_folder(Path("pets"), ("cat",))
    assert_refused(ramify("train", "data.source=pets"), "pets: got the one class cat; accepted: at least 2 classes")


def test_an_empty_class_is_named(ramify: CommandLine) -> None:
    picture_folder(Path("pets"))
    Path("pets/eel").mkdir()
    assert_refused(ramify("train", "data.source=pets"), "pets: class eel has no training pictures")


def test_a_picture_that_cannot_be_decoded_is_named(ramify: CommandLine) -> None:
    picture_folder(Path("pets"))
    Path("pets/cat/3.png").write_bytes(b"this is no picture")
    assert_refused(ramify("train", "data.source=pets"), "pets/cat/3.png: cannot be decoded (not a picture)")


def test_a_damaged_checkpoint_is_refused_by_every_reader(ramify: CommandLine) -> None:
    trained("name=mine")
    for folder in ("best", "last"):
        path = Path("runs/mine", folder, "model.safetensors")
        blob = bytearray(path.read_bytes())
        blob[-10] ^= 4
        path.write_bytes(blob)
    Path("runs/mine/summary.json").unlink()
    for arguments in (("info", "mine"), ("evaluate", "mine"), ("train", "--resume", "mine")):
        assert_refused(ramify(*arguments), "model.safetensors: is damaged (its checksum does not match)")


def test_a_checkpoint_of_a_later_format_is_refused(ramify: CommandLine) -> None:
    trained("name=mine")
    path = Path("runs/mine/best/model.json")
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    assert_refused(ramify("info", "mine"), "got format 2, written by ramify")


def test_a_run_in_use_is_refused(ramify: CommandLine) -> None:
    trained("name=mine")
    with locked(Path("runs/mine")):
        assert_refused(ramify("train", *TINY, "name=mine", "--overwrite"), "in use by another process")
        assert_refused(ramify("train", "--resume", "mine"), "in use by another process")


def test_a_loss_that_is_no_number_fails_the_run(ramify: CommandLine) -> None:
    answer = ramify("train", *TINY, "train.milestones=[3]", "train.gammas=[1e30]", "name=mine")
    assert_refused(answer, "epoch 3: the loss is", code=1)
    assert ramify("info", "mine").code == 0
    # Steps of one size leave the loss of the only step finite.
    diverging = ("train.optimizer=normed_muon", "train.learning_rate=1e30", "data.batch_size=100")
    assert_refused(ramify("train", *TINY, *diverging, "name=other"), "the validation loss is nan", code=1)


def test_a_name_that_is_taken_is_refused_before_minutes_are_measured(
    ramify: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained("name=mine")

    def short_run(*_: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr("ramify.training.minutes.short_run", short_run)
    assert_refused(ramify("train", "name=mine", "--minutes", "1"), "name: got mine, a run that exists in runs")
    trained("name=mine-seed1")
    refused = ramify("train", "name=mine", "--minutes", "1", "--repeats", "2")
    assert_refused(refused, "name: got mine-seed1, a run that exists in runs")


def test_the_keyboard_stops_a_run_that_can_go_on(ramify: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ramify.training.loop.evaluate", interrupted)
        answer = ramify("train", *TINY, "name=mine")
    assert_refused(answer, "stopped from the keyboard; go on with: ramify train --resume mine", code=1)
    assert ramify("train", "--resume", "mine").code == 0


def test_a_disk_that_fills_up_fails_the_run_and_keeps_the_last_checkpoint(ramify: CommandLine, tmp_path: Path) -> None:
    """A real refusal by the system: no file may exceed a size that only the grown network needs."""

    def train_with_little_space(output: Path) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (96 * 1024, 96 * 1024))
        command_line(output, "train", *TINY, "name=mine", "network.channels=16", "train.threads=1")

    process = forked(train_with_little_space, tmp_path / "output")
    process.join()
    written = (tmp_path / "output").read_text().splitlines()
    assert process.exitcode == 1, written
    assert "cannot be written (File too large)" in written[-1]
    assert [line for line in written if line.startswith(("error", "Traceback"))] == written[-1:]
    answer = ramify("info", "mine")
    assert answer.code == 0
    assert "under way: epoch" in answer.out
    assert ramify("train", "--resume", "mine").code == 0


def test_no_arguments_show_the_commands() -> None:
    done = subprocess.run([sys.executable, "-m", "ramify"], capture_output=True, text=True, timeout=60, check=False)
    for verb in ("train", "info", "evaluate", "data", "config"):
        assert verb in done.stdout


@pytest.mark.parametrize(
    ("given", "demo"),
    [
        ((), True),
        (("name=x", "seed=3", "train.threads=1"), True),
        (("train.epochs=20",), False),
        (("cpu-cifar",), False),
    ],
)
def test_the_demo_is_trained_where_nothing_says_what_to_train(
    given: tuple[str, ...], demo: bool, ramify: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Config] = []

    def stop(config: Config, *_: object, **__: object) -> None:
        asked.append(config)
        raise RunError("enough")

    monkeypatch.setattr("ramify.training.run.train", stop)
    assert ramify("train", *given).code == 1
    network = read_config([presets()["digits"]]).network
    assert (asked[0].network == network) is demo
