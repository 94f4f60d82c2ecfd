"""Calibration: goals are kept, nothing better was overlooked, and a certificate means what it says."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import Tensor

from ramify.errors import InputError
from ramify.ops.calibrate import Calibration, calibrate
from ramify.ops.certify import pictures_needed
from ramify.ops.policy import Criterion, Policy, confidences, follow, leaving
from ramify.seeds import generator

COSTS = (1.0, 2.0, 3.0, 4.0)
CRITERIA: tuple[Criterion, ...] = ("max_probability", "margin", "entropy", "patience")


def simulated(pictures: int, exits: int = 4, seed: int = 0, classes: int = 10) -> tuple[Tensor, Tensor]:
    """Logits of a network that is right on 57, ... 96 % of the pictures, deeper exits erring much as those before."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (pictures,), generator=draw)
    rivals = (labels + torch.randint(1, classes, (pictures,), generator=draw)) % classes
    ease, likeness, walk = (torch.randn(pictures, *shape, generator=draw) for shape in ((), (classes,), (classes,)))
    logits = torch.zeros(exits, pictures, classes)
    for i, skill in enumerate(torch.linspace(0.5, 2.5, exits)):
        walk = 0.8 * walk + 0.6 * torch.randn(pictures, classes, generator=draw)
        logits[i] = 0.7 * likeness + walk
        logits[i, torch.arange(pictures), labels] += 2 * skill + 1.8 * ease + 1
        logits[i, torch.arange(pictures), rivals] += 1
    return 2 * logits, labels


