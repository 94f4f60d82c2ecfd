"""Growth in runs: by loss, in a plan of deeper and wider, from each start, frozen or not."""

from pathlib import Path

import pytest
import torch

from ramify.config.read import read_config
from ramify.errors import RunError
from ramify.nn.network import Network
from ramify.run.checkpoint import read_model, read_trainer
from ramify.run.distributed import ALONE
from ramify.run.events import EpochDone, Event, Grew, GrowthEnded, Widened
from ramify.run.folder import read_lines
from ramify.run.readback import describe
from ramify.run.saved import load
from ramify.training.prepare import prepare_run
from ramify.training.run import resume, train
from ramify.training.state import State, restore
from tests.conftest import CommandLine, tiny

LOSS = ("growth.mode=loss", "growth.epochs=null", "growth.patience=1", "growth.min_epochs=1", "growth.until=0.8")


def watched(*overrides: str) -> list[Event]:
    seen: list[Event] = []
    train(tiny(*overrides), [seen.append])
    return seen


def test_growth_by_loss_says_why() -> None:
    seen = watched("name=mine", *LOSS, "train.epochs=10", "growth.min_improvement=0.0")
    grew = [event for event in seen if isinstance(event, Grew)]
    assert grew
    assert all("no improvement by" in event.reason or "have passed" in event.reason for event in grew)
    lines = [line for line in read_lines(Path("runs/mine/events.jsonl")) if line["event"] == "grew"]
    assert [line["reason"] for line in lines] == [event.reason for event in grew]
    assert describe(Path("runs/mine")).finished


def test_growth_that_does_not_pay_ends() -> None:
    rule = ("growth.min_improvement=0.9", "growth.max_epochs=2", "train.epochs=8")
    seen = watched("name=mine", *LOSS, *rule)
    [ended] = [event for event in seen if isinstance(event, GrowthEnded)]
    assert "growth no longer pays" in ended.reason
    summary = describe(Path("runs/mine"))
    assert len(summary.exits) == 2 < summary.exits_planned
    best = [line for line in read_lines(Path("runs/mine/events.jsonl")) if line["event"] == "best"]
    assert best
    assert int(str(best[0]["epoch"])) >= ended.epoch


def test_a_network_that_stopped_growing_is_pruned_and_calibrated(ramify: CommandLine) -> None:
    train(tiny("name=mine", *LOSS, "growth.min_improvement=0.9", "growth.max_epochs=2", "train.epochs=8"))
    assert ramify("prune", "mine", "train.epochs=1", "-q").code == 0
    assert ramify("calibrate", "mine", "--max_drop", "0.1").code == 0
    assert ramify("convert", "mine", "--cut", "1", "-q").code == 0


def test_the_loss_rule_survives_a_stop() -> None:
    changes = (*LOSS, "growth.min_improvement=0.0", "train.epochs=8")
    whole = train(tiny("name=whole", *changes))

    def stop(event: Event) -> None:
        if isinstance(event, EpochDone) and event.epoch == 4:
            raise RunError("stopped")

    with pytest.raises(RunError, match="stopped"):
        train(tiny("name=parts", *changes), [stop])
    again = resume(Path("runs/parts"))
    for name in ("model", "trainer"):
        tensors = [Path("runs", run, "last", f"{name}.safetensors").read_bytes() for run in ("whole", "parts")]
        assert tensors[0] == tensors[1]
    assert [each.test for each in again.exits] == [each.test for each in whole.exits]


@pytest.mark.parametrize("init", ["random", "identity", "copy"])
@pytest.mark.parametrize("kind", ["iterative", "dense"])
def test_each_start(init: str, kind: str) -> None:
    seen = watched(f"growth.init={init}", f"network.kind={kind}", "name=mine")
    grew = [event for event in seen if isinstance(event, Grew)]
    # The second growth brings the final classifier alone, without a cell to copy.
    assert [event.growth.init for event in grew] == [init, "random" if init == "copy" else init]
    epochs = [event for event in seen if isinstance(event, EpochDone)]
    assert epochs[0].gradient_parity is None
    assert all(event.gradient_parity is not None and event.gradient_parity > 0 for event in epochs[1:])
    network = load("mine")
    assert isinstance(network, Network)
    assert network.complete
    assert network.config.final == ("mixed" if init == "identity" else None)


