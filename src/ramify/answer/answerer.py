"""One interface to networks that answer pictures: saved ones in PyTorch, exported ones in ONNX Runtime."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ramify.answer.card import is_exported
from ramify.answer.runtime import Answers, Floats, Runtime, Wholes, check_batch, check_threads
from ramify.data.decode import Reading
from ramify.nn.branching import Branching
from ramify.ops.cost import cost
from ramify.ops.exits.policy import Policy, answers
from ramify.run.checkpoint import Card
from ramify.run.choice import ChosenPolicy, choose_policy
from ramify.run.saved import read_saved

TOP = 5
"""Classes in an opinion."""


@dataclass(frozen=True)
class Opinion:
    """The answer of one exit to one picture, whether or not the picture reaches it.

    Attributes:
        exit: from 0.
        label: its class, an index into the names.
        confidence: in [0, 1], by the policy's criterion.
        threshold: at which the picture leaves; None: never, or at the last exit always.
        leaves: whether the picture would leave here.
        top: up to :data:`TOP` classes and their probabilities, likeliest first, with the policy's temperatures and
            averaging.
    """

    exit: int
    label: int
    confidence: float
    threshold: float | None
    leaves: bool
    top: tuple[tuple[int, float], ...]


class TorchAnswerer:
    """A saved network in PyTorch on the CPU, and the policy that it answers by. Several threads may use it at once.

    Attributes:
        name: of the run, or of the folder.
        engine: ``PyTorch`` or ``ONNX Runtime``.
        classes: names of the classes, in the order of the logits.
        input_shape: (C, H, W) of the pictures that it reads.
        reading: how picture files are decoded, except for their size: as for its training.
        description: its policy, in one sentence.
        macs: multiply-accumulates of answering at each exit.
    """

    engine = "PyTorch"

    def __init__(self, name: str, network: Branching, card: Card, chosen: ChosenPolicy) -> None:
        channels, height, width = network.input_shape
        self.name = name
        self.classes = card.classes
        self.input_shape = channels, height, width
        self.reading = Reading(background=card.background, range=card.range)
        self.description = chosen.description
        self.macs = tuple(exit_cost.macs for exit_cost in cost(network))
        self.network = network.eval()
        self.policy = chosen.policy

    def predict(self, pictures: Floats) -> Answers:
        """Answer float32 ``[B, C, H, W]`` in [0, 1], each picture at the first exit where it leaves.

        Raises:
            InputError: the pictures are of another shape.
        """
        images = torch.from_numpy(check_batch(pictures, self.input_shape))
        began = time.perf_counter()
        prediction = self.network.predict(images, self.policy)
        milliseconds = 1000 * (time.perf_counter() - began)
        classes: Wholes = prediction.classes.numpy()
        return Answers(classes, prediction.confidence.numpy(), prediction.exits.numpy(), milliseconds, prediction.ran)

    def opinions(self, picture: Floats) -> tuple[Opinion, ...]:
        """The answers of all exits to one picture ``[C, H, W]``; the first that ``leaves`` counts."""
        with torch.inference_mode():
            logits = self.network(torch.from_numpy(check_batch(picture, self.input_shape)))
            return _opinions(logits, self.policy)


class OnnxAnswerer(Runtime):
    """An exported network in ONNX Runtime on the CPU, with the attributes and methods of :class:`TorchAnswerer`."""

    engine = "ONNX Runtime"

    def opinions(self, picture: Floats) -> tuple[Opinion, ...]:
        """See :meth:`TorchAnswerer.opinions`."""
        return _opinions(torch.from_numpy(self.logits(picture)), self.card.policy.policy)


Answerer = TorchAnswerer | OnnxAnswerer
"""A network with exits, and the policy that it answers by."""


def answerer(
    name_or_folder: str | Path,
    runs_dir: str | Path = "runs",
    threshold: float | None = None,
    threads: int | None = None,
) -> Answerer:
    """The network called ``name_or_folder``, ready to answer pictures.

    Args:
        name_or_folder: the name of a run or the path of its folder, a checkpoint (``runs/demo/best``), a model folder
            of ``ramify export --to hub``, or a folder of ``ramify export --to onnx``.
        runs_dir: the folder of the runs.
        threshold: in [0, 1]; a picture leaves where the confidence reaches it, in place of calibrated thresholds
            (see :func:`ramify.run.choice.choose_policy`).
        threads: to compute with, at most as many as there are processors. PyTorch has one number for the process.

    Raises:
        InputError: there is no such network, or ``threshold`` or ``threads`` is out of range.
        CheckpointError: it is damaged.
    """
    if is_exported(Path(name_or_folder)):
        return OnnxAnswerer(Path(name_or_folder), threads, threshold)
    network, card = read_saved(name_or_folder, runs_dir)
    chosen = choose_policy(card, threshold)
    if threads is not None:
        torch.set_num_threads(check_threads(threads))
    return TorchAnswerer(Path(name_or_folder).resolve().name, network, card, chosen)


def _opinions(logits: torch.Tensor, rule: Policy) -> tuple[Opinion, ...]:
    """Of every exit, from ``logits [E, 1, C]``."""
    classes, confidence = answers(rule, logits)
    opinions: list[Opinion] = []
    for at, p in enumerate(rule.probabilities(logits)):
        likeliest = p[0].argsort(descending=True, stable=True)[:TOP].tolist()
        opinions.append(
            Opinion(
                exit=at,
                label=int(classes[at, 0]),
                confidence=float(confidence[at, 0]),
                threshold=None if at + 1 == rule.exits else rule.thresholds[at],
                leaves=bool(rule.leaves(at, confidence[at])[0]),
                # The mean of several exits may round to a little more than 1.
                top=tuple((label, min(float(p[0, label]), 1.0)) for label in likeliest),
            )
        )
    return tuple(opinions)
