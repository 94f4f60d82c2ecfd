"""Precision, recall and the confusion matrix against scikit-learn, for every exit and a policy."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from ramify.run.classes import MISTAKES, class_results

NAMES = ("cat", "dog", "emu")


def some(seed: int, count: int = 40) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of two exits, labels, and where a policy lets the pictures go."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, count, 3, generator=random)
    return logits, torch.randint(3, (count,), generator=random), torch.randint(2, (count,), generator=random)


@given(st.integers(0, 1000), st.integers(1, 40))
def test_figures_are_those_of_scikit_learn(seed: int, count: int) -> None:
    logits, labels, left = some(seed, count)
    found = class_results(logits, labels, NAMES, left)
    assert [each.title for each in found] == ["exit 1", "exit 2", "the policy"]
    answers = logits.argmax(dim=2)
    for each, said in zip(found, (*answers, answers[left, torch.arange(count)]), strict=True):
        matrix = metrics.confusion_matrix(labels, said, labels=range(3))
        assert [list(row) for row in each.matrix] == matrix.tolist()
        precision = metrics.precision_score(labels, said, labels=range(3), average=None, zero_division=math.nan)
        recall = metrics.recall_score(labels, said, labels=range(3), average=None, zero_division=math.nan)
        for i, figures in enumerate(each.classes):
            assert figures.name == NAMES[i]
            assert figures.count == int((labels == i).sum())
            assert (math.nan if figures.precision is None else figures.precision) == pytest.approx(
                precision[i], nan_ok=True
            )
            assert (math.nan if figures.recall is None else figures.recall) == pytest.approx(recall[i], nan_ok=True)
            right = ((said == i) == (labels == i)).double().mean()
            assert figures.accuracy == pytest.approx(float(right))


def test_mistakes_are_the_surest_with_their_files() -> None:
    logits, labels, left = some(3, 200)
    names = [f"{i}.png" for i in range(200)]
    for each in class_results(logits, labels, NAMES, left, names):
        sure = [mistake.confidence for mistake in each.mistakes]
        assert sure == sorted(sure, reverse=True)
        assert len(sure) == MISTAKES
        for mistake in each.mistakes:
            assert mistake.file == f"{mistake.picture}.png"
            assert mistake.label == NAMES[int(labels[mistake.picture])] != mistake.answer
            assert mistake.exit == (int(left[mistake.picture]) if each.exit is None else each.exit)
