"""The analysis of exits, against six pictures worked out by hand and against what must hold for any logits."""

import dataclasses
import itertools
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ramify.errors import InputError
from ramify.ops.exits.analysis import BINS, CASES, LEVELS, Analysis, CurvePoint, analyze, reliability
from ramify.ops.exits.confusion import CONFUSION_EDGES, auroc, confusion_scores

# The probabilities of classes a, b, c that three exits give to six pictures; the answers to the right.
PROBABILITIES = torch.tensor(
    [
        [
            [0.90, 0.05, 0.05],  # a
            [0.50, 0.25, 0.25],  # a
            [0.20, 0.20, 0.60],  # c
            [0.20, 0.60, 0.20],  # b
            [0.80, 0.10, 0.10],  # a
            [0.50, 0.30, 0.20],  # a
        ],
        [
            [0.80, 0.10, 0.10],  # a
            [0.20, 0.70, 0.10],  # b
            [0.20, 0.20, 0.60],  # c
            [0.30, 0.50, 0.20],  # b
            [0.80, 0.10, 0.10],  # a
            [0.30, 0.20, 0.50],  # c
        ],
        [
            [0.90, 0.05, 0.05],  # a
            [0.05, 0.90, 0.05],  # b
            [0.50, 0.10, 0.40],  # a
            [0.70, 0.20, 0.10],  # a
            [0.60, 0.30, 0.10],  # a
            [0.10, 0.80, 0.10],  # b
        ],
    ],
    dtype=torch.float64,
)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
"""Pictures 0 and 1 are wasteful, 2 and 5 destructive, 3 is right at the last exit only, 4 never."""


def by_hand(exits: Tensor | None = None) -> Analysis:
    return analyze(PROBABILITIES.log(), LABELS, [10, 20, 40], "abc", [1.0, 2.0, 4.0], exits)


def at(analysis: Analysis, threshold: float) -> CurvePoint:
    return next(point for point in analysis.curve if point.threshold == threshold)


@st.composite
def answers(draw: st.DrawFn) -> tuple[Tensor, Tensor, list[int]]:
    """Logits ``[E, N, C]`` with many ties, labels and MACs."""
    exits, pictures, classes = draw(st.integers(1, 4)), draw(st.integers(1, 12)), draw(st.integers(2, 4))
    size = exits * pictures * classes
    logits = draw(st.lists(st.integers(-3, 3), min_size=size, max_size=size))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=pictures, max_size=pictures))
    steps = draw(st.lists(st.integers(1, 100), min_size=exits, max_size=exits))
    return (
        torch.tensor(logits).float().view(exits, pictures, classes),
        torch.tensor(labels),
        [*itertools.accumulate(steps)],
    )


def analysed(given: tuple[Tensor, Tensor, list[int]]) -> Analysis:
    logits, labels, macs = given
    return analyze(logits, labels, macs, [str(i) for i in range(logits.shape[2])])


def test_accuracy_alone_and_averaged_by_hand() -> None:
    assert by_hand().accuracy == pytest.approx((2 / 6, 4 / 6, 3 / 6))
    assert by_hand().averaged == pytest.approx((2 / 6, 3 / 6, 3 / 6))


def test_the_oracle_by_hand() -> None:
    oracle = by_hand().oracle
    assert oracle.accuracy == pytest.approx(5 / 6)
    assert oracle.exits == pytest.approx((2 / 6, 2 / 6, 2 / 6))
    assert oracle.macs == pytest.approx(70 / 3)
    assert oracle.milliseconds == pytest.approx(7 / 3)


def test_the_curve_by_hand() -> None:
    # Pictures 0 and 4 leave at the first exit, 1 at the second; 0, 1 and 3 are right where they leave.
    point = at(by_hand(), 0.65)
    assert point.exits == pytest.approx((2 / 6, 1 / 6, 3 / 6))
    assert point.accuracy == pytest.approx(3 / 6)
    assert point.macs == pytest.approx(160 / 6)
    assert point.milliseconds == pytest.approx(16 / 6)


def test_a_picture_leaves_where_its_probability_is_the_threshold() -> None:
    logits = torch.zeros(2, 1, 2)  # each class has probability 0.5, exactly
    analysis = analyze(logits, torch.tensor([0]), [1, 2], ["a", "b"])
    assert at(analysis, 0.5).exits == (1.0, 0.0)
    assert at(analysis, 0.55).exits == (0.0, 1.0)


