"""Calibration: goals are kept, nothing better was overlooked, and a certificate means what it says."""

import itertools
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import Tensor

from ramify.errors import InputError
from ramify.ops.exits.calibrate import Calibration, calibrate
from ramify.ops.exits.certify import pictures_needed
from ramify.ops.exits.policy import CRITERIA, Policy, confidences, follow, leaving
from ramify.seeds import generator
from tests.conftest import NIGHTLY

plainly = partial(calibrate, against="last", combine="last")
COSTS = (1.0, 2.0, 3.0, 4.0)
PLAIN = tuple(name for name, each in CRITERIA.items() if each.targets is None)


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
    logits: Tensor, labels: Tensor, costs: tuple[float, ...], criterion: str = "max_probability"
) -> list[tuple[float, float]]:
    """Accuracy and average cost of each policy with a threshold at some confidence, or never, at each exit."""
    sure = confidences(logits, criterion)
    right = (logits.argmax(dim=-1) == labels).double()
    levels = [[*row.unique().tolist(), None] for row in sure[:-1]]
    calibration = []
    for thresholds in itertools.product(*levels):
        exits = leaving(Policy(thresholds, criterion), sure)
        calibration.append(
            (right.gather(0, exits[None]).mean().item(), torch.tensor(costs).double()[exits].mean().item())
        )
    return calibration


cases = given(
    pictures=st.integers(1, 7),
    exits=st.integers(1, 4),
    seed=st.integers(0, 10_000),
    coarse=st.booleans(),
    criterion=st.sampled_from(PLAIN),
    goal=st.floats(0, 0.99),
)


@settings(max_examples=150)
@cases
def test_no_policy_is_cheaper(pictures: int, exits: int, seed: int, coarse: bool, criterion: str, goal: float) -> None:
    logits, labels = few(pictures, exits, seed, coarse)
    costs = COSTS[:exits]
    calibration = plainly(logits, labels, costs, max_drop=goal, criterion=criterion, scale=False)
    possible = outcomes(logits, labels, costs, criterion)
    best = min(cost for accuracy, cost in possible if accuracy >= calibration.last_accuracy - goal - 1e-9)
    assert calibration.accuracy >= calibration.last_accuracy - goal - 1e-9
    assert calibration.bound <= best + 1e-5
    if exits <= 3:
        assert calibration.cost == pytest.approx(best, abs=1e-5) == pytest.approx(calibration.bound, abs=1e-5)
    else:
        assert calibration.cost >= best - 1e-5


@settings(max_examples=150)
@cases
def test_no_policy_is_more_accurate(
    pictures: int, exits: int, seed: int, coarse: bool, criterion: str, goal: float
) -> None:
    logits, labels = few(pictures, exits, seed, coarse)
    costs = COSTS[:exits]
    limit = costs[0] + goal * (costs[-1] - costs[0])
    calibration = plainly(logits, labels, costs, max_cost=limit, criterion=criterion, scale=False)
    possible = outcomes(logits, labels, costs, criterion)
    best, cheapest = max((accuracy, -cost) for accuracy, cost in possible if cost <= limit + 1e-6)
    assert calibration.cost <= limit * (1 + 1e-9)
    assert calibration.bound >= best - 1e-6
    if exits <= 3:
        assert calibration.accuracy == pytest.approx(best) == pytest.approx(calibration.bound)
        assert calibration.cost == pytest.approx(-cheapest)
    else:
        assert calibration.accuracy <= best + 1e-6


def test_with_four_exits_hardly_a_better_policy_is_overlooked() -> None:
    missed = 0
    for seed in range(30):
        logits, labels = few(7, 4, seed, coarse=False)
        calibration = plainly(logits, labels, COSTS, max_drop=0.15, scale=False)
        possible = outcomes(logits, labels, COSTS)
        best = min(cost for accuracy, cost in possible if accuracy >= calibration.last_accuracy - 0.15)
        missed += calibration.cost > best + 1e-9
    assert missed <= 2


