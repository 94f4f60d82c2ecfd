"""A run in PyTorch and its export in ONNX Runtime are asked in one way and give one answer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from ramify.answer.answerer import TOP, Answerer, answerer
from ramify.errors import InputError
from ramify.exporting.write import Export

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def both(demo: Path, exported: Export) -> tuple[Answerer, Answerer]:
    return answerer(demo), answerer(exported.folder)


def test_both_say_the_same_of_the_network(both: tuple[Answerer, Answerer]) -> None:
    torch_, onnx = both
    assert (torch_.engine, onnx.engine) == ("PyTorch", "ONNX Runtime")
    for name in ("name", "classes", "input_shape", "description", "macs"):
        assert getattr(torch_, name) == getattr(onnx, name)
    assert torch_.description.startswith("policy: calibrated (max probability")


def test_both_give_the_same_answers_and_opinions(both: tuple[Answerer, Answerer], digits: Tensor) -> None:
    torch_, onnx = both
    images = digits[:50].numpy()
    ours, theirs = torch_.predict(images), onnx.predict(images)
    assert (ours.ran, ours.exits.tolist(), ours.classes.tolist()) == (
        theirs.ran,
        theirs.exits.tolist(),
        theirs.classes.tolist(),
    )
    for picture in images[:10]:
        here, there = torch_.opinions(picture), onnx.opinions(picture)
        for one, other in zip(here, there, strict=True):
            assert one == replace(other, confidence=one.confidence, top=one.top)
            assert one.confidence == pytest.approx(other.confidence, abs=1e-4)
            assert [p for _, p in one.top] == pytest.approx([p for _, p in other.top], abs=1e-4)
            assert len(one.top) == TOP
        first = next(each for each in here if each.leaves)
        answer = torch_.predict(picture[None])
        assert (first.exit, first.label) == (answer.exits[0], answer.classes[0])


def test_pictures_of_another_shape_are_refused(both: tuple[Answerer, Answerer]) -> None:
    for network in both:
        with pytest.raises(InputError, match=r"pictures: got float32 of shape .*; accepted: float32 of shape"):
            network.predict(np.zeros((1, 3, 8, 8), np.float32))


def test_what_is_asked_for_is_checked(demo: Path, exported: Export) -> None:
    for name in (demo, exported.folder):
        assert answerer(name, threshold=0.5).description.startswith(
            "policy: leave where the highest probability reaches 0.5"
        )
        with pytest.raises(InputError, match="threshold: got 2"):
            answerer(name, threshold=2)
        with pytest.raises(InputError, match="threads: got 0"):
            answerer(name, threads=0)
    with pytest.raises(InputError, match="which is no run in runs"):
        answerer("unheard-of")
