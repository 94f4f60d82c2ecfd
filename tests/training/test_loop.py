"""A run from start to end: what it does, in what order, and what it leaves behind."""

import itertools
import json
from pathlib import Path

import pytest
import torch

from ramify.config.read import read_config
from ramify.config.rules import resolve
from ramify.data.sources import load_pictures
from ramify.errors import ConfigError, InputError, RunError
from ramify.run.checkpoint import read_model
from ramify.run.derive import fit_to
from ramify.run.device import place_of
from ramify.run.evaluate import evaluate
from ramify.run.events import EpochDone, Event, Finished, Grew, NewBest, Started, StepDone
from ramify.run.folder import locked, read_lines, read_summary
from ramify.run.pictures import split_parts
from ramify.training.loop import depth_weighted
from ramify.training.run import train
from tests.conftest import tiny


@pytest.mark.parametrize("kind", ["dense", "iterative", "full_ic", "full"])
@pytest.mark.parametrize("cell", ["basic", "skip_second"])
def test_every_kind_trains_and_is_kept(kind: str, cell: str) -> None:
    summary = train(tiny(f"network.kind={kind}", f"network.cell={cell}"))
    folder = Path(summary.folder)
    assert sorted(entry.name for entry in folder.iterdir() if entry.name != ".lock") == [
        "best",
        "config.yaml",
        "events.jsonl",
        "last",
        "manifest.csv",
        "manifest.sha256",
        "metrics.jsonl",
        "summary.json",
    ]
    assert sorted(entry.name for entry in (folder / "best").iterdir()) == ["model.json", "model.safetensors"]
    assert sorted(entry.name for entry in (folder / "last").iterdir()) == [
        "model.json",
        "model.safetensors",
        "trainer.json",
        "trainer.safetensors",
    ]
    assert read_summary(folder) == summary
    exits = 1 if kind == "full" else 3
    assert len(summary.exits) == len(summary.stages) == exits
    grown = [stage.grown for stage in summary.stages]
    assert grown == ([None, 2, 3] if kind in ("dense", "iterative") else [None] * exits)


def test_the_events_come_in_the_order_that_is_promised() -> None:
    seen: list[Event] = []
    summary = train(tiny(), [seen.append])
    without_steps = [type(event) for event in seen if not isinstance(event, StepDone | NewBest)]
    assert without_steps == [Started, EpochDone, Grew, EpochDone, Grew, EpochDone, EpochDone, Finished]
    assert [event.epoch for event in seen if isinstance(event, Grew)] == [2, 3]
    assert [len(event.exits) for event in seen if isinstance(event, EpochDone)] == [1, 2, 3, 3]
    assert seen[-1] == Finished(summary)
    steps = [event for event in seen if isinstance(event, StepDone) and event.epoch == 1]
    assert [(step.done, step.total) for step in steps] == [(32, 100), (64, 100), (96, 100), (100, 100)]
    assert all(event.epoch >= 3 for event in seen if isinstance(event, NewBest))


def test_an_epoch_takes_as_many_pictures_as_asked() -> None:
    seen: list[Event] = []
    train(tiny("data.epoch_pictures=50", "data.batch_size=16", "train.schedule=linear"), [seen.append])
    steps = [(event.epoch, event.done, event.total) for event in seen if isinstance(event, StepDone)]
    assert steps == [(epoch, done, 50) for epoch in (1, 2, 3, 4) for done in (16, 32, 48, 50)]
    rates = [event.learning_rate for event in seen if isinstance(event, EpochDone)]
    assert rates[-1] == pytest.approx(rates[0] / 3 / 50, rel=0.2)  # the schedule ends with the last picture


def test_the_lines_on_disk_are_the_events() -> None:
    seen: list[Event] = []
    folder = Path(train(tiny(), [seen.append]).folder)
    epochs = [event for event in seen if isinstance(event, EpochDone)]
    lines = read_lines(folder / "metrics.jsonl")
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    for line, epoch in zip(lines, epochs, strict=True):
        assert line["loss"] == epoch.loss
        exits = line["exits"]
        assert isinstance(exits, list)
        assert [exit_line["valid"]["top1"] for exit_line in exits] == [e.valid.top1 for e in epoch.exits if e.valid]
        assert {"learning_rate", "seconds", "pictures_per_second", "density", "stages"} <= line.keys()
    kinds = [(line["event"], line["epoch"]) for line in read_lines(folder / "events.jsonl")]
    assert [pair for pair in kinds if pair[0] != "best"] == [("grew", 2), ("grew", 3), ("finished", 4)]


