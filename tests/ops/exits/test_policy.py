"""Policies: online and offline they say the same, confidences keep their range, and temperatures come out."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.errors import InputError
from ramify.nn.branching import Branching
from ramify.ops.exits.confusion import auroc
from ramify.ops.exits.fit import crossed, mixture, scores, temperature
from ramify.ops.exits.policy import CRITERIA, Combine, Fallback, Policy, answers, confidences, follow, leaving

PLAIN = tuple(name for name, each in CRITERIA.items() if each.targets is None)


class Stored(Branching):
    """A network whose exits know the logits ``[E, N, C]`` of N pictures; a picture is its number."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.stages = nn.ModuleList([StoredStage(each) for each in logits])

    def check(self, images: Tensor) -> None:
        """A number is no picture in [0, 1]."""

    def enter(self, images: Tensor) -> Tensor:
        return images.flatten().long()


class StoredStage(nn.Module):
    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, trunk: Tensor) -> tuple[Tensor, Tensor]:
        return trunk, self.logits[trunk]


def random_logits(exits: int, pictures: int, classes: int, seed: int, size: float = 3.0) -> Tensor:
    return size * torch.randn(exits, pictures, classes, generator=torch.Generator().manual_seed(seed))


@given(
    criterion=st.sampled_from(PLAIN),
    thresholds=st.lists(st.none() | st.floats(0, 1), max_size=4).map(tuple),
    pictures=st.integers(0, 40),
    classes=st.integers(2, 20),
    seed=st.integers(0, 1000),
    scaled=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.float64]),
)
def test_stored_logits_are_followed_as_a_network_predicts(
    criterion: str,
    thresholds: tuple[float | None, ...],
    pictures: int,
    classes: int,
    seed: int,
    scaled: bool,
    dtype: torch.dtype,
) -> None:
    exits = len(thresholds) + 1
    logits = random_logits(exits, pictures, classes, seed).to(dtype)
    policy = Policy(thresholds, criterion, tuple(0.5 + 0.3 * i for i in range(exits)) if scaled else None)
    online = Stored(logits).predict(torch.arange(pictures).view(-1, 1, 1, 1), policy)
    offline = follow(policy, logits)
    for mine, theirs in zip(online[:3], offline[:3], strict=True):
        assert torch.equal(mine, theirs)
        assert mine.dtype == theirs.dtype
    assert online.ran == offline.ran
    sure = confidences(logits, criterion, policy.temperatures)
    assert torch.equal(leaving(policy, sure), offline.exits)
    for i in range(exits):
        found = policy.judge(logits[: i + 1])
        assert torch.equal(found.confidence, sure[i])
        assert torch.equal(found.leaves, policy.leaves(i, sure[i]))
        assert torch.equal(found.classes, logits[i].argmax(dim=-1))


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("combine", ["last", "mean", "weighted"])
@pytest.mark.parametrize("fallback", ["last", "most_confident"])
def test_every_policy_answers_alike_stored_and_walked_in_any_batch(
    criterion: str, combine: Combine, fallback: Fallback
) -> None:
    logits = random_logits(4, 60, 5, seed=1)
    labels = torch.randint(5, (60,), generator=torch.Generator().manual_seed(2))
    weights = mixture(logits, labels) if combine == "weighted" else None
    policy = Policy((None,) * 3, temperatures=(1.0, 0.7, 2.0, 1.0), combine=combine, weights=weights, fallback=fallback)
    policy = replace(policy, criterion=criterion, coefficients=scores(policy, criterion, logits, labels) or None)
    classes, sure = answers(policy, logits)
    middle = tuple(sure.median(dim=1).values.tolist())[:3]
    policy = replace(policy, thresholds=(0.5, 0.5, 0.5) if criterion == "patience" else middle)
    stored = follow(policy, logits)
    assert 0 < int((stored.exits == 3).sum()) < 60
    for size in (1, 7, 60):
        walked = [Stored(logits).predict(some.view(-1, 1, 1, 1), policy) for some in torch.arange(60).split(size)]
        assert torch.equal(torch.cat([each.classes for each in walked]), stored.classes)
        assert torch.equal(torch.cat([each.exits for each in walked]), stored.exits)
        assert torch.equal(torch.cat([each.confidence for each in walked]), stored.confidence)
    if combine == "last" and fallback == "last":
        assert torch.equal(classes, logits.argmax(dim=-1))


def test_answers_are_averaged_over_the_exits_passed() -> None:
    p = torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]], [[0.4, 0.6]]])
    mean = Policy((None, None), combine="mean")
    assert answers(mean, p.log())[0].flatten().tolist() == [0, 0, 0]
    assert answers(mean, p.log())[1].flatten().tolist() == pytest.approx([0.9, 0.55, 0.5], abs=1e-6)
    weighted = Policy((None, None), combine="weighted", weights=((1.0,), (0.0, 1.0), (0.0, 0.5, 0.5)))
    assert answers(weighted, p.log())[1].flatten().tolist() == pytest.approx([0.9, 0.8, 0.7])
    with pytest.raises(InputError, match=r"policy\.weights: .* that sum to 1"):
        replace(weighted, weights=((1.0,), (0.0, 1.0), (0.0, 0.5, 0.4)))


