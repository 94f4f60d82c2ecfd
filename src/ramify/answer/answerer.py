"""Who answers pictures: a saved network in PyTorch, or an exported one in ONNX Runtime, asked in one way."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ramify.answer.card import is_exported
from ramify.answer.runtime import Answers, Floats, Runtime, Wholes
from ramify.data.decode import Reading
from ramify.errors import InputError
from ramify.nn.branching import Branching
from ramify.ops.cost import cost
from ramify.ops.exits.policy import Policy, answers
from ramify.run.checkpoint import Card
from ramify.run.choice import ChosenPolicy, choose_policy
from ramify.run.saved import read_saved
from ramify.shortage import usable_threads

TOP = 5
"""How many classes an opinion names."""


@dataclass(frozen=True)
class Opinion:
    """What one exit makes of one picture, whether or not the picture would have come so far.

    Attributes:
        exit: from 0.
        label: the class it answers with, an index into the names.
        confidence: in [0, 1], by the policy's criterion.
        threshold: at which it lets the picture go; None: never, and at the last exit, which always does.
        leaves: whether it would let the picture go.
        top: the likeliest classes and their probabilities, likeliest first; at most :data:`TOP`. The policy's
            temperatures and averaging are counted in.
    """

    exit: int
    label: int
    confidence: float
    threshold: float | None
    leaves: bool
    top: tuple[tuple[int, float], ...]


class Answerer(Protocol):
    """A network with exits and the policy that it answers by. One may be asked by several threads at once."""

    @property
    def name(self) -> str:
        """Of the run, or of the folder."""
        ...

    @property
    def engine(self) -> str:
        """What computes it: ``PyTorch`` or ``ONNX Runtime``."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        ...

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the pictures that it reads."""
        ...

    @property
    def reading(self) -> Reading:
        """How picture files are made into pixels, but for their size: as for its training."""
        ...

    @property
    def description(self) -> str:
        """By which policy it answers, in one sentence."""
        ...

    @property
    def macs(self) -> tuple[int, ...]:
        """Multiply-accumulates of answering at each exit."""
        ...

    def answer(self, pictures: Floats) -> Answers:
        """Answer float32 ``[B, C, H, W]`` in [0, 1], each picture at the first exit that lets it go.

        Raises:
            InputError: the pictures are of another shape.
        """
        ...

    def opinions(self, picture: Floats) -> tuple[Opinion, ...]:
        """What every exit makes of one picture ``[C, H, W]``; the answer is that of the first that ``leaves``."""
        ...


class TorchAnswerer:
    """A saved network, computed by PyTorch on the processor."""

    engine = "PyTorch"

    def __init__(self, name: str, network: Branching, card: Card, chosen: ChosenPolicy) -> None:
        assert card.network.input_shape is not None
        self.name = name
        self.classes = card.classes
        self.input_shape = card.network.input_shape
        self.reading = Reading(background=card.background, range=card.range)
        self.description = chosen.description
        self.macs = tuple(each.macs for each in cost(network))
        self._network = network.eval()
        self._policy = chosen.policy

    def answer(self, pictures: Floats) -> Answers:
        """See :class:`Answerer`."""
        images = torch.from_numpy(self._checked(pictures))
        began = time.perf_counter()
        found = self._network.predict(images, self._policy)
        milliseconds = 1000 * (time.perf_counter() - began)
        classes: Wholes = found.classes.numpy()
        return Answers(classes, found.confidence.numpy(), found.exits.numpy(), milliseconds, found.ran)

    def opinions(self, picture: Floats) -> tuple[Opinion, ...]:
        """See :class:`Answerer`."""
        images = torch.from_numpy(self._checked(picture[None]))
        with torch.inference_mode():
            return _opinions(self._network(images), self._policy)

    def _checked(self, pictures: Floats) -> Floats:
        if pictures.dtype != np.float32 or pictures.shape[1:] != self.input_shape:
            raise InputError(
                f"pictures: got {pictures.dtype} of shape {list(pictures.shape)}; accepted: float32 of shape "
                f"[pictures, {', '.join(map(str, self.input_shape))}] with values in [0, 1]"
            )
        return np.ascontiguousarray(pictures)


class OnnxAnswerer:
    """An exported network, computed by ONNX Runtime on the processor."""

    engine = "ONNX Runtime"

    def __init__(self, runtime: Runtime) -> None:
        card = runtime.card
        self.name = card.name
        self.classes = card.classes
        self.input_shape = card.input_shape
        self.reading = runtime.reading
        self.description = runtime.description
        self.macs = tuple(each.macs for each in card.exits)
        self._runtime = runtime

    def answer(self, pictures: Floats) -> Answers:
        """See :class:`Answerer`."""
        return self._runtime.predict(pictures)

    def opinions(self, picture: Floats) -> tuple[Opinion, ...]:
        """See :class:`Answerer`."""
        return _opinions(torch.from_numpy(self._runtime.logits(picture)), self._runtime.card.policy.policy)


def answerer(
    name_or_folder: str | Path,
    runs_dir: str | Path = "runs",
    threshold: float | None = None,
    threads: int | None = None,
) -> Answerer:
    """Who answers for ``name_or_folder``.

    Args:
        name_or_folder: the name of a run or the path of its folder, a checkpoint (``runs/demo/best``), a model folder
            of ``ramify export --to hub``, or a folder of ``ramify export --to onnx``.
        runs_dir: where runs are looked for by name.
        threshold: in [0, 1]; a picture leaves where the confidence reaches it, in place of calibrated thresholds
            (see :func:`ramify.run.choice.choose_policy`).
        threads: how many the network computes with, at most as many as there are processors.
            PyTorch's number is one for the whole process.

    Raises:
        InputError: there is nothing of these, or ``threshold`` or ``threads`` is out of range.
        CheckpointError: what is there is damaged.
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads: got {threads}; accepted: a whole number >= 1")
    if threads is not None:
        threads, _ = usable_threads(threads)
    if is_exported(Path(name_or_folder)):
        return OnnxAnswerer(Runtime(name_or_folder, threads, threshold))
    network, card = read_saved(name_or_folder, runs_dir)
    chosen = choose_policy(card, threshold)
    if threads is not None:
        torch.set_num_threads(threads)
    return TorchAnswerer(Path(name_or_folder).resolve().name, network, card, chosen)


def _opinions(logits: torch.Tensor, rule: Policy) -> tuple[Opinion, ...]:
    """Of every exit, from ``logits [E, 1, C]``."""
    classes, confidence = answers(rule, logits)
    found: list[Opinion] = []
    for at, p in enumerate(rule.probabilities(logits)):
        likeliest = p[0].argsort(descending=True, stable=True)[:TOP].tolist()
        found.append(
            Opinion(
                exit=at,
                label=int(classes[at, 0]),
                confidence=float(confidence[at, 0]),
                threshold=None if at + 1 == rule.exits else rule.thresholds[at],
                leaves=bool(rule.leaves(at, confidence[at])[0]),
                top=tuple((label, float(p[0, label])) for label in likeliest),
            )
        )
    return tuple(found)