@pytest.mark.parametrize("criterion", PLAIN)
@pytest.mark.parametrize("exits", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("goal", ["max_drop", "max_cost"])
def test_what_is_reported_is_what_the_policy_does(criterion: str, exits: int, goal: str) -> None:
    logits, labels = simulated(600, exits)
    costs = tuple(1.5 * i + 2 for i in range(exits))
    limit = 0.02 if goal == "max_drop" else 0.5 * (costs[0] + costs[-1])
    calibration = plainly(logits, labels, costs, criterion=criterion, **{goal: limit})  # type: ignore[arg-type]
    answers = follow(calibration.policy, logits)
    assert calibration.accuracy == pytest.approx((answers.classes == labels).float().mean().item())
    assert calibration.cost == pytest.approx(torch.tensor(costs)[answers.exits].mean().item())
    assert calibration.last_accuracy == pytest.approx((logits[-1].argmax(dim=-1) == labels).float().mean().item())
    assert calibration.last_cost == costs[-1]
    assert calibration.exits == pytest.approx((answers.exits.bincount(minlength=exits) / len(labels)).tolist())
    assert (calibration.max_drop, calibration.max_cost) == ((limit, None) if goal == "max_drop" else (None, limit))
    assert calibration.policy.criterion == criterion
    assert (calibration.policy.temperatures is None) == (criterion == "patience")
    if goal == "max_drop":
        assert calibration.accuracy >= calibration.last_accuracy - limit
        assert calibration.bound <= calibration.cost
        assert exits == 1 or criterion == "patience" or calibration.cost < calibration.last_cost
    else:
        assert calibration.cost <= limit
        assert calibration.accuracy <= calibration.bound


def test_more_freedom_is_never_worse() -> None:
    logits, labels = simulated(1500, 6)
    costs = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    drops = [plainly(logits, labels, costs, max_drop=drop) for drop in (0.0, 0.005, 0.02, 0.1, 0.3, 0.9)]
    assert [calibration.cost for calibration in drops] == sorted(
        (calibration.cost for calibration in drops), reverse=True
    )
    assert drops[-1].exits[0] == 1.0
    limits = [plainly(logits, labels, costs, max_cost=cost) for cost in (1.0, 1.5, 2.5, 4.0, 6.0)]
    assert [calibration.accuracy for calibration in limits] == sorted(calibration.accuracy for calibration in limits)
    assert limits[0].policy.thresholds[0] == 0.0
    assert limits[-1].accuracy >= limits[-1].last_accuracy


def test_thresholds_lie_midway_between_the_confidences_they_part() -> None:
    logits, labels = simulated(800)
    policy = plainly(logits, labels, COSTS, max_drop=0.01).policy
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
    assert plainly(logits, labels, (1.0, 2.0), max_drop=0.0, scale=False).exits == (0.5, 0.5)


def test_calibration_survives_json() -> None:
    adapter = TypeAdapter(Calibration)
    logits, labels = simulated(600)
    for calibration in (
        plainly(logits, labels, COSTS, max_drop=0.0),
        plainly(logits, labels, (1, 2, 3, 4), max_cost=2, criterion="patience"),
        plainly(logits, labels, COSTS, max_drop=0.05, confidence=0.9),
    ):
        assert adapter.validate_json(adapter.dump_json(calibration)) == calibration
        plain = adapter.dump_python(calibration)
        assert all(type(value) in (float, int, type(None)) for key, value in plain.items() if key in {"bound", "cost"})


def test_the_inputs_and_the_random_numbers_are_left_alone_and_the_answer_is_the_same_again() -> None:
    logits, labels = simulated(600)
    before, state = logits.clone(), torch.get_rng_state()
    first, again, other = (plainly(logits, labels, COSTS, max_drop=0.05, confidence=0.9, seed=s) for s in (0, 0, 1))
    assert first == again != other
    assert torch.equal(logits, before)
    assert torch.equal(torch.get_rng_state(), state)


POPULATION, POPULATION_LABELS = simulated(8_000, seed=1)
POPULATION_RIGHT = (POPULATION.argmax(dim=-1) == POPULATION_LABELS).float()
RISK = 0.05


def true_loss(policy: Policy) -> float:
    """The accuracy that a policy loses against the last exit on the whole population."""
    return (
        POPULATION_RIGHT[-1].mean().item()
        - (follow(policy, POPULATION).classes == POPULATION_LABELS).float().mean().item()
    )


def sampled(seed: int, pictures: int = 400) -> tuple[Tensor, Tensor]:
    """Independent draws from the population."""
    rows = torch.randint(len(POPULATION_LABELS), (pictures,), generator=torch.Generator().manual_seed(seed))
    return POPULATION[:, rows], POPULATION_LABELS[rows]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_certified_policy_loses_too_much_in_five_of_a_hundred_draws_at_most(criterion: str) -> None:
    draws, broken, saved = 100 if NIGHTLY else 15, 0, 0.0
    for seed in range(draws):
        calibration = plainly(*sampled(seed), COSTS, max_drop=RISK, confidence=0.95, criterion=criterion, seed=seed)
        broken += true_loss(calibration.policy) > RISK
        saved += (1 - calibration.cost / calibration.last_cost) / draws
    assert broken <= 0.05 * draws + 2 * (0.05 * 0.95 * draws) ** 0.5
    assert saved >= (0.0 if criterion == "patience" else 0.1)


def test_without_a_certificate_far_more_draws_lose_too_much() -> None:
    draws = 40
    broken = sum(
        true_loss(plainly(*sampled(seed), COSTS, max_drop=RISK, scale=False).policy) > RISK for seed in range(draws)
    )
    assert broken > 0.5 * draws


def test_one_half_chooses_and_the_other_tests() -> None:
    logits, labels = simulated(1000)
    choosing, testing = torch.randperm(1000, generator=generator(3, "certify")).split(500)
    calibration = plainly(logits, labels, COSTS, max_drop=RISK, confidence=0.95, seed=3)
    assert calibration.certificate is not None
    answers = follow(calibration.policy, logits[:, testing]).classes == labels[testing]
    last = logits[-1, testing].argmax(dim=-1) == labels[testing]
    assert calibration.certificate.lost == int((last & ~answers).sum()) > 0
    assert calibration.certificate.gained == int((answers & ~last).sum())
    assert (calibration.pictures, calibration.accuracy) == (500, answers.double().mean().item())

    def with_early_exits_wrong_on(rows: Tensor) -> Calibration:
        changed = logits.clone()
        changed[:-1, rows] *= -1
        return plainly(changed, labels, COSTS, max_drop=RISK, confidence=0.95, seed=3)

    tested_elsewhere, chosen_elsewhere = with_early_exits_wrong_on(testing), with_early_exits_wrong_on(choosing)
    assert (
        tested_elsewhere.policy.temperatures == calibration.policy.temperatures != chosen_elsewhere.policy.temperatures
    )
    assert tested_elsewhere.exits[-1] > 0.95, "what the test half refutes is not certified"
    assert chosen_elsewhere.cost > calibration.cost


def test_with_many_pictures_a_certificate_costs_little_more_than_the_best_policy() -> None:
    logits, labels = simulated(10_000, seed=2)
    calibration = plainly(logits, labels, COSTS, max_drop=0.02, confidence=0.95)
    assert calibration.certificate is not None
    assert calibration.certificate.p_value <= 0.05
    assert calibration.certificate.pictures == calibration.pictures == 5000
    assert (calibration.certificate.lost - calibration.certificate.gained) / 5000 == pytest.approx(
        calibration.last_accuracy - calibration.accuracy
    )
    best = plainly(logits, labels, COSTS, max_drop=0.02)
    assert best.cost < calibration.cost < best.cost + 0.1 * best.last_cost
    assert calibration.certificate.passed > 10


@pytest.mark.parametrize("criterion", PLAIN)
def test_every_criterion_can_be_certified(criterion: str) -> None:
    costs = tuple(float(i) for i in range(1, 9))
    calibration = plainly(*simulated(4000, exits=8), costs, max_drop=0.1, criterion=criterion, confidence=0.95)
    assert calibration.certificate is not None
    assert calibration.certificate.passed > 0
    assert calibration.cost < 0.9 * calibration.last_cost


def test_where_nothing_can_be_certified_every_picture_goes_to_the_last_exit() -> None:
    labels = torch.arange(1000) % 2
    right = torch.nn.functional.one_hot(labels, 2).float()
    logits = torch.stack((torch.tensor([1.0, 0.0]).expand(1000, 2), right))  # the first exit knows nothing
    calibration = plainly(logits, labels, (1.0, 2.0), max_drop=0.05, confidence=0.95)
    assert calibration.policy.thresholds == (None,)
    assert (calibration.cost, calibration.accuracy, calibration.exits) == (2.0, 1.0, (0.0, 1.0))
    assert calibration.certificate is not None
    assert (calibration.certificate.passed, calibration.certificate.lost, calibration.certificate.gained) == (0, 0, 0)
    assert calibration.certificate.p_value <= 0.05


def test_too_few_pictures_for_a_certificate_are_refused_with_how_many_it_takes() -> None:
    needed = pictures_needed(0.02, 0.95)
    logits, labels = simulated(needed)
    assert plainly(logits, labels, COSTS, max_drop=0.02, confidence=0.95).certificate is not None
    with pytest.raises(InputError, match=rf"with {needed - 1} pictures; accepted: at least {needed} pictures"):
        plainly(logits[:, 1:], labels[1:], COSTS, max_drop=0.02, confidence=0.95)


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
            plainly(logits, labels, costs, max_drop=max_drop, max_cost=max_cost, confidence=confidence)

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
    reached = f"{plainly(logits, labels, (1.0, 2.0), max_cost=1.0).accuracy:.2%}"
    refuses(rf"max_cost: got 0\.5; accepted: at least 1, at which .* first exit and {reached} of", max_cost=0.5)
    with pytest.raises(InputError, match=r"logits: got shape \(2, 0, 10\); accepted: .* at least 1 exit, 1 picture"):
        plainly(logits[:, :0], labels[:0], (1.0, 2.0), max_drop=0.1)


def overthinking(pictures: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits of three exits, of which the second is the best."""
    logits, labels = simulated(pictures, exits=3, seed=seed)
    return logits[[0, 2, 1]], labels


def test_a_drop_is_measured_against_the_best_answer_there_is() -> None:
    logits, labels = overthinking(2000)
    alone = [(each.argmax(dim=-1) == labels).double().mean().item() for each in logits]
    assert alone[1] > alone[2] + 0.02
    calibration = calibrate(logits, labels, (1.0, 2.0, 3.0), max_drop=0.0)
    assert calibration.reference_accuracy is not None
    assert calibration.accuracy >= calibration.reference_accuracy >= max(alone)
    assert calibration.alone == pytest.approx(alone)
    against_last = calibrate(logits, labels, (1.0, 2.0, 3.0), max_drop=0.0, against="last")
    assert against_last.reference == "the last exit"
    assert against_last.reference_accuracy == pytest.approx(alone[2])
    assert against_last.cost < calibration.cost
    middle = calibrate(logits, labels, (1.0, 2.0, 3.0), max_drop=0.01, against="exit:2", combine="last")
    assert middle.reference == "exit 2 alone"
    assert middle.accuracy >= alone[1] - 0.01 - 1e-9
    with pytest.raises(InputError, match=r"against: got 'exit:4'; accepted: best, last, or exit:1 to exit:3"):
        calibrate(logits, labels, (1.0, 2.0, 3.0), max_drop=0.0, against="exit:4")


def test_a_certificate_is_against_the_exit_that_was_best_where_it_was_chosen() -> None:
    logits, labels = overthinking(4000)
    calibration = calibrate(logits, labels, (1.0, 2.0, 3.0), max_drop=0.02, confidence=0.95, combine="last")
    assert calibration.certificate is not None
    assert calibration.certificate.reference == calibration.reference == "exit 2 alone"
    assert calibration.accuracy >= calibration.alone[1] - 0.02
    assert calibration.exits[2] == 0.0
    assert calibration.cost < 2.0


def test_averaged_answers_are_taken_where_they_serve_the_goal_better() -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (3000,), generator=draw)
    logits = 1.5 * torch.randn(3, 3000, 4, generator=draw)  # exits that err independently of each other
    logits[:, torch.arange(3000), labels] += 1.5
    plain, free = (calibrate(logits, labels, (1.0, 2.0, 3.0), max_cost=3.0, combine=way) for way in ("last", None))
    assert free.policy.combine != "last"
    assert free.accuracy > plain.accuracy + 0.03
    answers = follow(free.policy, logits)
    assert free.accuracy == pytest.approx((answers.classes == labels).double().mean().item())
    with pytest.raises(InputError, match="combine: got 'sum'; accepted: last, mean, weighted"):
        calibrate(logits, labels, (1.0, 2.0, 3.0), max_cost=3.0, combine="sum")  # type: ignore[arg-type]


def test_an_exit_alone_that_no_policy_beats_is_named() -> None:
    labels = torch.arange(200) % 2
    right = 4 * torch.nn.functional.one_hot(labels, 2).float()
    blind = torch.zeros(200, 2)
    blind[:, 0] = 1
    logits = torch.stack((blind, right, blind))
    calibration = calibrate(logits, labels, (1.0, 2.0, 3.0), max_drop=0.0, combine="last")
    assert (calibration.reference, calibration.cut, calibration.accuracy, calibration.cost) == (
        "exit 2 alone",
        2,
        1.0,
        2.0,
    )
    varied = calibrate(*simulated(500, exits=3), (1.0, 2.0, 3.0), max_drop=0.0, combine="last")
    assert varied.cut is None


@pytest.mark.parametrize("criterion", [name for name in CRITERIA if name not in PLAIN])
@pytest.mark.parametrize("survivors", [False, True])
def test_a_learned_criterion_keeps_its_goal_on_cross_fitted_scores(criterion: str, survivors: bool) -> None:
    logits, labels = simulated(1200, exits=3)
    calibration = calibrate(
        logits, labels, (1.0, 2.0, 3.0), max_drop=0.01, criterion=criterion, combine="last", survivors=survivors
    )
    assert calibration.reference_accuracy is not None
    assert calibration.accuracy >= calibration.reference_accuracy - 0.01 - 1e-9
    assert calibration.cost < calibration.last_cost
    fitted = (follow(calibration.policy, logits).classes == labels).double().mean().item()
    assert fitted == pytest.approx(calibration.accuracy, abs=0.02)
