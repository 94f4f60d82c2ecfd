"""Runs whose connections move while they learn: exact densities at every step, and the same bits when resumed."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ramify.nn.branching import Branching
from ramify.nn.masked import masked_layers
from ramify.ops.pruning.prune import layer_names
from ramify.ops.surgery import revived
from ramify.run.checkpoint import read_model
from ramify.run.derive import child_config
from ramify.run.events import EpochDone, Event, Grew, Observer, Pruned, StepDone, Widened
from ramify.run.folder import read_lines
from ramify.training.regrowing import Moves
from ramify.training.run import train
from ramify.training.state import begin
from tests.conftest import CommandLine, tiny, trained
from tests.training.test_resume import outcome, stop_at_each

RIGL = ("prune.enabled=true", "prune.policy=rigl", "prune.keep_ratio=0.3", "prune.interval=2")


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Branching]:
    """The network of the run that trains now."""
    states = []

    def spy(*arguments: object) -> object:
        states.append(begin(*arguments))  # type: ignore[arg-type]
        return states[-1]

    monkeypatch.setattr("ramify.training.run.begin", spy)
    return lambda: states[-1].network


def exact(network: Branching, keep: float) -> bool:
    """Whether each stage has exactly its share of connections, and no masked weight lives."""
    layers = masked_layers(network)
    kept = [sum(int(layers[name].mask.sum()) for name in layer_names(network, s)) for s in range(len(network.stages))]
    total = [sum(layers[name].mask.numel() for name in layer_names(network, s)) for s in range(len(network.stages))]
    return kept == [round(keep * each) for each in total] and revived(network) == 0


@pytest.mark.parametrize(
    "overrides",
    [
        ("network.kind=dense",),
        ("prune.policy=set", "train.optimizer=adamw", "train.learning_rate=0.005"),
        ("growth.init=identity", "prune.criterion=uniform"),
        ("growth.plan=[deeper,wider:1,deeper]", "growth.epochs=[2,3,4]", "growth.freeze=until_next"),
        ("growth.plan=[wider,deeper,deeper]", "growth.epochs=[2,3,4]", "growth.init=copy", "prune.compact=true"),
        ("growth.mode=loss", "growth.epochs=null", "growth.patience=1", "growth.min_epochs=1", "train.epochs=6"),
    ],
    ids=lambda overrides: " ".join(overrides),
)
def test_every_stage_has_its_density_at_every_step(
    overrides: tuple[str, ...], network: Callable[[], Branching]
) -> None:
    counts: dict[str, int] = {}
    seen: list[Event] = []

    def watch(event: Event) -> None:
        seen.append(event)
        if isinstance(event, Grew | Widened):
            counts.clear()  # a stage that is widened has others; those of the stages are compared in any case
        if isinstance(event, StepDone):
            assert exact(network(), 0.3)
            now = {name: int(layer.mask.sum()) for name, layer in masked_layers(network()).items()}
            assert all(now[name] == count for name, count in counts.items()), "a layer's count changed"
            counts.update(now)

    summary = train(tiny(*RIGL, *overrides), [watch])
    epochs = [event for event in seen if isinstance(event, EpochDone)]
    assert sum(sum(event.regrown.moved) for event in epochs if event.regrown) > 0
    changes = [event.epoch for event in seen if isinstance(event, Grew | Widened)]
    assert [event.epoch for event in seen if isinstance(event, Pruned)] == [1, *changes]
    for line, event in zip(read_lines(Path(summary.folder, "metrics.jsonl")), epochs, strict=True):
        assert (line["regrown"] is None) == (event.regrown is None)
        assert all(share == pytest.approx(0.3, abs=0.01) for share in event.density)


@pytest.mark.parametrize("optimizer", ["muon", "sgd"])
def test_the_average_has_the_masks_of_what_it_follows(
    optimizer: str, network: Callable[[], Branching], monkeypatch: pytest.MonkeyPatch
) -> None:
    followers: list[Branching] = []

    def spy(moves: Moves) -> None:
        followers[:] = moves._state.followers
        finish(moves)

    finish = Moves.finish
    monkeypatch.setattr(Moves, "finish", spy)

    def watch(event: Event) -> None:
        if isinstance(event, StepDone):
            [follower] = followers
            assert exact(network(), 0.3)
            assert revived(follower) == 0
            for name, layer in masked_layers(follower).items():
                assert torch.equal(layer.mask, masked_layers(network())[name].mask)

    together = ("train.exit_gradients=equilibrium", "train.trunk_first=1", "data.mixup=0.2")
    train(tiny(*RIGL, "train.ema=0.9", f"train.optimizer={optimizer}", *together), [watch])
    assert followers


def test_a_run_starts_to_move_when_it_is_told_to(network: Callable[[], Branching]) -> None:
    """After growth, say: dense until then, and sparse by the largest of its weights from then on."""
    seen: list[Event] = []
    weights: dict[str, torch.Tensor] = {}

    def watch(event: Event) -> None:
        seen.append(event)
        if isinstance(event, EpochDone) and event.epoch == 3:
            weights.update(
                {name: layer.weight.detach().abs().clone() for name, layer in masked_layers(network()).items()}
            )
        if isinstance(event, Pruned):
            assert exact(network(), 0.3)
            for name, layer in masked_layers(network()).items():
                assert layer.mask.all() or weights[name][layer.mask].min() >= weights[name][~layer.mask].max()

    train(tiny(*RIGL, "prune.epochs=[4]", "prune.until=1", "train.epochs=6"), [watch])
    assert [event.epoch for event in seen if isinstance(event, Pruned)] == [4]
    epochs = [event for event in seen if isinstance(event, EpochDone)]
    assert [min(event.density) == 1 for event in epochs] == [True, True, True, False, False, False]
    assert [event.regrown is None for event in epochs] == [True, True, True, False, False, False]


def test_frozen_stages_stay_bit_for_bit(network: Callable[[], Branching]) -> None:
    frozen: dict[str, torch.Tensor] = {}

    def watch(event: Event) -> None:
        now = {
            f"{prefix}.{name}": value
            for stage in range(len(network().stages) - 1)
            for prefix, module in network().stage_modules(stage).items()
            for name, value in module.state_dict().items()
        }
        if isinstance(event, Pruned):
            frozen.update({name: value.clone() for name, value in now.items()})
        elif isinstance(event, StepDone):
            assert all(torch.equal(now[name], value) for name, value in frozen.items())

    train(tiny(*RIGL, "growth.freeze=before", "prune.interval=1"), [watch])
    assert frozen


MOMENTS: dict[str, Callable[[Event], bool]] = {
    "right after masks were drawn": lambda event: isinstance(event, Pruned) and event.epoch == 2,
    "in the middle of an epoch": lambda event: isinstance(event, StepDone) and (event.epoch, event.done) == (3, 64),
    "between two epochs": lambda event: isinstance(event, EpochDone) and event.epoch == 2,
}


@pytest.mark.parametrize("policy", ["rigl", "set"])
def test_a_run_stopped_at_every_moment_ends_bitwise_equal(policy: str) -> None:
    given = (*RIGL, f"prune.policy={policy}", "train.momentum=0.8", "train.ema=0.9")
    whole = outcome(trained(*given, "name=whole"))
    stop_at_each(MOMENTS.values(), *given)
    assert outcome(Path("runs/stopped")) == whole


def test_what_another_run_left_goes_on_sparse() -> None:
    trained("name=mine")
    child = train(child_config(Path("runs/mine"), ["prune.policy=rigl", "prune.keep_ratio=0.4", "train.epochs=2"]))
    assert exact(read_model(Path(child.folder) / "last")[0], 0.4)
    # And one that is sparser than asked for gets more connections.
    again = train(child_config(Path(child.folder), ["prune.policy=set", "prune.keep_ratio=0.5", "train.epochs=2"]))
    assert exact(read_model(Path(again.folder) / "last")[0], 0.5)


def test_a_compiled_run_moves_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs read masks from where they are: none goes stale, and none is made for a move."""
    monkeypatch.setattr("ramify.training.step.BACKEND", "aot_eager")
    found: dict[bool, list[EpochDone]] = {}
    for compiled in (True, False):
        seen: list[EpochDone] = []

        def watch(event: Event, seen: list[EpochDone] = seen) -> None:
            if isinstance(event, EpochDone):
                seen.append(event)

        observer: Observer = watch
        train(tiny(*RIGL, f"train.compile={str(compiled).lower()}", f"name=compiled-{compiled}"), [observer])
        found[compiled] = seen
    assert [event.compilations for event in found[True]] == [1, 2, 3, 3]
    for one, other in zip(found[True], found[False], strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-2)
        assert one.regrown is not None or other.regrown is None
        assert one.revived == 0


def test_the_command_line_ends_at_the_density_asked_for(ramify: CommandLine) -> None:
    given = [*RIGL, "data.limit=120", "network.structure=[1,0]", "network.channels=4", "train.epochs=2", "name=cli"]
    answer = ramify("train", *given, "train.device=cpu")
    assert answer.code == 0, answer.err
    assert "pruned stage 1 by erk" in answer.out
    assert "moves of" in answer.out
    assert exact(read_model(Path("runs/cli/last"))[0], 0.3)
    keys = ramify("config", "--keys").out
    assert all(key in keys for key in ("prune.interval", "prune.fraction", "prune.until", "rigl", "uniform"))
    refused = ramify("train", *given, "prune.criterion=snip")
    assert refused.code == 2
    assert "accepted: erk, uniform, as policy rigl" in refused.err
