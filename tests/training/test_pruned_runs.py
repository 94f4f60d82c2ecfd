"""Runs that prune while they train, and runs that prune what another run left."""

from pathlib import Path

import pytest
import torch

from ramify.errors import ConfigError, InputError, RunError
from ramify.nn.masked import masked_layers
from ramify.ops.pruning.saliency import SALIENCIES
from ramify.run.checkpoint import read_model
from ramify.run.derive import child_config
from ramify.run.events import EpochDone, Event, Pruned
from ramify.run.folder import read_lines
from ramify.run.latency import Latency
from ramify.run.readback import describe, remeasure
from ramify.run.saved import load
from ramify.run.summary import Receipt
from ramify.show.terminal.tables import compaction_sentence
from ramify.training.run import resume, train
from tests.conftest import tiny, trained

ITERATIVE = ("prune.enabled=true", "prune.policy=iterative", "prune.keep_ratio=0.6", "prune.min_ratio=0.3")

SKIP_LAYER = ("prune.enabled=true", "prune.policy=skip_layer")


def test_each_policy_is_reported_and_ends_at_its_density() -> None:
    cases = {
        "iterative": ([*ITERATIVE, "prune.epochs=[1,2,4]"], [0.3, 0.36, 0.6]),
        "skip_layer": (
            ["prune.enabled=true", "prune.policy=skip_layer", "prune.keep_ratio=[0.5,0.4]", "prune.epochs=[1,2,3]"],
            [0.5, 0.4, 0.4],
        ),
        "normal": (["prune.enabled=true", "prune.keep_ratio=0.4", "prune.epochs=[3]"], None),
    }
    for policy, (overrides, densities) in cases.items():
        seen: list[Event] = []
        summary = train(tiny(*overrides, f"name={policy}"), [seen.append])
        prunings = [event for event in seen if isinstance(event, Pruned)]
        lines = [line for line in read_lines(Path(summary.folder, "events.jsonl")) if line["event"] == "pruned"]
        assert [line["epoch"] for line in lines] == [event.epoch for event in prunings]
        assert [line["after"] for line in lines] == [event.pruning.after for event in prunings]
        if densities:
            assert [stage.density for stage in summary.stages] == pytest.approx(densities, abs=0.002)
        else:
            assert summary.exits[-1].kept == round(0.4 * summary.exits[-1].weights)


def test_the_best_epoch_comes_after_the_last_pruning() -> None:
    assert train(tiny(*ITERATIVE, "prune.epochs=[1,4]")).epoch == 4


def test_masked_weights_are_counted_every_epoch() -> None:
    summary = train(tiny(*ITERATIVE, "prune.epochs=[1,3]"))
    assert [line["revived"] for line in read_lines(Path(summary.folder, "metrics.jsonl"))] == [0, 0, 0, 0]


def test_a_run_stops_when_a_masked_weight_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ramify.training.epoch.revived", lambda network: 7)
    with pytest.raises(RunError, match="epoch 1: 7 masked weights are not zero any more"):
        train(tiny(*ITERATIVE, "prune.epochs=[1,3]"))


def test_the_scores_are_taken_on_seeded_pictures_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, ...]] = []
    original = SALIENCIES["snip"]

    def spy(network: object, batches: object, seed: int) -> object:
        seen.append(tuple(float(images.sum()) for images, _ in batches))  # type: ignore[attr-defined]
        return original(network, batches, seed)  # type: ignore[arg-type]

    monkeypatch.setitem(SALIENCIES, "snip", spy)
    for name in ("one", "two"):
        train(tiny(*ITERATIVE, "prune.epochs=[2]", "prune.batch_size=16", "prune.batches=3", f"name={name}"))
    assert len(seen[0]) == 3
    assert seen[0] == seen[1]


def test_a_saved_network_is_pruned_trained_on_and_kept_beside_its_parent() -> None:
    parent = train(tiny("name=mine"))
    config = child_config(Path("runs/mine"), ["prune.keep_ratio=0.3", "prune.criterion=snip", "train.epochs=2"])
    seen: list[Event] = []
    child = train(config, [seen.append])
    assert child.name == "mine-pruned"
    assert child.exits[-1].kept == round(0.3 * parent.exits[-1].weights)
    assert [stage.grown for stage in child.stages] == [stage.grown for stage in parent.stages]
    assert [type(event).__name__ for event in seen if isinstance(event, Pruned | EpochDone)] == [
        "Pruned",
        "EpochDone",
        "EpochDone",
    ]
    assert child.parent == "runs/mine"
    assert Path("runs/mine/summary.json").exists()