def test_the_best_epoch_has_the_highest_depth_weighted_validation_accuracy() -> None:
    seen: list[Event] = []
    summary = train(tiny("train.epochs=8"), [seen.append])
    grown = [event for event in seen if isinstance(event, EpochDone) and event.epoch >= 3]
    scores = {
        event.epoch: depth_weighted([figures.valid for figures in event.exits if figures.valid]) for event in grown
    }
    assert scores[summary.epoch] == max(scores.values())
    assert read_model(Path(summary.folder) / "best")[1].epoch == summary.epoch


def test_the_last_epoch_is_kept_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    falling = itertools.count(start=0, step=-1)
    monkeypatch.setattr("ramify.training.loop.depth_weighted", lambda scores: next(falling))
    best, last = (train(tiny(f"train.keep={keep}")) for keep in ("best", "last"))
    assert (best.epoch, last.epoch) == (3, 4)
    with pytest.raises(InputError, match=r"train\.patience"):
        tiny("train.keep=last", "train.patience=2")


def test_depth_weighting_counts_deeper_exits_more() -> None:
    from ramify.run.evaluate import Score

    assert depth_weighted([Score(0, 1.0), Score(0, 0.0), Score(0, 0.5)]) == pytest.approx((1 + 0 + 1.5) / 6)


def test_figures_are_those_of_the_saved_network_on_pictures_as_they_are() -> None:
    """Validation and test are measured without augmentation, on the parts of the one seeded split."""
    config = resolve(tiny())
    summary = train(config)
    network, card = read_model(Path(summary.folder) / "best")
    parts = split_parts(config, load_pictures(config.data))
    assert tuple(evaluate(network, parts.valid)) == card.valid == tuple(each.valid for each in summary.exits)
    assert evaluate(network, parts.test) == [each.test for each in summary.exits]
    assert summary.pictures == parts.counts


def test_the_test_pictures_are_read_once_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny()
    test = load_pictures(config.data).test
    reads: list[str] = []

    def spy(network: object, part: object, *more: object) -> object:
        images = part.images  # type: ignore[attr-defined]
        reads.append("test" if images.shape == test.images.shape and torch.equal(images, test.images) else "valid")
        return evaluate(network, part, *more)  # type: ignore[arg-type]

    for module in ("loop", "outcome"):
        monkeypatch.setattr(f"ramify.training.{module}.evaluate", spy)
    train(config)
    assert reads == ["valid"] * 4 + ["test"]


