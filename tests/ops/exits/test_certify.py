"""The certificate's test: exact against every outcome there can be, and honest about how many pictures it takes."""

from math import comb

import pytest

from ramify.errors import InputError
from ramify.ops.exits.certify import p_value, pictures_needed


@pytest.mark.parametrize(("max_drop", "gaining"), [(0.02, 0.0), (0.05, 0.0), (0.05, 0.1), (0.3, 0.2), (0.0, 0.1)])
@pytest.mark.parametrize("pictures", [10, 60])
@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_a_policy_that_loses_just_too_much_passes_with_at_most_alpha(
    max_drop: float, gaining: float, pictures: int, alpha: float
) -> None:
    """Summed over all outcomes, with their exact probabilities."""
    losing = max_drop + gaining + 1e-9
    passing = sum(
        comb(pictures, lost)
        * comb(pictures - lost, gained)
        * losing**lost
        * gaining**gained
        * (1 - losing - gaining) ** (pictures - lost - gained)
        for lost in range(pictures + 1)
        for gained in range(pictures + 1 - lost)
        if p_value(lost, gained, pictures, max_drop) <= alpha
    )
    assert passing <= alpha


def test_more_losses_are_less_certain_and_more_gains_more() -> None:
    assert p_value(3, 0, 2000, 0.01) < p_value(4, 0, 2000, 0.01) < p_value(5, 0, 2000, 0.01) < 1
    assert p_value(25, 24, 5000, 0.01) < p_value(40, 20, 5000, 0.01) < p_value(40, 5, 5000, 0.01) <= 1
    assert p_value(1000, 0, 2000, 0.01) == 1
    assert p_value(0, 0, 10**7, 0.5) == 0  # below what a float holds


@pytest.mark.parametrize("max_drop", [0.001, 0.01, 0.05, 0.5])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_pictures_needed_suffice_and_one_fewer_to_test_on_does_not(max_drop: float, confidence: float) -> None:
    tested = pictures_needed(max_drop, confidence) // 2
    assert p_value(0, 0, tested, max_drop) <= 1 - confidence
    assert p_value(0, 0, tested - 1, max_drop) > 1 - confidence


def test_what_is_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match=r"got 3 lost and 8 gained of 10; accepted: "):
        p_value(3, 8, 10, 0.1)
    with pytest.raises(InputError, match=r"max_drop: got 1\.0; accepted: a number in \[0, 1\)"):
        p_value(0, 0, 10, 1.0)
    with pytest.raises(InputError, match=r"max_drop: got 0\.0; accepted with a confidence: a number in \(0, 1\)"):
        pictures_needed(0.0, 0.95)
    with pytest.raises(InputError, match=r"confidence: got 95; accepted: a number in \(0, 1\), such as 0\.95"):
        pictures_needed(0.01, 95)


def test_no_more_pictures_are_asked_for_than_an_exact_test_of_both_tails_would() -> None:
    exact = next(n for n in range(1, 1000) if 2 * 0.99**n <= 0.05)
    assert pictures_needed(0.01, 0.95) <= 2 * exact < 740
