"""TensorBoard logs, read back by TensorBoard's own reader."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ramify.run.events import EpochDone, Event, Observer, StepDone
from ramify.run.folder import read_lines
from ramify.show.trackers.tensorboard import TensorBoardLog
from ramify.training.run import resume, train
from tests.conftest import tiny

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

CHANGES = ("prune.enabled=true", "prune.epochs=[4]", "prune.criterion=magnitude")


class Killed(BaseException):
    """Stands for kill -9."""


def kill_when(due: Callable[[Event], bool]) -> Observer:
    def observe(event: Event) -> None:
        if due(event):
            raise Killed

    return observe


class Read:
    """The logs in one folder."""

    def __init__(self, folder: Path) -> None:
        self.found = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0, "images": 0})
        self.found.Reload()
        self.tags = self.found.Tags()

    def scalar(self, tag: str) -> dict[int, float]:
        """By step; each stands there once."""
        values = self.found.Scalars(tag)
        assert len({each.step for each in values}) == len(values)
        return {each.step: each.value for each in values}

    def texts(self, tag: str) -> dict[int, str]:
        values = self.found.Tensors(f"{tag}/text_summary")
        assert len({each.step for each in values}) == len(values)
        return {each.step: each.tensor_proto.string_val[0].decode() for each in values}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs_dir = tmp_path_factory.mktemp("runs")
    summary = train(tiny(*CHANGES, "name=whole", f"runs_dir={runs_dir}"), [TensorBoardLog()])
    return Path(summary.folder)


def test_scalars_are_those_of_the_metrics(run: Path) -> None:
    lines = read_lines(run / "metrics.jsonl")
    whole = Read(run / "tensorboard")
    for tag, key in (
        ("training/weighted_loss", "loss"),
        ("training/learning_rate", "learning_rate"),
        ("training/pictures_per_second", "pictures_per_second"),
        ("network/stages", "stages"),
    ):
        assert whole.scalar(tag) == {line["epoch"]: pytest.approx(line[key]) for line in lines}
    parity = {line["epoch"]: line["gradient_parity"] for line in lines if line["gradient_parity"] is not None}
    assert whole.scalar("training/gradient_parity") == pytest.approx(parity)
    for number in (1, 2, 3):
        there = [json.loads(json.dumps(line)) for line in lines if len(line["exits"]) >= number]  # type: ignore[arg-type]
        read = Read(run / "tensorboard" / f"exit_{number}")
        for part in ("train", "valid"):
            for tag, key in (("accuracy", "top1"), ("loss", "loss")):
                wanted = {line["epoch"]: line["exits"][number - 1][part][key] for line in there}
                assert read.scalar(f"{tag}/{part}") == pytest.approx(wanted)
        wanted = {line["epoch"]: line["density"][number - 1] for line in there}
        assert read.scalar("network/density") == pytest.approx(wanted)


def test_weights_kept_step_where_the_network_grows_and_is_pruned(run: Path) -> None:
    kept = Read(run / "tensorboard").scalar("network/weights_kept")
    summary = json.loads((run / "summary.json").read_text())
    assert kept[4] == sum(kept for _, kept in summary["layers"].values())
    assert kept[1] < kept[2] < kept[3]
    assert kept[4] < kept[3]


def test_changes_are_told_as_text(run: Path) -> None:
    read = Read(run / "tensorboard")
    # At the last epoch the end is told as well, in a text of its own step.
    texts = [each.tensor_proto.string_val[0].decode() for each in read.found.Tensors("changes/text_summary")]
    assert texts[0] == "epoch 2: grew stage 2: 2 cells and its exit, + 1,216 weights"
    assert texts[1] == "epoch 3: grew stage 3: the final classifier, + 640 weights"
    assert texts[2].startswith("epoch 4: pruned stages 1 to 3 by magnitude: ")
    assert "finished" in texts[3]
    assert "channels: 4" in read.texts("configuration")[0]


def test_the_network_is_drawn_after_every_change(run: Path) -> None:
    images = Read(run / "tensorboard").found.Images("network")
    assert [each.step for each in images] == [1, 2, 3, 4]
    for each in images:
        picture = Image.open(io.BytesIO(each.encoded_image_string))
        assert picture.size == (each.width, each.height)
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 4


def test_the_run_is_in_the_hparams_tab_with_its_final_figures(run: Path) -> None:
    from tensorboard.plugins.hparams import metadata  # type: ignore[import-untyped] # has no stubs

    read = Read(run / "tensorboard")
    content = read.found.PluginTagToContent("hparams")
    experiment = metadata.parse_experiment_plugin_data(content[metadata.EXPERIMENT_TAG])
    names = [info.name.tag for info in experiment.metric_infos]
    start = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
    assert start.hparams["network.channels"].number_value == 4
    assert start.hparams["prune.enabled"].string_value == "true"
    assert metadata.SESSION_END_INFO_TAG in content
    summary = json.loads((run / "summary.json").read_text())
    last = summary["exits"][-1]
    finals = {name: read.scalar(name)[4] for name in names}
    assert finals["final/test_accuracy"] == pytest.approx(last["test"]["top1"])
    assert finals["final/weights_kept"] == last["kept"]
    # One folder for the run and one for each exit: nothing is written beside.
    assert sorted(path.name for path in (run / "tensorboard").iterdir() if path.is_dir()) == [
        "exit_1",
        "exit_2",
        "exit_3",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "due",
    [
        lambda event: isinstance(event, StepDone) and event.epoch == 1,
        lambda event: isinstance(event, StepDone) and (event.epoch, event.done) == (3, 64),
        lambda event: isinstance(event, EpochDone) and event.epoch == 2,
    ],
    ids=["in the first epoch", "after a growth", "between two epochs"],
)
def test_a_resumed_run_has_the_logs_of_one_never_stopped(run: Path, due: Callable[[Event], bool]) -> None:
    with pytest.raises(Killed):
        train(tiny(*CHANGES, "name=stopped"), [TensorBoardLog(), kill_when(due)])
    resume(Path("runs/stopped"), [TensorBoardLog()])
    timing = ("training/seconds", "training/pictures_per_second", "final/seconds", "training/memory_bytes")
    for place in ("", "exit_1", "exit_2", "exit_3"):
        one, other = Read(run / "tensorboard" / place), Read(Path("runs/stopped/tensorboard") / place)
        assert sorted(one.tags["scalars"]) == sorted(other.tags["scalars"])
        for tag in one.tags["scalars"]:
            if tag not in timing:
                assert one.scalar(tag) == other.scalar(tag), tag
    steps = [each.step for each in Read(Path("runs/stopped/tensorboard")).found.Tensors("changes/text_summary")]
    assert steps == [2, 3, 4, 4]


def test_logs_may_be_kept_elsewhere(tmp_path: Path) -> None:
    train(tiny("name=mine", "train.epochs=3"), [TensorBoardLog(tmp_path / "logs")])
    assert Read(tmp_path / "logs").scalar("network/stages") == {1: 1, 2: 2, 3: 3}
    assert not Path("runs/mine/tensorboard").exists()


@pytest.mark.slow
def test_a_run_with_a_parent_counts_the_weights_it_inherits(run: Path) -> None:
    from ramify.run.derive import child_config

    train(child_config(run, [f"runs_dir={Path.cwd()}", "name=child", "train.epochs=2"]), [TensorBoardLog()])
    kept = Read(Path("child/tensorboard")).scalar("network/weights_kept")
    summary = json.loads(Path("child/summary.json").read_text())
    assert kept[2] == sum(kept for _, kept in summary["layers"].values())