def test_where_no_exit_is_sure_the_most_confident_may_answer() -> None:
    p = torch.tensor([[[0.7, 0.3]], [[0.2, 0.8]], [[0.6, 0.4]]])
    surest = follow(Policy((0.9, 0.9), fallback="most_confident"), p.log())
    assert (surest.classes.item(), surest.exits.item()) == (1, 2)
    assert surest.confidence.item() == pytest.approx(0.8)
    assert follow(Policy((0.9, 0.9)), p.log()).classes.item() == 0


def test_a_learned_score_finds_the_pictures_that_a_deeper_exit_corrects() -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (2000,), generator=draw)
    logits = torch.randn(2, 2000, 3, generator=draw)
    logits[1, torch.arange(2000), labels] += 4
    logits[0, torch.arange(2000), labels] += torch.where(labels == 0, 3.0, 0.5)
    base = Policy((None,))
    target = (logits[0].argmax(dim=1) != labels) & (logits[1].argmax(dim=1) == labels)
    sure = crossed(base, "correctable", logits, labels, seed=0)
    plain = answers(base, logits)[1]
    learned, usual = (auroc(1 - each[0], target) for each in (sure, plain))
    assert learned is not None
    assert usual is not None
    assert learned > usual - 0.01
    assert (1 - sure[0]).mean().item() == pytest.approx(target.double().mean().item(), abs=0.02)


@pytest.mark.parametrize("criterion", PLAIN)
@pytest.mark.parametrize("classes", [2, 10, 17, 1000])
def test_a_picture_has_the_same_confidence_in_any_batch(criterion: str, classes: int) -> None:
    logits = random_logits(3, 101, classes, seed=0)
    together = confidences(logits, criterion, (0.7, 1.0, 1.9))
    for size in (1, 2, 7, 64):
        pieces = [confidences(piece, criterion, (0.7, 1.0, 1.9)) for piece in logits.split(size, dim=1)]
        assert torch.equal(torch.cat(pieces, dim=1), together)


@given(
    criterion=st.sampled_from(PLAIN),
    values=st.lists(st.floats(width=32), min_size=12, max_size=12),
    heat=st.floats(1e-3, 1e3),
)
def test_confidence_is_in_0_to_1_whatever_the_logits(criterion: str, values: list[float], heat: float) -> None:
    found = confidences(torch.tensor(values).view(2, 2, 3), criterion, (heat, heat))
    assert found.dtype == torch.float32
    assert ((found >= 0) & (found <= 1)).all()


def test_confidences_are_what_they_are_called() -> None:
    p = torch.tensor([0.5, 0.3, 0.2])
    logits = p.log()[None, None]
    entropy = -sum(float(x) * math.log(float(x)) for x in p)
    assert confidences(logits, "max_probability").item() == pytest.approx(0.5)
    assert confidences(logits, "margin").item() == pytest.approx(0.2)
    assert confidences(logits, "entropy").item() == pytest.approx(1 - entropy / math.log(3))
    assert confidences(2 * logits, "margin", (2.0,)).item() == pytest.approx(0.2)
    even = torch.zeros(1, 1, 5)
    assert [confidences(even, criterion).item() for criterion in PLAIN] == pytest.approx([0.2, 0, 0, 1], abs=1e-6)


def test_patience_counts_the_exits_that_agree_up_to_this_one() -> None:
    answers = torch.tensor([[0, 0, 1], [0, 1, 1], [0, 1, 0], [0, 1, 0]])
    logits = F.one_hot(answers, 3).float()
    runs = torch.tensor([[1, 1, 1], [2, 1, 2], [3, 2, 1], [4, 3, 2]])
    assert torch.equal(confidences(logits, "patience"), runs / 4)
    assert follow(Policy((0.75, 0.75, 0.75), "patience"), logits).exits.tolist() == [2, 3, 3]


@given(
    criterion=st.sampled_from(PLAIN),
    high=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    lower=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    seed=st.integers(0, 1000),
)
def test_lower_thresholds_send_no_picture_deeper(
    criterion: str, high: list[float], lower: list[float], seed: int
) -> None:
    logits = random_logits(4, 50, 5, seed)
    low = tuple(a * b for a, b in zip(high, lower, strict=True))
    assert (follow(Policy(low, criterion), logits).exits <= follow(Policy(tuple(high), criterion), logits).exits).all()


