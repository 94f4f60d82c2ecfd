"""Figures of each class: precision, recall, the confusion matrix, and the most confident mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MISTAKES = 50
"""The most mistakes that are listed."""


@dataclass(frozen=True)
class ClassFigures:
    """The figures of one class, one against the rest.

    Attributes:
        count: pictures of the class.
        accuracy: share of all pictures that are true positives or true negatives.
        precision: None where no picture is classified as this class.
        recall: None without pictures of the class.
    """

    name: str
    count: int
    accuracy: float
    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class Mistake:
    """A wrong answer.

    Attributes:
        picture: its index.
        file: its name, empty where that is not known.
        label: its class.
        answer: the predicted class.
        confidence: the probability of ``answer``, in [0, 1].
        exit: the one that answered, from 0.
    """

    picture: int
    file: str
    label: str
    answer: str
    confidence: float
    exit: int


@dataclass(frozen=True)
class ClassResults:
    """The results of one exit, or of the policy.

    Attributes:
        exit: from 0; None for the policy.
        matrix: confusion matrix of counts, ``[true class][answer]``.
        mistakes: at most :data:`MISTAKES`, the most confident first.
    """

    exit: int | None
    matrix: tuple[tuple[int, ...], ...]
    classes: tuple[ClassFigures, ...]
    mistakes: tuple[Mistake, ...]

    @property
    def title(self) -> str:
        """``exit 1``, counted from 1, or ``the policy``."""
        return "the policy" if self.exit is None else f"exit {self.exit + 1}"


def class_results(
    logits: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    left: Tensor | None = None,
    names: Sequence[str] = (),
    predicted: Tensor | None = None,
) -> tuple[ClassResults, ...]:
    """The results of every exit, shallowest first, and of the policy.

    Args:
        logits: float ``[E, N, C]``.
        labels: int64 ``[N]``.
        classes: C names.
        left: int64 ``[N]``, the exit at which the policy lets each picture leave; None: no policy.
        names: of the pictures' files.
        predicted: int64 ``[N]``, the classes that the policy answers with; None: those of the exits.

    Example:
        >>> logits = torch.tensor([[[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]]])
        >>> results = class_results(logits, torch.tensor([0, 1, 1]), ["cat", "dog"])[0]
        >>> results.matrix, results.classes[1].recall, results.mistakes[0].answer
        (((1, 0), (1, 1)), 0.5, 'cat')
    """
    labels = labels.cpu()
    p = logits.detach().cpu().double().softmax(dim=2)
    confidence, answers = p.max(dim=2)
    results = [
        _results(exit_, answers[exit_], confidence[exit_], torch.full_like(labels, exit_), labels, classes, names)
        for exit_ in range(len(logits))
    ]
    if left is not None:
        left, index = left.cpu(), torch.arange(len(labels))
        predicted = answers[left, index] if predicted is None else predicted.cpu()
        results.append(_results(None, predicted, p[left, index, predicted], left, labels, classes, names))
    return tuple(results)


def confusion_matrix(answers: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Counts of each true class (row) and predicted class (column), int64 ``[C, C]``."""
    return torch.bincount(labels * classes + answers, minlength=classes**2).view(classes, classes)


def _results(
    exit_: int | None,
    answers: Tensor,
    confidence: Tensor,
    exits: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    names: Sequence[str],
) -> ClassResults:
    matrix = confusion_matrix(answers, labels, len(classes))
    rows, columns, right = matrix.sum(dim=1).tolist(), matrix.sum(dim=0).tolist(), matrix.diagonal().tolist()
    total = len(labels)
    figures = tuple(
        ClassFigures(
            name=name,
            count=rows[i],
            accuracy=(total - rows[i] - columns[i] + 2 * right[i]) / total,
            precision=right[i] / columns[i] if columns[i] else None,
            recall=right[i] / rows[i] if rows[i] else None,
        )
        for i, name in enumerate(classes)
    )
    wrong = (answers != labels).nonzero()[:, 0]
    surest = wrong[confidence[wrong].argsort(descending=True, stable=True)[:MISTAKES]].tolist()
    mistakes = tuple(
        Mistake(
            picture=i,
            file=names[i] if names else "",
            label=classes[int(labels[i])],
            answer=classes[int(answers[i])],
            confidence=float(confidence[i]),
            exit=int(exits[i]),
        )
        for i in surest
    )
    return ClassResults(exit_, tuple(tuple(row) for row in matrix.tolist()), figures, mistakes)
