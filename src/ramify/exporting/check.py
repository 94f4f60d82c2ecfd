"""Compares exported graphs with the network: both are run on the same pictures.

Logits are compared one by one. The early-exit graph is compared by its answers: class, exit, confidence and the stages
that were executed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ramify.answer.runtime import opened
from ramify.data.pictures import Part
from ramify.errors import RunError
from ramify.nn.branching import Branching, Prediction
from ramify.ops.exits.policy import CRITERIA, Policy, answers
from ramify.run.evaluate import to_float

TOLERANCE = 1e-4
"""Largest accepted difference of a logit or a confidence."""

RELATIVE = 1e-6
"""Largest accepted difference relative to the largest logit: the precision of float32 for logits in the hundreds."""

INT8_SLACK = 0.02
"""The same for int8, relative to the largest logit: kernels may round one of 256 steps apart.

A confidence may differ as much, or as far as the logits do where that is more.
"""

BATCH = 64
SINGLES = 64
"""Pictures that are also run one at a time, which shows the stages executed for each."""

Runner = Callable[..., Sequence[Tensor]]
"""A graph as a function from input tensors to output tensors."""


@dataclass(frozen=True)
class EarlyCheck:
    """The early-exit graph compared with :meth:`ramify.nn.branching.Branching.predict`.

    Attributes:
        pictures: how many were compared, in batches.
        alone: how many were also run one at a time.
        difference: largest absolute difference of a confidence.
        ties: pictures that leave elsewhere because their confidence is within rounding of a threshold, or that get
            the other of two equally likely classes.
        executed: for each stage, for how many of the single pictures it was executed.
    """

    pictures: int
    alone: int
    difference: float
    ties: int
    executed: tuple[int, ...]


def runner(content: bytes) -> Callable[..., list[Tensor]]:
    """A graph in ONNX Runtime on the CPU, as a function of its inputs by position; arguments it does not read are
    ignored."""
    session = opened(content, "graph", torch.get_num_threads())
    names = [graph_input.name for graph_input in session.get_inputs()]

    def run(*tensors: Tensor) -> list[Tensor]:
        feed = {name: tensor.contiguous().numpy() for name, tensor in zip(names, tensors, strict=False)}
        return [torch.from_numpy(output) for output in session.run(None, feed)]

    return run


class Staged(Branching):
    """The stage graphs in ONNX Runtime as a network; those of a cascade add up their logits themselves."""

    def __init__(self, stages: Sequence[bytes]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Identity() for _ in stages)
        self.runs = [runner(content) for content in stages]

    def enter(self, images: Tensor) -> Tensor:
        return images

    def run_stage(
        self, at: int, trunk: Tensor, before: Tensor | None, share: float | None = None
    ) -> tuple[Tensor, Tensor]:
        outputs = self.runs[at](*(trunk,) if before is None else (trunk, before))
        return outputs[0], outputs[-1]  # the last stage has no trunk, and nothing reads it


def logits_of(network: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    """The logits ``[E, N, classes]`` of ``network``, or of a graph of all exits, for ``pictures [N, C, H, W]``."""
    with torch.inference_mode():
        return torch.cat([network(batch) for batch in pictures.split(BATCH)], dim=1)


def compare_logits(graph: str, logits: Tensor, expected: Tensor, slack: float = RELATIVE) -> float:
    """The largest absolute difference between logits ``[E, N, classes]``.

    Args:
        graph: its name in errors.
        logits, expected: of the graph and of the network.
        slack: accepted difference relative to the largest logit, where that is more than :data:`TOLERANCE`.

    Raises:
        RunError: the shapes differ, or the difference is larger than accepted.
    """
    if logits.shape != expected.shape:
        raise RunError(f"export: {graph} gives logits {list(logits.shape)}; accepted: {list(expected.shape)}")
    difference = float((logits - expected).abs().max())
    limit = max(TOLERANCE, slack * float(expected.abs().max()))
    if not difference <= limit:
        raise RunError(
            f"export: logits of {graph} are off by up to {difference:.2g}; accepted: {limit:.2g}; nothing was written"
        )
    return difference


def check_early(
    graph: str,
    run: Runner,
    pictures: Tensor,
    logits: Tensor,
    policy: Policy,
    network: Branching,
    slack: float = TOLERANCE,
) -> EarlyCheck:
    """Compare an early-exit graph with the predictions of ``network`` under ``policy``.

    Args:
        graph: its name in errors.
        run: from pictures to classes, confidence, exits ``[B]`` and executed stages ``[E]``.
        pictures: ``[N, C, H, W]`` in [0, 1].
        logits: of ``network`` for them, ``[E, N, classes]``.
        policy: the exit policy of the graph.
        network: on the CPU, in float32.
        slack: accepted difference of a confidence.

    Raises:
        RunError: an answer differs, or the executed stages are not those that the answers need.
    """
    ambiguous = _ambiguous(policy, logits, slack)

    def compare(batch: slice) -> tuple[float, int, Tensor]:
        outputs = run(pictures[batch])
        expected = network.predict(pictures[batch], policy)
        return *_compare(graph, outputs, expected, ambiguous[batch], slack), outputs[3]

    singles = min(SINGLES, len(pictures))
    batches = [compare(slice(at, at + BATCH)) for at in range(0, len(pictures), BATCH)]
    alone = [compare(slice(at, at + 1)) for at in range(singles)]
    executed = sum((ran for _, _, ran in alone), torch.zeros(policy.exits, dtype=torch.int64))
    difference = max((worst for worst, _, _ in (*batches, *alone)), default=0.0)
    return EarlyCheck(len(pictures), singles, difference, sum(ties for _, ties, _ in batches), tuple(executed.tolist()))


def _compare(
    graph: str, outputs: Sequence[Tensor], expected: Prediction, ambiguous: Tensor, slack: float
) -> tuple[float, int]:
    """The largest difference of a confidence, and how many ambiguous pictures are answered differently."""
    classes, confidence, exits, ran = outputs
    same = (classes == expected.classes) & (exits == expected.exits)
    wrong = int((~same & ~ambiguous).sum())
    if wrong:
        raise RunError(
            f"export: {graph} answers {wrong} of {len(classes)} pictures differently from the network; "
            "nothing was written"
        )
    needed = torch.arange(len(ran)) <= exits.max()
    if not torch.equal(ran.bool(), needed):
        raise RunError(
            f"export: {graph} executed stages {ran.tolist()} where its answers need {needed.long().tolist()}; "
            "nothing was written"
        )
    difference = float((confidence - expected.confidence)[same].abs().max()) if same.any() else 0.0
    if not difference <= slack:
        raise RunError(
            f"export: confidences of {graph} are off by up to {difference:.2g}; accepted: {slack:g}; "
            "nothing was written"
        )
    return difference, int((~same).sum())


def _ambiguous(policy: Policy, logits: Tensor, slack: float) -> Tensor:
    """Which pictures have a confidence close to its threshold, or two classes close to each other: bool ``[N]``."""
    scores = logits if policy.combine == "last" else torch.stack(policy.probabilities(logits))
    highest = scores.topk(2, dim=2).values
    close = (highest[..., 0] - highest[..., 1] <= 2 * slack).any(dim=0)
    if not CRITERIA[policy.criterion].scaled:  # it counts classes
        return close
    confidence = answers(policy, logits)[1]
    for at, threshold in enumerate(policy.thresholds):
        if threshold is not None:
            close |= (confidence[at] - threshold).abs() <= slack
    return close


def accuracies(network: Callable[[Tensor], Tensor], part: Part) -> tuple[float, ...]:
    """Of every exit of ``network`` (as in :func:`logits_of`), in [0, 1]; ``part`` may be larger than memory."""
    batches = (to_float(some.images).contiguous() for some in part.split(BATCH))
    logits = torch.cat([logits_of(network, batch) for batch in batches], dim=1)
    return tuple((logits.argmax(dim=2) == part.labels).double().mean(dim=1).tolist())
