"""Intervals over seeds as scipy has them, and Holm's correction by hand."""

import pytest
from scipy import stats

from evaluation.statistics.seeds import holm, over_seeds

MOHGE, MOE = [0.61, 0.58, 0.66, 0.60], [0.59, 0.57, 0.60, 0.61]


def test_differences_over_seeds_are_the_paired_t_test():
    found = over_seeds([a - b for a, b in zip(MOHGE, MOE, strict=True)])
    theirs = stats.ttest_rel(MOHGE, MOE)
    interval = theirs.confidence_interval(0.95)
    assert found.p == pytest.approx(theirs.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.mean == pytest.approx(0.02)
    assert found.seeds == 4


def test_two_seeds_by_hand():
    """1 and 3: mean 2, deviation √2, error 1, and t of one degree of freedom is 12.706."""
    found = over_seeds([1.0, 3.0])
    assert (found.mean, found.deviation) == pytest.approx((2, 2**0.5))
    assert (found.low, found.high) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)


def test_one_seed_says_nothing_of_others():
    assert over_seeds([0.5]) is None


def test_seeds_that_do_not_vary_have_no_interval():
    found = over_seeds([0.1 + 0.2, 0.3])
    assert (found.deviation, found.low, found.high, found.p) == (0, None, None, None)


def test_nothing_speaks_against_a_difference_of_zero_in_every_seed():
    found = over_seeds([0.0, 0.0, 1e-17])
    assert (found.deviation, found.low, found.high, found.p) == (0, None, None, 1)


@pytest.mark.parametrize(
    ("given", "adjusted"),
    [
        # 3·0.01; 2·0.02; 0.03, which may not be below 0.04
        ([0.01, 0.02, 0.03], [0.03, 0.04, 0.04]),
        # sorted 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.4, 0.9], [0.8, 0.9]),
        ([0.7, 0.6], [1.0, 1.0]),
        ([0.02, None, 0.03], [0.04, None, 0.04]),
        ([None], [None]),
    ],
)
def test_holm_by_hand(given, adjusted):
    names = [f"task {place}" for place in range(len(given))]
    found = holm(dict(zip(names, given, strict=True)))
    assert list(found) == names
    assert list(found.values()) == pytest.approx(adjusted)
