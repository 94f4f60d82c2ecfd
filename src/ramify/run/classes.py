"""What becomes of each class: precision, recall, the confusion matrix, and the surest mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MISTAKES = 50
"""The surest mistakes that are named."""


@dataclass(frozen=True)
class ClassFigures:
    """How one class does.

    Attributes:
        name: of the class.
        count: pictures of it.
        accuracy: share of all pictures that are rightly taken for it, or rightly not.
        precision: share of what is taken for it that is; None where nothing is.
        recall: share of its pictures that are taken for it; None where there are none.
    """

    name: str
    count: int
    accuracy: float
    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class Mistake:
    """A picture that is answered wrong.

    Attributes:
        picture: its index among the pictures.
        file: its name; empty where that is not known.
        label: its class.
        answer: the class that was answered.
        confidence: the probability of that answer, in [0, 1].
        exit: which exit answered, from 0.
    """

    picture: int
    file: str
    label: str
    answer: str
    confidence: float
    exit: int


@dataclass(frozen=True)
class ClassResults:
    """The answers of one exit to all pictures, or those of the policy.

    Attributes:
        exit: from 0; None of the policy.
        matrix: the confusion matrix: ``[true class][answer]``, numbers of pictures.
        classes: the figures of each class.
        mistakes: at most :data:`MISTAKES`, the surest first.
    """

    exit: int | None
    matrix: tuple[tuple[int, ...], ...]
    classes: tuple[ClassFigures, ...]
    mistakes: tuple[Mistake, ...]

    @property
    def title(self) -> str:
        """Who answers, in words; exits count from 1 here."""
        return "the policy" if self.exit is None else f"exit {self.exit + 1}"


def class_results(
    logits: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    left: Tensor | None = None,
    names: Sequence[str] = (),
    given: Tensor | None = None,
) -> tuple[ClassResults, ...]:
    """The results of every exit, shallowest first, and then those of the policy.

    Args:
        logits: float ``[E, N, C]``.
        labels: int64 ``[N]``.
        classes: C names.
        left: int64 ``[N]``, the exit at which a policy lets each picture leave; without it there is no policy.
        names: of the pictures' files.
        given: int64 ``[N]``, the classes that the policy answers with; None: those of the exits.

    Example:
        >>> logits = torch.tensor([[[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]]])
        >>> found = class_results(logits, torch.tensor([0, 1, 1]), ["cat", "dog"])[0]
        >>> found.matrix, found.classes[1].recall, found.mistakes[0].answer
        (((1, 0), (1, 1)), 0.5, 'cat')
    """
    labels = labels.cpu()
    p = logits.detach().cpu().double().softmax(dim=2)
    sure, answers = p.max(dim=2)
    found = [
        _results(at, answers[at], sure[at], torch.full_like(labels, at), labels, classes, names)
        for at in range(len(logits))
    ]
    if left is not None:
        left, count = left.cpu(), torch.arange(len(labels))
        said = answers[left, count] if given is None else given.cpu()
        found.append(_results(None, said, p[left, count, said], left, labels, classes, names))
    return tuple(found)


def confusion_matrix(answers: Tensor, labels: Tensor, classes: int) -> Tensor:
    """How often each true class (row) is taken for each class (column), int64 ``[C, C]``."""
    return torch.bincount(labels * classes + answers, minlength=classes**2).view(classes, classes)


def _results(
    exit_: int | None,
    answers: Tensor,
    sure: Tensor,
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
    surest = wrong[sure[wrong].argsort(descending=True, stable=True)[:MISTAKES]].tolist()
    mistakes = tuple(
        Mistake(
            picture=i,
            file=names[i] if names else "",
            label=classes[int(labels[i])],
            answer=classes[int(answers[i])],
            confidence=float(sure[i]),
            exit=int(exits[i]),
        )
        for i in surest
    )
    return ClassResults(exit_, tuple(tuple(row) for row in matrix.tolist()), figures, mistakes)