def few(pictures: int, exits: int, seed: int, coarse: bool) -> tuple[Tensor, Tensor]:
    """Random logits of three classes, where ``coarse`` with many equal confidences."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (pictures,), generator=draw)
    logits = 2 * torch.randn(exits, pictures, 3, generator=draw)
    logits[:, torch.arange(pictures), labels] += torch.linspace(0, 3, exits)[:, None]
    return (logits.round() if coarse else logits), labels


def outcomes(
    logits: Tensor, labels: Tensor, costs: tuple[float, ...], criterion: Criterion = "max_probability"
) -> list[tuple[float, float]]:
    """Accuracy and average cost of each policy with a threshold at some confidence, or never, at each exit."""
    sure = confidences(logits, criterion)
    right = (logits.argmax(dim=-1) == labels).double()
    levels = [[*row.unique().tolist(), None] for row in sure[:-1]]
    found = []
    for thresholds in itertools.product(*levels):
        exits = leaving(Policy(thresholds, criterion), sure)
        found.append((right.gather(0, exits[None]).mean().item(), torch.tensor(costs).double()[exits].mean().item()))
    return found


cases = given(
    pictures=st.integers(1, 7),
    exits=st.integers(1, 4),
    seed=st.integers(0, 10_000),
    coarse=st.booleans(),
    criterion=st.sampled_from(CRITERIA),
    goal=st.floats(0, 0.99),
)


@settings(max_examples=150)
@cases
def test_no_policy_is_cheaper(
    pictures: int, exits: int, seed: int, coarse: bool, criterion: Criterion, goal: float
) -> None:
    logits, labels = few(pictures, exits, seed, coarse)
    costs = COSTS[:exits]
    found = calibrate(logits, labels, costs, max_drop=goal, criterion=criterion, scale=False)
    possible = outcomes(logits, labels, costs, criterion)
    best = min(cost for accuracy, cost in possible if accuracy >= found.last_accuracy - goal - 1e-9)
    assert found.accuracy >= found.last_accuracy - goal - 1e-9
    assert found.bound <= best + 1e-5
    if exits <= 3:
        assert found.cost == pytest.approx(best, abs=1e-5) == pytest.approx(found.bound, abs=1e-5)
    else:
        assert found.cost >= best - 1e-5


@settings(max_examples=150)
@cases
def test_no_policy_is_more_accurate(
    pictures: int, exits: int, seed: int, coarse: bool, criterion: Criterion, goal: float
) -> None:
    logits, labels = few(pictures, exits, seed, coarse)
    costs = COSTS[:exits]
    limit = costs[0] + goal * (costs[-1] - costs[0])
    found = calibrate(logits, labels, costs, max_cost=limit, criterion=criterion, scale=False)
    possible = outcomes(logits, labels, costs, criterion)
    best, cheapest = max((accuracy, -cost) for accuracy, cost in possible if cost <= limit + 1e-6)
    assert found.cost <= limit * (1 + 1e-9)
    assert found.bound >= best - 1e-6
    if exits <= 3:
        assert found.accuracy == pytest.approx(best) == pytest.approx(found.bound)
        assert found.cost == pytest.approx(-cheapest)
    else:
        assert found.accuracy <= best + 1e-6


def test_with_four_exits_hardly_a_better_policy_is_overlooked() -> None:
    missed = 0
    for seed in range(30):
        logits, labels = few(7, 4, seed, coarse=False)
        found = calibrate(logits, labels, COSTS, max_drop=0.15, scale=False)
        possible = outcomes(logits, labels, COSTS)
        best = min(cost for accuracy, cost in possible if accuracy >= found.last_accuracy - 0.15)
        missed += found.cost > best + 1e-9
    assert missed <= 2


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("exits", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("goal", ["max_drop", "max_cost"])
def test_what_is_reported_is_what_the_policy_does(criterion: Criterion, exits: int, goal: str) -> None:
    logits, labels = simulated(600, exits)
    costs = tuple(1.5 * i + 2 for i in range(exits))
    limit = 0.02 if goal == "max_drop" else 0.5 * (costs[0] + costs[-1])
    found = calibrate(logits, labels, costs, criterion=criterion, **{goal: limit})  # type: ignore[arg-type]
    answers = follow(found.policy, logits)
    assert found.accuracy == pytest.approx((answers.classes == labels).float().mean().item())
    assert found.cost == pytest.approx(torch.tensor(costs)[answers.exits].mean().item())
    assert found.last_accuracy == pytest.approx((logits[-1].argmax(dim=-1) == labels).float().mean().item())
    assert found.last_cost == costs[-1]
    assert found.exits == pytest.approx((answers.exits.bincount(minlength=exits) / len(labels)).tolist())
    assert (found.max_drop, found.max_cost) == ((limit, None) if goal == "max_drop" else (None, limit))
    assert found.policy.criterion == criterion
    assert (found.policy.temperatures is None) == (criterion == "patience")
    if goal == "max_drop":
        assert found.accuracy >= found.last_accuracy - limit
        assert found.bound <= found.cost
        assert exits == 1 or criterion == "patience" or found.cost < found.last_cost
    else:
        assert found.cost <= limit
        assert found.accuracy <= found.bound


def test_more_freedom_is_never_worse() -> None:
    logits, labels = simulated(1500, 6)
    costs = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    drops = [calibrate(logits, labels, costs, max_drop=drop) for drop in (0.0, 0.005, 0.02, 0.1, 0.3, 0.9)]
    assert [found.cost for found in drops] == sorted((found.cost for found in drops), reverse=True)
    assert drops[-1].exits[0] == 1.0
    limits = [calibrate(logits, labels, costs, max_cost=cost) for cost in (1.0, 1.5, 2.5, 4.0, 6.0)]
    assert [found.accuracy for found in limits] == sorted(found.accuracy for found in limits)
    assert limits[0].policy.thresholds[0] == 0.0
    assert limits[-1].accuracy >= limits[-1].last_accuracy


def test_thresholds_lie_midway_between_the_confidences_they_part() -> None:
    logits, labels = simulated(800)
    policy = calibrate(logits, labels, COSTS, max_drop=0.01).policy
    sure, exits = confidences(logits, temperatures=policy.temperatures), follow(policy, logits).exits
    for i, threshold in enumerate(policy.thresholds):
        assert threshold is not None
        lowest, highest = sure[i, exits == i].min().item(), sure[i, exits > i].max().item()
        assert highest < threshold <= lowest
        assert threshold == pytest.approx((lowest + highest) / 2, abs=1e-7)


def test_neighbouring_floats_are_parted() -> None:
    """Between them there is no middle."""
    labels = torch.tensor([0, 1])
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    while confidences(first[None])[0].unique().numel() == 1:
        first[0, 0] = torch.nextafter(first[0, 0], torch.tensor(2.0))
    logits = torch.stack((first, torch.eye(2)))
    assert calibrate(logits, labels, (1.0, 2.0), max_drop=0.0, scale=False).exits == (0.5, 0.5)


def test_calibration_survives_json() -> None:
    adapter = TypeAdapter(Calibration)
    logits, labels = simulated(600)
    for found in (
        calibrate(logits, labels, COSTS, max_drop=0.0),
        calibrate(logits, labels, (1, 2, 3, 4), max_cost=2, criterion="patience"),
        calibrate(logits, labels, COSTS, max_drop=0.05, confidence=0.9),
    ):
        assert adapter.validate_json(adapter.dump_json(found)) == found
        plain = adapter.dump_python(found)
        assert all(type(value) in (float, int, type(None)) for key, value in plain.items() if key in {"bound", "cost"})


def test_the_inputs_and_the_random_numbers_are_left_alone_and_the_answer_is_the_same_again() -> None:
    logits, labels = simulated(600)
    before, state = logits.clone(), torch.get_rng_state()
    first, again, other = (calibrate(logits, labels, COSTS, max_drop=0.05, confidence=0.9, seed=s) for s in (0, 0, 1))
    assert first == again != other
    assert torch.equal(logits, before)
    assert torch.equal(torch.get_rng_state(), state)


POPULATION, POPULATION_LABELS = simulated(20_000, seed=1)
POPULATION_CONFIDENCE = confidences(POPULATION)
POPULATION_RIGHT = (POPULATION.argmax(dim=-1) == POPULATION_LABELS).float()
RISK = 0.05


def true_loss(policy: Policy) -> float:
    """The accuracy that a policy without temperatures loses on the whole population."""
    exits = leaving(policy, POPULATION_CONFIDENCE)
    return (POPULATION_RIGHT[-1] - POPULATION_RIGHT.gather(0, exits[None])[0]).mean().item()


def sampled(seed: int, pictures: int = 400) -> tuple[Tensor, Tensor]:
    """Independent draws from the population."""
    rows = torch.randint(len(POPULATION_LABELS), (pictures,), generator=torch.Generator().manual_seed(seed))
    return POPULATION[:, rows], POPULATION_LABELS[rows]


def test_a_certified_policy_loses_too_much_in_five_of_a_hundred_draws_at_most() -> None:
    draws, broken, saved = 250, 0, 0.0
    for seed in range(draws):
        found = calibrate(*sampled(seed), COSTS, max_drop=RISK, confidence=0.95, scale=False, seed=seed)
        broken += true_loss(found.policy) > RISK
        saved += (1 - found.cost / found.last_cost) / draws
    assert broken <= 0.05 * draws + 2 * (0.05 * 0.95 * draws) ** 0.5
    assert saved > 0.2


def test_without_a_certificate_far_more_draws_lose_too_much() -> None:
    draws = 100
    broken = sum(
        true_loss(calibrate(*sampled(seed), COSTS, max_drop=RISK, scale=False).policy) > RISK for seed in range(draws)
    )
    assert broken > 0.5 * draws


def test_one_half_chooses_and_the_other_tests() -> None:
    logits, labels = simulated(1000)
    choosing, testing = torch.randperm(1000, generator=generator(3, "certify")).split(500)
    found = calibrate(logits, labels, COSTS, max_drop=RISK, confidence=0.95, seed=3)
    assert found.certificate is not None
    answers = follow(found.policy, logits[:, testing]).classes == labels[testing]
    last = logits[-1, testing].argmax(dim=-1) == labels[testing]
    assert found.certificate.lost == int((last & ~answers).sum()) > 0
    assert found.certificate.gained == int((answers & ~last).sum())
    assert (found.pictures, found.accuracy) == (500, answers.double().mean().item())

    def with_early_exits_wrong_on(rows: Tensor) -> Calibration:
        changed = logits.clone()
        changed[:-1, rows] *= -1
        return calibrate(changed, labels, COSTS, max_drop=RISK, confidence=0.95, seed=3)

    tested_elsewhere, chosen_elsewhere = with_early_exits_wrong_on(testing), with_early_exits_wrong_on(choosing)
    assert tested_elsewhere.policy.temperatures == found.policy.temperatures != chosen_elsewhere.policy.temperatures
    assert tested_elsewhere.exits[-1] > 0.95, "what the test half refutes is not certified"
    assert chosen_elsewhere.cost > found.cost


def test_with_many_pictures_a_certificate_costs_little_more_than_the_best_policy() -> None:
    logits, labels = simulated(10_000, seed=2)
    found = calibrate(logits, labels, COSTS, max_drop=0.02, confidence=0.95)
    assert found.certificate is not None
    assert found.certificate.p_value <= 0.05
    assert found.certificate.pictures == found.pictures == 5000
    assert (found.certificate.lost - found.certificate.gained) / 5000 == pytest.approx(
        found.last_accuracy - found.accuracy
    )
    best = calibrate(logits, labels, COSTS, max_drop=0.02)
    assert best.cost < found.cost < best.cost + 0.1 * best.last_cost
    assert found.certificate.passed > 10


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_can_be_certified(criterion: Criterion) -> None:
    costs = tuple(float(i) for i in range(1, 9))
    found = calibrate(*simulated(4000, exits=8), costs, max_drop=0.1, criterion=criterion, confidence=0.95)
    assert found.certificate is not None
    assert found.certificate.passed > 0
    assert found.cost < 0.9 * found.last_cost


def test_where_nothing_can_be_certified_every_picture_goes_to_the_last_exit() -> None:
    labels = torch.arange(1000) % 2
    right = torch.nn.functional.one_hot(labels, 2).float()
    logits = torch.stack((torch.tensor([1.0, 0.0]).expand(1000, 2), right))  # the first exit knows nothing
    found = calibrate(logits, labels, (1.0, 2.0), max_drop=0.05, confidence=0.95)
    assert found.policy.thresholds == (None,)
    assert (found.cost, found.accuracy, found.exits) == (2.0, 1.0, (0.0, 1.0))
    assert found.certificate is not None
    assert (found.certificate.passed, found.certificate.lost, found.certificate.gained) == (0, 0, 0)
    assert found.certificate.p_value <= 0.05


def test_too_few_pictures_for_a_certificate_are_refused_with_how_many_it_takes() -> None:
    needed = pictures_needed(0.02, 0.95)
    logits, labels = simulated(needed)
    assert calibrate(logits, labels, COSTS, max_drop=0.02, confidence=0.95).certificate is not None
    with pytest.raises(InputError, match=rf"with {needed - 1} pictures; accepted: at least {needed} pictures"):
        calibrate(logits[:, 1:], labels[1:], COSTS, max_drop=0.02, confidence=0.95)


def test_what_does_not_fit_is_refused() -> None:
    logits, labels = simulated(50, exits=2)

    def refuses(
        message: str,
        *,
        costs: tuple[float, ...] = (1.0, 2.0),
        max_drop: float | None = None,
        max_cost: float | None = None,
        confidence: float | None = None,
        labels: Tensor = labels,
    ) -> None:
        with pytest.raises(InputError, match=message):
            calibrate(logits, labels, costs, max_drop=max_drop, max_cost=max_cost, confidence=confidence)

    refuses("max_drop and max_cost: got neither; accepted: one of them")
    refuses("max_drop and max_cost: got both; accepted: one of them", max_drop=0.1, max_cost=1.5)
    refuses(r"max_drop: got 1\.0; accepted: a number in \[0, 1\)", max_drop=1.0)
    refuses(r"max_drop: got -0\.1; accepted: a number in \[0, 1\)", max_drop=-0.1)
    refuses(r"max_drop: got 0\.0; accepted with a confidence: a number in \(0, 1\)", max_drop=0.0, confidence=0.95)
    refuses(r"confidence: got 95; accepted: a number in \(0, 1\)", max_drop=0.1, confidence=95)
    refuses(r"confidence: got 0\.95 with max_cost; accepted: with max_drop only", max_cost=1.5, confidence=0.95)
    refuses(r"costs: got 3; accepted: 2, one for each exit", max_drop=0.1, costs=(1.0, 2.0, 3.0))
    refuses(r"costs: got 2, 2; accepted: rising numbers > 0", max_drop=0.1, costs=(2.0, 2.0))
    refuses(r"costs: got 0, 2; accepted: rising numbers > 0", max_drop=0.1, costs=(0.0, 2.0))
    refuses(r"max_cost: got nan; accepted: at least 1", max_cost=float("nan"))
    refuses(r"labels: .* accepted: whole numbers of shape \(50,\)", max_drop=0.1, labels=labels[1:])
    reached = f"{calibrate(logits, labels, (1.0, 2.0), max_cost=1.0).accuracy:.2%}"
    refuses(rf"max_cost: got 0\.5; accepted: at least 1, at which .* first exit and {reached} of", max_cost=0.5)
    with pytest.raises(InputError, match=r"logits: got shape \(2, 0, 10\); accepted: .* at least 1 exit, 1 picture"):
        calibrate(logits[:, :0], labels[:0], (1.0, 2.0), max_drop=0.1)