def test_overthinking_by_hand() -> None:
    thinking = by_hand().overthinking
    assert (thinking.wasteful, thinking.destructive, thinking.late, thinking.never) == pytest.approx(
        (2 / 6, 2 / 6, 1 / 6, 1 / 6)
    )
    assert thinking.wasted_macs == pytest.approx((30 + 20) / 6)
    assert [(case.picture, case.exit) for case in thinking.wasteful_cases] == [(0, 0), (1, 1)]
    assert [(case.picture, case.exit) for case in thinking.destructive_cases] == [(2, 0), (5, 1)]
    (late,) = thinking.late_cases
    assert (late.picture, late.exit, late.answer, late.last, late.label) == (3, 0, "b", "a", "a")
    assert late.confidence == pytest.approx(0.6)


def test_cases_are_the_surest_and_of_equal_ones_the_first() -> None:
    sure = torch.arange(30) % 3 + 1.0  # pictures 2, 5, 8 ... are the surest
    logits = torch.zeros(2, 30, 2)
    logits[0, :, 0] = sure
    logits[1, :, 1] = 1
    thinking = analyze(logits, torch.zeros(30, dtype=torch.int64), [1, 2], ["a", "b"]).overthinking
    surest = [*range(2, 30, 3), *range(1, 30, 3)]
    assert [case.picture for case in thinking.destructive_cases] == surest[:CASES]
    thinking = analyze(logits, torch.ones(30, dtype=torch.int64), [1, 2], ["a", "b"]).overthinking
    assert [case.picture for case in thinking.late_cases] == surest[:CASES]


def test_confusion_by_hand() -> None:
    distance = torch.tensor([0.2, 1.7, 1.2, 1.8, 0.8, 2.2], dtype=torch.float64)
    mean = 7.9 / 6
    deviation = math.sqrt(sum((float(each) - mean) ** 2 for each in distance) / 6)
    torch.testing.assert_close(confusion_scores(PROBABILITIES), (distance - mean) / deviation)
    score = by_hand().confusion_score
    assert score is not None
    assert score.auroc == pytest.approx(5 / 9)
    assert score.confidence_auroc == pytest.approx(8 / 9)
    assert score.right == pytest.approx((3.7 / 3 - mean) / deviation)
    assert score.wrong == pytest.approx((4.2 / 3 - mean) / deviation)
    assert [place for place, count in enumerate(score.right_counts) for _ in range(count)] == [1, 10, 10]
    assert [place for place, count in enumerate(score.wrong_counts) for _ in range(count)] == [4, 7, 13]


def test_confusion_is_undefined_where_nothing_is_wrong() -> None:
    logits = PROBABILITIES.log()
    score = analyze(logits, logits[-1].argmax(dim=1), [1, 2, 3], "abc").confusion_score
    assert score is not None
    assert (score.auroc, score.confidence_auroc, score.wrong) == (None, None, None)
    assert score.right == pytest.approx(0)
    assert sum(score.wrong_counts) == 0


def test_outlying_scores_are_counted_in_the_outermost_bins() -> None:
    logits = torch.zeros(2, 101, 2)
    logits[1, 0, 0] = 9  # one picture alone is ten standard deviations from the mean
    score = analyze(logits, torch.zeros(101, dtype=torch.int64), [1, 2], ["a", "b"]).confusion_score
    assert score is not None
    assert score.right_counts[-1] == 1
    assert sum(score.right_counts) == 101


def test_agreement_by_hand() -> None:
    analysis = by_hand()
    assert analysis.agreement[0] == pytest.approx((1, 4 / 6, 2 / 6))
    assert analysis.agreement[1] == pytest.approx((4 / 6, 1, 3 / 6))
    assert analysis.shared[0] == pytest.approx((1, 1, 1 / 2))
    assert analysis.shared[1] == pytest.approx((2 / 4, 1, 2 / 4))
    assert analysis.shared[2] == pytest.approx((1 / 3, 2 / 3, 1))


def test_an_exit_that_gets_nothing_right_shares_nothing() -> None:
    analysis = analyze(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]), torch.tensor([1]), [1, 2], ["a", "b"])
    assert analysis.shared == ((None, None), (0.0, 1.0))