def test_identity_keeps_what_was_learned() -> None:
    """The new exit starts where the one before it was, so its first loss is below that of a random one."""
    losses: dict[str, float] = {}
    for init in ("identity", "random"):
        seen = watched(f"growth.init={init}", "train.epochs=6", "growth.epochs=[5,6]", f"name={init}")
        fifth = next(event for event in seen if isinstance(event, EpochDone) and event.epoch == 5)
        losses[init] = fifth.exits[1].train.loss
    assert losses["identity"] < losses["random"]


def test_a_stage_that_changes_the_map_starts_at_random() -> None:
    changes = ("data.size=16", "data.limit=60", "network.cells=mobilenet", "network.exits_at=[0.2,0.5]")
    seen: list[Event] = []
    train(read_config(overrides=[*changes, "train.epochs=3", "growth.init=identity", "name=mine"]), [seen.append])
    assert {event.growth.init for event in seen if isinstance(event, Grew)} == {"random"}


def test_a_plan_of_deeper_and_wider() -> None:
    plan = "growth.plan=[wider,deeper,wider:1,deeper]"
    seen = watched("name=mine", plan, "growth.epochs=[2,3,4,5]", "train.epochs=6", "growth.widen=3")
    kinds = [type(event).__name__ for event in seen if isinstance(event, Grew | Widened)]
    assert kinds == ["Widened", "Grew", "Widened", "Grew"]
    network, card = read_model(Path("runs/mine/best"))
    assert isinstance(network, Network)
    assert [cell.inner_channels for stage in network.plans for cell in stage.cells] == [10, 4, 4]
    assert card.grown == ((1, 3), (2, 5))


def test_a_widened_run_that_was_stopped_goes_on_bitwise() -> None:
    changes = ("growth.plan=[wider,deeper,deeper]", "growth.epochs=[2,3,4]", "train.epochs=5", "train.optimizer=adamw")
    train(tiny("name=whole", *changes))

    def stop(event: Event) -> None:
        if isinstance(event, EpochDone) and event.epoch == 3:
            raise RunError("stopped")

    with pytest.raises(RunError, match="stopped"):
        train(tiny("name=parts", *changes), [stop])
    resume(Path("runs/parts"))
    for name in ("model", "trainer"):
        tensors = [Path("runs", run, "last", f"{name}.safetensors").read_bytes() for run in ("whole", "parts")]
        assert tensors[0] == tensors[1]


def old_parts(run: str) -> dict[str, torch.Tensor]:
    state = read_model(Path("runs", run, "last"))[0].state_dict()
    return {name: value for name, value in state.items() if name.startswith(("stem", "stages.0"))}


@pytest.mark.parametrize(("freeze", "same"), [("none", False), ("before", True), ("until_next", True)])
def test_what_is_frozen_stays_bitwise(freeze: str, same: bool) -> None:
    """Between the first growth and the second, stages before the newest stand still if they are frozen."""
    changes = ("growth.epochs=[2,5]", "train.epochs=6", f"growth.freeze={freeze}")
    found: dict[int, dict[str, torch.Tensor]] = {}

    def look(event: Event) -> None:
        if isinstance(event, EpochDone):
            found[event.epoch] = old_parts("mine") | {}

    train(tiny("name=mine", *changes), [look])
    assert all(torch.equal(found[1][name], found[3][name]) for name in found[1]) is same
    after = all(torch.equal(found[4][name], found[6][name]) for name in found[1])
    assert after is (freeze == "before")


def test_growing_every_so_many_epochs() -> None:
    seen = watched("name=mine", "growth.every=2", "growth.epochs=null", "train.epochs=6")
    assert [event.epoch for event in seen if isinstance(event, Grew)] == [3, 5]


