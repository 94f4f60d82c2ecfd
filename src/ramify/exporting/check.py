"""Whether exported graphs do what the network does: both are run on the same pictures, and compared.

Logits are compared one by one. Of the graph that stops early, the answers are: which class, at which exit, how sure,
and which stages were executed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ramify.answer.runtime import Session, opened
from ramify.errors import RunError
from ramify.nn.branching import Branching, Prediction
from ramify.ops.exits.policy import CRITERIA, Policy, answers

TOLERANCE = 1e-4
"""How far a logit or a confidence may be from PyTorch's."""

RELATIVE = 1e-6
"""Of the largest logit: where logits are in the hundreds, this is what is left of the precision of float32."""

INT8_SLACK = 0.02
"""The same for graphs in int8, as a part of the largest logit and for a confidence: kernels may round one of 256 steps
the other way."""

BATCH = 64
SINGLES = 64
"""Pictures that are also given one by one, where it shows for each which stages were executed."""

_Run = Callable[[Tensor], list[Tensor]]
"""Outputs of one graph for a batch of pictures, or of what the stage before gave."""

EarlyRun = Callable[[Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]
"""Classes, confidence, exits and executed stages of a batch of pictures."""


@dataclass(frozen=True)
class EarlyCheck:
    """How the graph that stops early compares with :meth:`ramify.nn.branching.Branching.predict`.

    Attributes:
        pictures: how many were compared, in batches.
        alone: how many of them also one by one, with the stages that were executed.
        difference: largest absolute difference of a confidence.
        ties: pictures that leave elsewhere because their confidence is a threshold to within ``slack``, or take the
            other of two classes that are as near to each other.
        executed: for each stage, how many of the pictures that came alone it was executed for.
    """

    pictures: int
    alone: int
    difference: float
    ties: int
    executed: tuple[int, ...]


def session(content: bytes, threads: int | None = None) -> Session:
    """An ONNX Runtime session on the processor."""
    return opened(content, "graph", torch.get_num_threads() if threads is None else threads)


def runner(content: bytes, name: str = "images") -> _Run:
    """A graph in ONNX Runtime, as a function of its input ``name``."""
    graph = session(content)
    return lambda given: [torch.from_numpy(found) for found in graph.run(None, {name: given.contiguous().numpy()})]


def stage_runner(content: bytes) -> Callable[..., list[Tensor]]:
    """The graph of a stage, as a function of the trunk, or the pictures, and of the logits before it in a cascade.

    What the graph does not read is passed over.
    """
    graph = session(content)
    names = [each.name for each in graph.get_inputs()]

    def run(*given: Tensor) -> list[Tensor]:
        feed = {name: each.contiguous().numpy() for name, each in zip(names, given, strict=False)}
        return [torch.from_numpy(found) for found in graph.run(None, feed)]

    return run


class _Stage(nn.Module):
    """A graph of one stage, ``trunk -> (trunk, logits)``; the last gives no trunk, and nobody reads it."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.run = stage_runner(content)

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        found = self.run(*given)
        return found[0], found[-1]


class Staged(Branching):
    """The graphs of the stages in ONNX Runtime, as a network like any other; those of a cascade add up themselves."""

    def __init__(self, stages: Sequence[bytes]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(_Stage(content) for content in stages)

    def enter(self, images: Tensor) -> Tensor:
        return images

    def run_stage(
        self, at: int, trunk: Tensor, before: Tensor | None, share: float | None = None
    ) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.stages[at](trunk) if before is None else self.stages[at](trunk, before)
        return found


def logits_of(network: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    """The logits ``[E, N, classes]`` that a network, or a graph of all exits, gives for ``pictures [N, C, H, W]``."""
    with torch.inference_mode():
        return torch.cat([network(batch) for batch in pictures.split(BATCH)], dim=1)


def compare_logits(what: str, found: Tensor, expected: Tensor, slack: float = RELATIVE) -> float:
    """The largest absolute difference between logits ``[E, N, classes]``.

    Args:
        what: the graph, in words.
        found, expected: the logits.
        slack: how much of the largest logit is accepted where that is more than :data:`TOLERANCE`.

    Raises:
        RunError: it is more than that.
    """
    if found.shape != expected.shape:
        raise RunError(f"export: {what} gives logits {list(found.shape)}; accepted: {list(expected.shape)}")
    difference = float((found - expected).abs().max())
    limit = max(TOLERANCE, slack * float(expected.abs().max()))
    if not difference <= limit:
        raise RunError(
            f"export: logits of {what} are off by up to {difference:.2g}; accepted: {limit:.2g}; nothing was written"
        )
    return difference


def check_early(
    what: str,
    run: EarlyRun,
    pictures: Tensor,
    logits: Tensor,
    policy: Policy,
    network: Branching,
    slack: float = TOLERANCE,
) -> EarlyCheck:
    """Compare a graph that stops early with what ``network`` predicts with ``policy``.

    Args:
        what: the graph, in words.
        run: the graph.
        pictures: ``[N, C, H, W]`` in [0, 1].
        logits: of every exit, ``[E, N, classes]``, computed by ``network`` for them.
        policy: that the graph was made with.
        network: on the processor, in float32.
        slack: how far a confidence may be off.

    Raises:
        RunError: an answer is another one, or a stage was executed that no picture needed, or not executed.
    """
    ambiguous = _ambiguous(policy, logits, slack)
    difference, ties = 0.0, 0
    for at in range(0, len(pictures), BATCH):
        batch = slice(at, at + BATCH)
        expected = network.predict(pictures[batch], policy)
        worst, tied = _compare(what, run(pictures[batch]), expected, ambiguous[batch], slack)
        difference, ties = max(difference, worst), ties + tied
    executed = torch.zeros(policy.exits, dtype=torch.int64)
    for at in range(min(SINGLES, len(pictures))):
        found = run(pictures[at : at + 1])
        expected = network.predict(pictures[at : at + 1], policy)
        worst, _ = _compare(what, found, expected, ambiguous[at : at + 1], slack)
        difference = max(difference, worst)
        executed += found[3]
    return EarlyCheck(len(pictures), min(SINGLES, len(pictures)), difference, ties, tuple(executed.tolist()))


def _compare(
    what: str, found: tuple[Tensor, Tensor, Tensor, Tensor], expected: Prediction, ambiguous: Tensor, slack: float
) -> tuple[float, int]:
    classes, confidence, exits, ran = found
    same = (classes == expected.classes) & (exits == expected.exits)
    if (~same & ~ambiguous).any():
        count = int((~same & ~ambiguous).sum())
        raise RunError(
            f"export: {what} answers {count} of {len(classes)} pictures otherwise than the network; nothing was written"
        )
    needed = torch.arange(len(ran)) <= exits.max()
    if not torch.equal(ran.bool(), needed):
        raise RunError(
            f"export: {what} executed stages {ran.tolist()} where its answers need {needed.long().tolist()}; "
            "nothing was written"
        )
    difference = float((confidence - expected.confidence)[same].abs().max()) if same.any() else 0.0
    if not difference <= slack:
        raise RunError(
            f"export: confidences of {what} are off by up to {difference:.2g}; accepted: {slack:g}; nothing was written"
        )
    return difference, int((~same).sum())


def _ambiguous(policy: Policy, logits: Tensor, slack: float) -> Tensor:
    """Which pictures have a confidence next to its threshold, or two classes next to each other: bool ``[N]``."""
    asked = logits if policy.combine == "last" else torch.stack(policy.probabilities(logits))
    highest = asked.topk(2, dim=2).values
    close = (highest[..., 0] - highest[..., 1] <= 2 * slack).any(dim=0)
    if not CRITERIA[policy.criterion].scaled:  # it counts classes
        return close
    sure = answers(policy, logits)[1]
    for at, threshold in enumerate(policy.thresholds):
        if threshold is not None:
            close |= (sure[at] - threshold).abs() <= slack
    return close


def accuracies(logits: Tensor, labels: Tensor) -> tuple[float, ...]:
    """Of every exit, in [0, 1]: logits ``[E, N, classes]``, labels ``[N]``."""
    return tuple((logits.argmax(dim=2) == labels).double().mean(dim=1).tolist())
