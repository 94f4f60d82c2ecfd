"""A recorded step: each replay is a step, and a recording is dropped as soon as something it reads lies elsewhere."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ramify.config.rules import Config
from ramify.errors import ConfigError
from ramify.nn.branching import Branching
from ramify.training.cuda_graph import WARM_UP, Body, Recorder
from ramify.training.run import train
from ramify.training.state import State
from ramify.training.step import Step
from tests.conftest import tiny

CPU = torch.device("cpu")


class Tape:
    """Stands in for CUDA graphs: a replay calls what was recorded, if all it reads still lies where it lay."""

    def __init__(self, lies: Callable[[], object] = tuple) -> None:
        self.lies = lies
        self.recordings = self.replays = 0

    def __call__(self, body: Body, inputs: tuple[Tensor, ...]) -> tuple[Callable[[], None], Tensor]:
        self.recordings += 1
        known, found = self.lies(), torch.zeros(3, len(inputs[-1]))

        def replay() -> None:
            assert self.lies() == known
            self.replays += 1
            found.copy_(body(*inputs))

        return replay, found


def recorder(tape: Tape, body: Body, layer: nn.Module, reads: Callable[[], object] = tuple) -> Recorder:
    return Recorder(body, CPU, layer.parameters, reads, tape)


def test_each_call_is_one_step() -> None:
    layer, tape = nn.Linear(2, 1, bias=False), Tape()
    nn.init.zeros_(layer.weight)

    def body(x: Tensor) -> Tensor:
        with torch.no_grad():
            layer.weight += x
        return torch.zeros(3, len(x))

    step = recorder(tape, body, layer)
    for _ in range(WARM_UP + 4):
        step(torch.tensor([1.0, 2.0]))
    assert layer.weight.tolist() == [[WARM_UP + 4, 2 * (WARM_UP + 4)]]
    assert (tape.recordings, tape.replays) == (1, 4)


def test_each_shape_and_type_has_a_recording_of_its_own() -> None:
    tape = Tape()
    step = recorder(tape, lambda x: x.expand(3, -1).float(), nn.Identity())
    for given in (torch.ones(2), torch.ones(3), torch.ones(2, dtype=torch.int64)):
        for factor in range(WARM_UP + 2):
            assert torch.equal(step(factor * given), (factor * given).expand(3, -1).float())
    assert tape.recordings == 3


def test_recordings_are_dropped_when_what_they_read_moves() -> None:
    tape, lies = Tape(), [0]
    step = recorder(tape, lambda x: x.expand(3, -1), nn.Identity(), lambda: tuple(lies))
    for moved in (False, True):
        lies[0] += moved
        step.renew()
        for _ in range(WARM_UP + 1):
            step(torch.ones(2))
        step.renew()
        step(torch.ones(2))
    assert (tape.recordings, tape.replays) == (2, 4)


def addresses(network: Branching, optimizer: torch.optim.Optimizer) -> list[tuple[int, bool]]:
    """Of each tensor that a step can read, found without asking the code under test."""
    tensors = [*network.parameters(), *network.buffers()]
    tensors += [each for kept in optimizer.state.values() for each in kept.values() if isinstance(each, Tensor)]
    return [(each.data_ptr(), each.requires_grad) for each in tensors]


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list[Tape]:
    """Let runs record their steps on tapes, though they train on a processor."""
    found: list[Tape] = []

    class Recording(Step):
        def __init__(self, state: State, *given: object) -> None:
            found.append(Tape(lambda: addresses(state.network, state.optimizer)))
            monkeypatch.setattr("ramify.training.step.as_graph", found[-1])
            super().__init__(state, *given)  # type: ignore[arg-type]

    monkeypatch.setattr("ramify.training.step.records_whole", lambda state, guidance: True)
    monkeypatch.setattr("ramify.training.loop.Step", Recording)
    return found


LONG = ("data.limit=120", "data.batch_size=16", "train.epochs=6", "growth.epochs=[2,4]")
RUNS = {
    "plain": (),
    "muon": ("train.optimizer=muon", "train.learning_rate=0.01"),
    "recipe": ("train.ema=0.9", "train.schedule=cosine", "train.warmup=1", "train.nesterov=true", "train.clip=1"),
    "mixed": ("data.mixup=0.4", "data.mix_ramp=0.5", "train.label_smoothing=0.1"),
    "taught by itself": ("train.distill=0.5", "train.exit_gradients=equilibrium"),
    "trunk first": ("train.trunk_first=1", "train.exit_gradients=equilibrium"),
    "frozen": ("growth.freeze=until_next",),
    "widened": ("growth.plan=[wider,deeper,deeper]", "growth.epochs=[2,3,5]"),
    "pruned": ("prune.enabled=true", "prune.epochs=[3,5]", "prune.keep_ratio=0.5"),
    "drawn anew": ("prune.enabled=true", "prune.epochs=[3,5]", "prune.keep_ratio=0.5", "prune.reinit=true"),
    "rigl": ("prune.enabled=true", "prune.policy=rigl", "prune.keep_ratio=0.5", "prune.interval=7"),
    "set": ("prune.enabled=true", "prune.policy=set", "prune.keep_ratio=0.5", "prune.interval=7"),
}


def run(name: str, *overrides: str) -> Config:
    return tiny(f"name={name}", *LONG, *overrides)


@pytest.mark.parametrize("overrides", RUNS.values(), ids=RUNS.keys())
def test_a_recorded_run_is_the_run(overrides: tuple[str, ...], tapes: list[Tape]) -> None:
    recorded = train(run("recorded", *overrides))
    assert tapes[0].replays > 10
    with pytest.MonkeyPatch.context() as plainly:
        plainly.setattr("ramify.training.step.records_whole", lambda state, guidance: False)
        plain = train(run("plain", *overrides))
    assert tapes[1].replays == 0
    left, right = (load_file(Path(each.folder) / "last" / "model.safetensors") for each in (recorded, plain))
    assert left.keys() == right.keys()
    # Muon multiplies by its rate in Python, in float64 where the rate is a number.
    near = 1e-3 if "train.optimizer=muon" in overrides else 0.0
    for name, tensor in left.items():
        torch.testing.assert_close(tensor, right[name], rtol=0, atol=near)


def test_few_recordings_are_made(tapes: list[Tape]) -> None:
    """Momentum is laid out anew once after the first epoch; growth twice; and nothing else."""
    train(run("recorded"))
    assert tapes[0].recordings <= 4


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        ((), "the run computes on cpu"),
        (("train.optimizer=adam",), "the run computes on cpu and train.optimizer is adam"),
    ],
)
def test_a_step_that_cannot_be_recorded_is_refused_in_a_sentence(overrides: tuple[str, ...], why: str) -> None:
    with pytest.raises(ConfigError, match=rf"train\.record: got true; accepted: false, or null, as {why}$"):
        train(run("refused", "train.device=cpu", "train.record=true", *overrides))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("overrides", RUNS.values(), ids=RUNS.keys())
def test_a_run_recorded_on_a_gpu_learns_what_the_plain_one_learns(
    overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.backends.cudnn.allow_tf32", False)
    recorded = train(run("recorded", "train.device=cuda", "train.precision=float32", *overrides))
    plain = train(run("plain", "train.device=cuda", "train.precision=float32", "train.record=false", *overrides))
    left, right = (load_file(Path(each.folder) / "last" / "model.safetensors") for each in (recorded, plain))
    for name, tensor in left.items():
        torch.testing.assert_close(tensor, right[name], rtol=0.05, atol=0.05)