def test_exits_of_each_class_by_hand() -> None:
    analysis = by_hand()
    assert not analysis.by_policy
    assert [(each.name, each.exits, each.macs) for each in analysis.by_class] == [
        ("a", (1, 0, 1), 25.0),
        ("b", (0, 1, 1), 30.0),
        ("c", (1, 1, 0), 15.0),
    ]
    analysis = by_hand(torch.tensor([0, 0, 1, 1, 2, 2]))
    assert analysis.by_policy
    assert [(each.exits, each.macs) for each in analysis.by_class] == [
        ((1, 1, 0), 15.0),
        ((1, 0, 1), 25.0),
        ((0, 1, 1), 30.0),
    ]


def test_a_class_without_pictures_costs_nothing_known() -> None:
    analysis = analyze(PROBABILITIES.log(), torch.zeros_like(LABELS), [1, 2, 3], "abc")
    assert (analysis.by_class[2].exits, analysis.by_class[2].macs) == ((0, 0, 0), None)


def test_reliability_by_hand() -> None:
    assert by_hand().reliability[2].error == pytest.approx((0.2 + 0.5 + 0.3 + 0.6 + 0.8) / 6)
    calibration = reliability(torch.tensor([1.0, 0.95, 0.0]), torch.tensor([True, False, True]))
    assert [each.count for each in calibration.bins] == [1, *[0] * (BINS - 2), 2]
    assert (calibration.bins[-1].confidence, calibration.bins[-1].accuracy) == pytest.approx((0.975, 0.5))
    assert (calibration.bins[1].confidence, calibration.bins[1].accuracy) == (None, None)
    assert calibration.error == pytest.approx((0.95 + 1) / 3)


def test_a_bin_holds_its_upper_edge() -> None:
    calibration = reliability(torch.tensor([3 / BINS], dtype=torch.float64), torch.tensor([True]))
    assert [each.count for each in calibration.bins][:4] == [0, 0, 1, 0]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30))
def test_the_auroc_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    scores, positive = torch.tensor([row[0] for row in rows]).float(), torch.tensor([row[1] for row in rows]).bool()
    pairs = [(high, low) for high, one in rows for low, other in rows if one and not other]
    won = sum(1.0 if high > low else 0.5 if high == low else 0.0 for high, low in pairs)
    assert auroc(scores, positive) == (pytest.approx(won / len(pairs)) if pairs else None)


@given(answers())
def test_the_curve_runs_from_the_first_exit_to_the_last(given: tuple[Tensor, Tensor, list[int]]) -> None:
    analysis, macs = analysed(given), given[2]
    first, last = analysis.curve[0], analysis.curve[-1]
    assert (first.threshold, first.accuracy, first.macs) == (0, analysis.accuracy[0], macs[0])
    assert last.threshold > 1
    assert (last.accuracy, last.macs) == (analysis.accuracy[-1], macs[-1])
    assert [point.threshold for point in analysis.curve] == sorted(set(LEVELS))
    costs = [point.macs for point in analysis.curve]
    assert costs == pytest.approx(sorted(costs))
    for point in (*analysis.curve, analysis.oracle):
        assert sum(point.exits) == pytest.approx(1)
        assert point.milliseconds is None


@given(answers())
def test_nothing_is_more_accurate_than_the_oracle(given: tuple[Tensor, Tensor, list[int]]) -> None:
    analysis = analysed(given)
    assert analysis.oracle.accuracy >= max(analysis.accuracy)
    assert analysis.oracle.accuracy >= max(point.accuracy for point in analysis.curve)


@given(answers())
def test_overthinking_is_the_gap_to_the_oracle(given: tuple[Tensor, Tensor, list[int]]) -> None:
    analysis = analysed(given)
    thinking = analysis.overthinking
    assert thinking.destructive == pytest.approx(analysis.oracle.accuracy - analysis.accuracy[-1])
    assert thinking.wasteful + thinking.late == pytest.approx(analysis.accuracy[-1])
    assert thinking.never == pytest.approx(1 - analysis.oracle.accuracy)
    assert thinking.wasted_macs <= analysis.macs[-1] - analysis.oracle.macs + 1e-9


@given(answers())
def test_agreement_is_symmetric(given: tuple[Tensor, Tensor, list[int]]) -> None:
    analysis = analysed(given)
    matrix = torch.tensor(analysis.agreement)
    assert (matrix == matrix.T).all()
    assert (matrix.diagonal() == 1).all()
    assert all(row[i] in (1.0, None) for i, row in enumerate(analysis.shared))


