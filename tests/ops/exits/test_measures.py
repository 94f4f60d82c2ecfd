"""Measures of a ranking: known areas, and intervals that hold what they should."""

import pytest
import torch
from sklearn import metrics

from ramify.ops.exits.fit import scores
from ramify.ops.exits.measures import area, paired, rank
from ramify.ops.exits.policy import Policy, answers


def drawn(seed: int, pictures: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(5, (pictures,), generator=draw)
    logits = 2 * torch.randn(3, pictures, 5, generator=draw)
    logits[:, torch.arange(pictures), labels] += torch.tensor([[1.0], [2.0], [4.0]])
    return logits, labels


def test_the_auroc_is_that_of_the_pictures_that_a_deeper_exit_corrects() -> None:
    logits, labels = drawn(0)
    policy = Policy((0.8, 0.7), "margin", (0.5, 0.7, 1.0))
    found = rank(policy, logits, labels, (1.0, 2.0, 4.0), (0.1, 0.2, 0.4))
    classes, sure = answers(policy, logits)
    right = classes == labels
    for at, behind in enumerate((right[1] | right[2], right[2])):
        assert found.auroc[at] == pytest.approx(metrics.roc_auc_score(~right[at] & behind, 1 - sure[at]))
    assert found.error_before != found.error_after
    assert found.area_macs == pytest.approx(found.area_milliseconds)
    best = right[2].double().mean().item()
    assert found.against_best.low <= found.against_best.mean <= found.against_best.high
    assert 0 < found.macs_saved.low < found.macs_saved.high < 0.75
    assert best + found.against_best.mean <= 1


def test_a_ranking_that_knows_has_the_largest_area() -> None:
    logits, labels = drawn(1)
    right = logits.argmax(dim=-1) == labels
    knows = torch.stack([1 - (~right[at] & right[at:].any(dim=0)).float() for at in range(3)])
    by_chance = torch.rand(3, 400, generator=torch.Generator().manual_seed(0))
    costs = (1.0, 2.0, 4.0)
    usual = answers(Policy((None, None)), logits)[1]
    assert area(knows, right, costs) > area(usual, right, costs) > area(by_chance, right, costs)
    assert area(usual**3, right, costs) == pytest.approx(area(usual, right, costs), abs=1e-3), "only the order counts"
    assert area(usual[:1], right[:1], costs[:1]) == pytest.approx(right[0].double().mean().item())


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    draw, held = torch.Generator().manual_seed(0), 0
    for seed in range(60):
        mine = (torch.rand(200, generator=draw) < 0.6).double()
        theirs = (torch.rand(200, generator=draw) < 0.5).double()
        found = paired(mine, theirs, seed)
        held += found.low <= 0.1 <= found.high
    assert 50 <= held <= 60


def test_learned_scores_can_be_measured_too() -> None:
    logits, labels = drawn(2)
    base = Policy((0.9, 0.9))
    policy = Policy((0.9, 0.9), "gain", coefficients=scores(base, "gain", logits, labels))
    found = rank(policy, logits, labels, (1.0, 2.0, 4.0))
    assert found.criterion == "gain"
    assert all(each is not None and each > 0.5 for each in found.auroc)
    assert found.area_milliseconds is None