def test_the_split_holds_no_picture_twice_and_depends_on_the_seed_alone() -> None:
    config = tiny()
    pictures = load_pictures(config.data)
    first, again = split_parts(config, pictures), split_parts(config, pictures)
    other = split_parts(tiny("seed=1"), pictures)
    assert torch.equal(first.valid.images, again.valid.images)
    assert not torch.equal(first.valid.images, other.valid.images)
    assert len(first.train) + len(first.valid) == len(pictures.train)


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    weights = [
        Path(train(tiny(f"seed={seed}", f"name={name}")).folder, "last", "model.safetensors").read_bytes()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert weights[0] == weights[1] != weights[2]


def test_the_learning_rate_follows_its_milestones_in_every_group() -> None:
    seen: list[Event] = []
    train(tiny("train.milestones=[2,4]", "train.gammas=[0.5,0.1]"), [seen.append])
    rates = [event.learning_rate for event in seen if isinstance(event, EpochDone)]
    assert rates == pytest.approx([0.05, 0.025, 0.025, 0.0025])


def test_a_run_without_validation_keeps_its_last_epoch() -> None:
    summary = train(tiny("data.valid_fraction=0"))
    assert summary.epoch == 4
    assert all(each.valid is None and each.test is not None for each in summary.exits)


def test_bfloat16_trains() -> None:
    assert train(tiny("train.precision=bfloat16")).machine["precision"] == "bfloat16"


def test_the_network_knows_the_pictures_it_was_trained_on() -> None:
    config = tiny()
    network, card = read_model(Path(train(config).folder) / "best")
    images = split_parts(config, load_pictures(config.data)).train.images.double() / 255
    torch.testing.assert_close(network.mean.double(), images.mean(dim=(0, 2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(network.std.double(), images.std(dim=(0, 2, 3), correction=0), rtol=1e-5, atol=1e-6)
    assert card.classes == tuple("0123456789")
    assert card.network.input_shape == (1, 8, 8)


def test_the_resolved_configuration_is_kept_and_repeats_the_run() -> None:
    first = Path(train(tiny()).folder)
    config = read_config([first / "config.yaml"], ["name=again"])
    assert config.growth.epochs == (2, 3)
    assert config.network.classes == 10
    second = Path(train(config).folder)
    assert (first / "last/model.safetensors").read_bytes() == (second / "last/model.safetensors").read_bytes()


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint() -> None:
    with pytest.raises(RunError, match=r"epoch 3: the loss is (nan|inf).*epoch 2 is kept.*lower train\.learning_rate"):
        train(tiny("train.milestones=[3]", "train.gammas=[1e30]"))
    network, card = read_model(Path("runs/digits-iterative/last"))
    assert card.epoch == 2
    assert all(value.isfinite().all() for value in network.state_dict().values())
    assert not Path("runs/digits-iterative/summary.json").exists()


def test_a_loss_that_is_no_number_at_once_says_so() -> None:
    with pytest.raises(RunError, match="no epoch is kept yet"):
        train(tiny("train.learning_rate=1e30"))


def test_runs_without_a_name_are_numbered() -> None:
    names = [train(tiny("train.epochs=3", "growth.epochs=[2,3]")).name for _ in range(3)]
    assert names == ["digits-iterative", "digits-iterative-2", "digits-iterative-3"]


def test_a_name_that_is_taken_is_refused_unless_overwritten() -> None:
    train(tiny("name=mine"))
    with pytest.raises(
        ConfigError, match="name: got mine, a run that exists in runs; accepted: another name, --overwrite"
    ):
        train(tiny("name=mine", "seed=1"))
    assert train(tiny("name=mine", "seed=1"), overwrite=True).seed == 1


def test_a_run_stays_where_the_one_that_overwrites_it_cannot_begin() -> None:
    folder = Path(train(tiny("name=mine")).folder)
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    wrong = ["network.module=no_such_file:net", "network.kind=full_ic", "network.exits_at=[0.5]"]
    with pytest.raises(ConfigError, match="no_such_file"):
        train(read_config(overrides=["name=mine", "data.limit=60", "train.epochs=1", *wrong]), overwrite=True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files


def test_a_folder_that_is_no_run_is_never_overwritten() -> None:
    Path("runs/mine").mkdir(parents=True)
    Path("runs/mine/thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="runs/mine is there and no run"):
        train(tiny("name=mine"), overwrite=True)
    assert Path("runs/mine/thesis.txt").read_text() == "years of work"


def test_a_folder_left_by_a_run_that_died_at_once_is_taken() -> None:
    Path("runs/mine").mkdir(parents=True)
    Path("runs/mine/.lock").touch()
    assert train(tiny("name=mine")).name == "mine"


def test_a_run_that_another_process_works_on_is_left_alone() -> None:
    folder = Path(train(tiny("name=mine")).folder)
    with locked(folder), pytest.raises(InputError, match="in use by another process"):
        train(tiny("name=mine"), overwrite=True)
    assert read_summary(folder) is not None


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("network.classes=3", "network.classes: got 3; accepted: 10, as digits has it"),
        ("network.input_shape=[3,8,8]", r"network.input_shape: got \(3, 8, 8\); accepted: \(1, 8, 8\)"),
    ],
)
def test_a_network_that_does_not_fit_the_pictures(override: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        train(tiny(override))
    assert not Path("runs").exists()


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"train\.device: got 'cuda:99'; accepted: auto, cpu"):
        place_of(tiny("train.device=cuda:99"))


def test_what_the_pictures_say_is_filled_in() -> None:
    config = tiny()
    found = fit_to(config, load_pictures(config.data))
    assert (found.network.input_shape, found.network.classes) == ((1, 8, 8), 10)
    assert found.train.threads == 1
    assert fit_to(tiny("train.threads=3"), load_pictures(config.data)).train.threads == 3


def test_a_run_computes_with_its_threads_and_gives_them_back() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    train(
        tiny(f"train.threads={before + 1}", "train.epochs=1", "network.kind=full_ic"),
        [lambda event: seen.append(torch.get_num_threads())],
    )
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


def test_the_summary_is_plain_json() -> None:
    folder = Path(train(tiny()).folder)
    fields = json.loads((folder / "summary.json").read_text())
    assert fields["exits"][-1]["test"]["top1"] == pytest.approx(fields["exits"][-1]["test"]["top1"])
    assert fields["machine"]["threads"] == 1  # of small pictures, whatever the machine has
