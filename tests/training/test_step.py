"""Compiled training: as often as the network changes, and with the same result."""

from collections.abc import Callable

import pytest
import torch

from ramify.run.events import EpochDone, Event
from ramify.run.saved import load
from ramify.training.run import train
from tests.conftest import tiny

CHANGES = ("growth.plan=[deeper,wider,deeper]", "growth.epochs=[2,3,5]", "train.epochs=6", "growth.init=identity")
PRUNED = ("prune.enabled=true", "prune.epochs=[4,6]", "prune.keep_ratio=0.6")


@pytest.fixture(autouse=True)
def _quick_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace and split forward and backward as inductor does, without its C++ compiler."""
    monkeypatch.setattr("ramify.training.step.BACKEND", "aot_eager")


def compilations(*overrides: str) -> list[int]:
    seen: list[Event] = []
    train(tiny(*overrides), [seen.append])
    epochs = [event for event in seen if isinstance(event, EpochDone)]
    assert all(event.revived == 0 for event in epochs)
    return [event.compilations for event in epochs]


def test_one_graph_for_each_network_and_none_for_prunings_and_it_learns_the_same() -> None:
    assert compilations("name=compiled", "train.compile=true", *CHANGES, *PRUNED) == [1, 2, 3, 3, 4, 4]
    assert compilations("name=plain", *CHANGES, *PRUNED) == [0] * 6
    images = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(load("compiled")(images), load("plain")(images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("freeze", ["before", "until_next"])
def test_freezing_is_another_graph_at_most(freeze: str) -> None:
    assert compilations("name=mine", "train.compile=true", f"growth.freeze={freeze}")[-1] <= 4


def test_a_recorded_step_is_marked_and_asks_its_compiler_for_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a CUDA device would be asked for, told to a compiler that records nothing."""
    asked: list[object] = []
    marks: list[None] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor], **options: object) -> Callable[..., object]:
        asked.append(options["config_patches"])
        return graph.forward

    lookup = torch._dynamo.backends.registry.lookup_backend
    monkeypatch.setattr(
        "torch._dynamo.backends.registry.lookup_backend", lambda name: backend if name == "recorder" else lookup(name)
    )
    monkeypatch.setattr("ramify.training.step.BACKEND", "recorder")
    monkeypatch.setattr("ramify.training.step.records", lambda device: True)
    monkeypatch.setattr("torch.compiler.cudagraph_mark_step_begin", lambda: marks.append(None))
    short = ("network.structure=[1,0]", "growth.epochs=[2]", "train.epochs=3", "prune.enabled=true", "prune.epochs=[3]")
    assert compilations("name=mine", "train.compile=true", *short) == [1, 2, 2]
    assert asked == [{"triton.cudagraphs": True}] * 2
    assert len(marks) == 3 * 3  # three whole batches in each of three epochs, and a smaller one