def test_a_run_never_overwrites_its_own_parent() -> None:
    trained("name=mine")
    before = Path("runs/mine/best/model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="name: got mine, the parent of this run; accepted: another name"):
        train(child_config(Path("runs/mine"), ["name=mine"]), overwrite=True)
    assert Path("runs/mine/best/model.safetensors").read_bytes() == before


def test_where_it_computes_is_no_wish_to_train() -> None:
    config = child_config(trained("name=mine"), ["train.threads=1", "train.device=cpu"], compact=True)
    assert (config.train.epochs, config.prune.enabled, config.train.threads) == (0, False, 1)


def test_a_parent_may_be_named_as_every_command_names_it() -> None:
    parent = trained("name=mine")
    for name in ("mine", str(parent / "best")):
        child = train(tiny(f"parent={name}", "seed=1", "train.epochs=1", "growth.epochs=null", "growth.mode=scheduled"))
        assert (Path(child.folder) / "manifest.csv").read_bytes() == (parent / "manifest.csv").read_bytes()
        with pytest.raises(ConfigError, match="name: got mine, the parent of this run"):
            train(tiny(f"parent={name}", "name=mine", "train.epochs=1", "growth.epochs=null"), overwrite=True)


def test_the_exits_of_a_child_have_their_full_weight_in_its_only_epoch() -> None:
    child = train(child_config(trained("name=mine"), ["train.epochs=1", "prune.enabled=false", "prune.epochs=[]"]))
    [line] = read_lines(Path(child.folder) / "metrics.jsonl")
    losses = [exit_["train"]["loss"] for exit_ in line["exits"]]  # type: ignore[attr-defined]
    assert line["loss"] == pytest.approx(0.5 * sum(losses[:-1]) + losses[-1], rel=0.2)


def test_a_single_picture_is_left_out_of_the_scores() -> None:
    pictures = train(tiny("name=first", "train.epochs=3")).pictures
    assert pictures is not None
    keys = ("prune.enabled=true", "prune.epochs=[3]", f"prune.batch_size={pictures[0] - 1}", "prune.batches=2")
    assert train(tiny("network.exit=both", *keys)).finished


def test_a_child_no_longer_needs_its_parent_once_it_has_begun() -> None:
    trained("name=mine")
    config = child_config(Path("runs/mine"), ["train.epochs=2"])
    whole = train(config.model_copy(update={"name": "whole"}))

    class Killed(BaseException):
        pass

    def kill(event: Event) -> None:
        if isinstance(event, Pruned):
            raise Killed

    with pytest.raises(Killed):
        train(config.model_copy(update={"name": "stopped"}), [kill])
    Path("runs/mine").rename("runs/elsewhere")
    again = resume(Path("runs/stopped"))
    assert again.exits == whole.exits
    assert (
        Path("runs/stopped/last/model.safetensors").read_bytes()
        == Path("runs/whole/last/model.safetensors").read_bytes()
    )


def test_a_parent_that_has_not_grown_is_refused() -> None:
    class Killed(BaseException):
        pass

    def kill(event: Event) -> None:
        if isinstance(event, EpochDone):
            raise Killed

    with pytest.raises(Killed):
        train(tiny("name=young"), [kill])
    assert not read_model(Path("runs/young/last"))[0].complete
    with pytest.raises(InputError, match="whose network has not fully grown"):
        train(child_config(Path("runs/young"), []))


CHANNELS = (
    "prune.enabled=true",
    "prune.unit=channel",
    "prune.keep_ratio=0.5",
    "prune.epochs=[3]",
    "prune.compact=true",
)


@pytest.mark.parametrize("kind", ["dense", "iterative", "full_ic", "full"])
def test_a_run_that_compacts_ends_with_a_smaller_network_that_answers_alike(kind: str) -> None:
    summary = train(tiny(*CHANNELS, f"network.kind={kind}"))
    found = summary.receipt
    assert found is not None
    assert found.removed > 0
    assert found.difference <= 1e-5
    assert all(small <= large for large, small in found.macs)
    assert found.macs[-1][1] < found.macs[-1][0]
    assert found.parameters == (found.parameters[0], summary.exits[-1].parameters)
    assert [each.batch for each in found.latencies] == [1, 64]
    folder = Path(summary.folder)
    images = torch.rand(20, 1, 8, 8)
    masked, small = load(folder / "best"), load(folder)
    torch.testing.assert_close(small(images), masked(images), rtol=0, atol=1e-5)
    assert sum(p.numel() for p in small.parameters()) == found.parameters[1]
    assert describe(folder) == summary
    exits = remeasure(folder).exits
    assert [each.test for each in exits] == [each.test for each in summary.exits]


def test_a_saved_network_is_compacted_alone() -> None:
    parent = train(tiny(*CHANNELS[:-1], "name=mine"))
    child = train(child_config(Path("runs/mine"), [], compact=True))
    assert child.name == "mine-compact"
    assert child.epochs == 0
    assert child.receipt is not None
    assert child.receipt.removed > 0
    assert [each.test for each in child.exits] == [each.test for each in parent.exits]
    assert [each.valid for each in child.exits] == [each.valid for each in parent.exits]


def test_a_compacted_network_is_pruned_and_trained_on() -> None:
    train(tiny(*CHANNELS, "name=mine"))
    child = train(child_config(Path("runs/mine"), ["prune.keep_ratio=0.5", "train.epochs=2", "train.device=cpu"]))
    small = load("mine")
    assert child.exits[-1].weights == sum(layer.weight.numel() for layer in masked_layers(small).values())
    assert child.exits[-1].kept == round(0.5 * child.exits[-1].weights)


def test_a_network_without_dead_channels_is_told_so() -> None:
    trained("name=mine")
    child = train(child_config(Path("runs/mine"), [], compact=True))
    assert child.receipt is not None
    assert child.receipt.removed == 0
    assert compaction_sentence(child.receipt).endswith("masked weights alone make nothing faster here")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (2.0, 1.0, "2.00 times as fast at batch 1"),
        (1.0, 1.0, "no faster at batch 1"),
        (1.0, 1.2, "no faster at batch 1"),
    ],
)
def test_faster_is_said_of_what_was_measured_alone(before: float, after: float, said: str) -> None:
    found = Receipt((0.5, 1.0), (10, 5), ((10, 5),), 3, 0, 1e-8, (Latency(1, before, after),), 1)
    assert said in compaction_sentence(found)