@given(answers())
def test_every_picture_is_counted_once(given: tuple[Tensor, Tensor, list[int]]) -> None:
    analysis = analysed(given)
    assert sum(sum(each.exits) for each in analysis.by_class) == analysis.pictures == given[0].shape[1]
    for each in analysis.reliability:
        assert sum(place.count for place in each.bins) == analysis.pictures
        assert 0 <= each.error <= 1
    if analysis.confusion_score is not None:
        assert (
            sum(analysis.confusion_score.right_counts) + sum(analysis.confusion_score.wrong_counts) == analysis.pictures
        )
        assert len(analysis.confusion_score.right_counts) == len(CONFUSION_EDGES) - 1


@given(answers())
def test_an_analysis_is_json(given: tuple[Tensor, Tensor, list[int]]) -> None:
    written = json.dumps(dataclasses.asdict(analysed(given)), allow_nan=False)
    assert json.loads(written)["pictures"] == given[0].shape[1]


def test_one_exit_has_no_early_answer() -> None:
    analysis = analyze(PROBABILITIES[:1].log(), LABELS, [10], "abc")
    assert analysis.confusion_score is None
    assert analysis.agreement == ((1.0,),)
    assert analysis.averaged == analysis.accuracy
    thinking = analysis.overthinking
    assert (thinking.wasteful, thinking.wasted_macs, thinking.destructive) == (0, 0, 0)
    assert (thinking.wasteful_cases, thinking.destructive_cases, thinking.late_cases) == ((), (), ())
    assert {point.accuracy for point in analysis.curve} == set(analysis.accuracy)


def test_half_precision_and_small_integers_are_taken() -> None:
    analysis = analyze(PROBABILITIES.log().bfloat16(), LABELS.to(torch.uint8), [10, 20, 40], "abc")
    assert analysis.accuracy == by_hand().accuracy


LOGITS = PROBABILITIES.log()
WRONG: dict[str, tuple[Tensor, Tensor, list[int], str, list[float] | None, Tensor | None]] = {
    "logits: got shape (3, 0, 3)": (LOGITS[:, :0], LABELS[:0], [1, 2, 3], "abc", None, None),
    "logits: got shape (6, 3)": (LOGITS[0], LABELS, [1, 2, 3], "abc", None, None),
    "logits: got torch.int64": (LOGITS.long(), LABELS, [1, 2, 3], "abc", None, None),
    "logits: got some that are infinite": (LOGITS / 0, LABELS, [1, 2, 3], "abc", None, None),
    "labels: got torch.int64 of shape (5,)": (LOGITS, LABELS[:5], [1, 2, 3], "abc", None, None),
    "labels: got torch.float32 of shape": (LOGITS, LABELS.float(), [1, 2, 3], "abc", None, None),
    "labels: got 1 to 3; accepted: 0 to 2": (LOGITS, LABELS + 1, [1, 2, 3], "abc", None, None),
    "macs: got [1, 2]": (LOGITS, LABELS, [1, 2], "abc", None, None),
    "macs: got [0, 2, 3]": (LOGITS, LABELS, [0, 2, 3], "abc", None, None),
    "macs: got [1, 3, 2]": (LOGITS, LABELS, [1, 3, 2], "abc", None, None),
    "milliseconds: got [1.0, 2.0]": (LOGITS, LABELS, [1, 2, 3], "abc", [1.0, 2.0], None),
    "milliseconds: got [1.0, nan, 2.0]": (LOGITS, LABELS, [1, 2, 3], "abc", [1.0, math.nan, 2.0], None),
    "classes: got 2 names; accepted: 3": (LOGITS, LABELS, [1, 2, 3], "ab", None, None),
    "exits: got torch.int64 of shape [2]": (LOGITS, LABELS, [1, 2, 3], "abc", None, torch.tensor([0, 1])),
    "exits: got torch.bool of shape": (LOGITS, LABELS, [1, 2, 3], "abc", None, LABELS > 0),
    "exits: got 0 to 3; accepted: 0 to 2": (LOGITS, LABELS, [1, 2, 3], "abc", None, torch.tensor([0, 0, 0, 0, 0, 3])),
}


@pytest.mark.parametrize("start", WRONG)
def test_what_does_not_fit_is_refused(start: str) -> None:
    with pytest.raises(InputError) as caught:
        analyze(*WRONG[start])
    (problem,) = caught.value.problems
    assert problem.startswith(start)
    assert "accepted: " in problem


def test_all_that_is_wrong_is_reported_at_once() -> None:
    with pytest.raises(InputError) as caught:
        analyze(LOGITS, LABELS, [1, 2], "ab", [1.0])
    assert len(caught.value.problems) == 3