def test_zero_lets_all_go_and_none_not_even_the_surest() -> None:
    logits = torch.tensor([[[0.0, 0.0], [1e6, 0.0], [math.nan, math.inf]]]).repeat(2, 1, 1)
    assert follow(Policy((0.0,)), logits).ran == (3, 0)
    assert follow(Policy((None,)), logits).ran == (3, 3)
    assert follow(Policy((1.0,)), logits).exits.tolist() == [1, 0, 1]


def test_a_policy_survives_json() -> None:
    adapter = TypeAdapter(Policy)
    policy = Policy((0.25, None), "entropy", (1.0, 2.5, 0.5))
    assert adapter.validate_json(adapter.dump_json(policy)) == policy
    assert b'"thresholds":[0.25,null]' in adapter.dump_json(policy)


def test_all_that_is_wrong_with_a_policy_is_reported_at_once() -> None:
    with pytest.raises(InputError) as caught:
        Policy((0.5, 1.5, math.nan), "max_probabilty", (1.0, 0.0, 1.0, math.inf))
    assert caught.value.problems == (
        "policy.thresholds: got 1.5 for exit 2; accepted: a number in [0, 1], or null for never",
        "policy.thresholds: got nan for exit 3; accepted: a number in [0, 1], or null for never",
        f"policy.criterion: got 'max_probabilty' (nearest: max_probability); accepted: {', '.join(CRITERIA)}",
        "policy.temperatures: got 0.0 for exit 2; accepted: a finite number > 0",
        "policy.temperatures: got inf for exit 4; accepted: a finite number > 0",
    )
    with pytest.raises(InputError, match=r"policy\.temperatures: got 1; accepted: 2, one for each exit, the last incl"):
        Policy((0.5,), temperatures=(1.0,))


def test_logits_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"policy: got one for 3 exits; accepted: 2"):
        follow(Policy((0.5, 0.5)), torch.zeros(2, 4, 3))
    with pytest.raises(InputError, match=r"temperatures: got 3; accepted: 2, one for each exit"):
        confidences(torch.zeros(2, 4, 3), temperatures=(1.0, 1.0, 1.0))
    with pytest.raises(InputError, match=r"logits: got shape \(2, 4\); accepted: \[exits, pictures, classes\]"):
        confidences(torch.zeros(2, 4))
    with pytest.raises(InputError, match=r"criterion: got 'sure' .*; accepted: max_probability, "):
        confidences(torch.zeros(2, 4, 3), "sure")


def likelihood(logits: Tensor, labels: Tensor, heat: float) -> float:
    return -float(F.cross_entropy(logits.double() / heat, labels))


def drawn_labels(logits: Tensor, seed: int) -> Tensor:
    p = logits.double().softmax(dim=-1)
    return p.multinomial(1, generator=torch.Generator().manual_seed(seed))[:, 0]


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_a_known_temperature_is_found(true: float) -> None:
    logits = random_logits(1, 20_000, 10, seed=0)[0]
    labels = drawn_labels(logits, seed=1)
    found = temperature(logits * true, labels)
    assert found == pytest.approx(true, rel=0.03)
    best = likelihood(logits * true, labels, found)
    assert all(likelihood(logits * true, labels, found * other) < best for other in (0.97, 1.03))


@given(seed=st.integers(0, 100), scale=st.floats(0.2, 5.0))
def test_temperatures_scale_with_the_logits(seed: int, scale: float) -> None:
    logits = random_logits(1, 300, 4, seed, size=1.0)[0].double()
    labels = drawn_labels(logits, seed)
    assert temperature(scale * logits, labels) == pytest.approx(scale * temperature(logits, labels), rel=1e-6)


def test_temperatures_stay_in_range() -> None:
    labels = torch.arange(300) % 3
    right = F.one_hot(labels, 3).float()
    assert 0.05 <= temperature(right, labels) < 0.5, "right on all: sure, but not beyond its 300 pictures"
    assert temperature(100 * right, labels) == pytest.approx(100 * temperature(right, labels))
    assert temperature(1e-3 * right, labels) == pytest.approx(0.05)
    assert temperature(-right, labels) == pytest.approx(20)
    assert temperature(0 * right, labels) == 1
    assert math.isfinite(temperature(1e30 * right, labels))


def test_labels_that_do_not_fit_are_refused() -> None:
    for logits, labels, message in (
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), r"logits: got shape \(1, 0, 3\); accepted: .* 1 picture"),
        (torch.zeros(4, 3), torch.zeros(5, dtype=torch.long), r"labels: .* shape \(5,\); accepted: .* shape \(4,\)"),
        (torch.zeros(4, 3), torch.zeros(4), r"labels: got torch\.float32"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), "labels: got 0 to 3; accepted: 0 to 2"),
        (torch.tensor([[math.nan, 0.0]]), torch.tensor([0]), "infinite or not a number"),
    ):
        with pytest.raises(InputError, match=message):
            temperature(logits, labels)