def test_a_growth_that_is_not_due_changes_nothing() -> None:
    """A loss rule that never grows leaves the run bitwise as one that is never asked."""
    never = tiny("name=never", *LOSS, "growth.until=0.25", "growth.patience=9", "network.structure=[1,0]")
    alone = tiny("name=alone", "network.structure=[1,0]", "growth.epochs=[4]", "growth.freeze=none")
    seen: dict[int, bytes] = {}

    def look(event: Event) -> None:
        if isinstance(event, EpochDone):
            seen[event.epoch] = Path("runs/alone/last/model.safetensors").read_bytes()

    train(alone, [look])
    others: dict[int, bytes] = {}

    def look_at_the_other(event: Event) -> None:
        if isinstance(event, EpochDone):
            others[event.epoch] = Path("runs/never/last/model.safetensors").read_bytes()

    train(never, [look_at_the_other])
    assert [seen[epoch] == others[epoch] for epoch in (1, 2, 3)] == [True, True, True]


def test_clipping_reaches_the_newcomers() -> None:
    """With a tiny norm nothing moves far, whatever was grown."""
    train(tiny("name=mine", "train.clip=1e-9", "train.weight_decay=0"))
    fresh = read_model(Path("runs/mine/last"))[0]
    config = read_config([Path("runs/mine/config.yaml")])
    born = Network(config.network, stages=3, seed=config.seed)
    for (name, weight), (_, first) in zip(fresh.named_parameters(), born.named_parameters(), strict=True):
        torch.testing.assert_close(weight, first, rtol=0, atol=1e-6, msg=name)


def test_the_state_is_saved_whole() -> None:
    config = tiny("name=mine", *LOSS, "growth.min_improvement=0.0", "train.epochs=6")
    train(config)
    kept, where, parts = prepare_run(read_config([Path("runs/mine/config.yaml")]), ALONE)
    state: State = restore(kept, where, parts, Path("runs/mine"))
    assert len(state.losses) == 6
    grew = [int(str(line["epoch"])) for line in read_lines(Path("runs/mine/events.jsonl")) if line["event"] == "grew"]
    assert list(state.growth_epochs) == grew
    assert read_trainer(Path("runs/mine/last"), state.network, state.optimizer).epoch == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("growth.mode=loss", "data.valid_fraction=0"), "growth.mode: got 'loss'; accepted: scheduled, as there is no"),
        (("growth.plan=[deeper,deeper,deeper,deeper]",), "deeper, deeper]; accepted: 3 times deeper"),
        (("growth.plan=[deeper,wider:7,deeper,deeper]",), "accepted: wider:1 to wider:2 at that place"),
        (
            ("growth.plan=[deeper,sideways,deeper]",),
            "got [deeper, sideways, deeper]; accepted: a list of deeper, wider",
        ),
        (("growth.every=2", "growth.epochs=[3,5,7]"), "growth.every: got 2; accepted: null, as growth.epochs is given"),
        (
            ("growth.init=identity", "growth.epochs=[5,9,13]", "prune.enabled=true", "prune.epochs=[9]"),
            "prune.epochs: got [9]; accepted: epochs other than 9, when a stage grows",
        ),
        (("growth.every=20",), "train.epochs: got 30; accepted: at least 61"),
        (("growth.mode=loss", "growth.epochs=[3,5,7]"), "growth.epochs: got [3, 5, 7]; accepted: null"),
        (("network.cell=skip_second", "growth.plan=[wider,deeper,deeper,deeper]"), "growth.plan: got"),
        (
            ("growth.mode=loss", "prune.enabled=true", "prune.epochs=[20]", "prune.policy=skip_layer"),
            "prune.policy: got 'skip_layer'; accepted: normal, gradual, iterative",
        ),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(ramify: CommandLine, changes: tuple[str, ...], message: str) -> None:
    answer = ramify("train", *changes)
    assert answer.code == 2
    assert message in answer.err


def test_a_run_that_grows_every_so_many_epochs_is_read_back() -> None:
    summary = train(tiny("name=often", "growth.epochs=null", "growth.every=1"))
    assert [stage.grown for stage in describe(Path(summary.folder)).stages] == [None, 2, 3]
    assert resume(Path(summary.folder)) == summary
