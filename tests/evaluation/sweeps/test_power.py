"""Power of t tests: against scipy, known tables and simulation."""

import numpy as np
import pytest
from scipy import stats

from evaluation.statistics.seeds import holm
from evaluation.sweeps.power import detectable, power, seeds_needed


@pytest.mark.parametrize(
    ("freedom", "shift", "tests"), [(2, 2.0, 1), (4, 3.0, 1), (29, 2.5, 1), (36, 4.0, 18)]
)
def test_it_is_the_noncentral_t(freedom, shift, tests):
    critical = stats.t.ppf(1 - 0.025 / tests, freedom)
    expected = stats.nct.sf(critical, freedom, shift) + stats.nct.cdf(-critical, freedom, shift)
    assert power(shift * 0.1, 0.1, freedom, tests) == pytest.approx(expected, abs=2e-5)


def test_it_is_what_simulated_sweeps_find():
    """Four seeds, a difference of two deviations: the share of 20,000 t tests with p below 0.05."""
    rng = np.random.default_rng(0)
    drawn = rng.normal(2.0, 1.0, (20_000, 4))
    found = np.mean(stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05)
    assert power(2.0, 1 / 2, 3) == pytest.approx(found, abs=0.01)


def test_among_many_tests_it_is_how_often_the_first_passes_holms_correction():
    """One true difference of seven errors among six tests of four degrees of freedom, 4,000 times."""
    rng = np.random.default_rng(0)
    drawn = rng.normal(0.0, 1.0, (4_000, 6, 5))
    drawn[:, 0] += 7 / 5**0.5
    p = stats.ttest_1samp(drawn, 0, axis=2).pvalue
    found = [holm({str(place): value for place, value in enumerate(row)})["0"] < 0.05 for row in p.tolist()]
    assert power(7.0, 1.0, 4, tests=6) == pytest.approx(np.mean(found), abs=0.02)
    assert power(7.0, 1.0, 4) > power(7.0, 1.0, 4, tests=6) + 0.1


def test_without_a_difference_one_test_in_twenty_finds_one():
    assert power(0.0, 1.0, 2) == pytest.approx(0.05, abs=1e-6)
    assert power(0.0, 1.0, 2, tests=5) == pytest.approx(0.01, abs=1e-6)


def test_the_smallest_detectable_difference_has_80_percent_power():
    assert power(detectable(0.02, 2), 0.02, 2) == pytest.approx(0.8)
    assert power(detectable(0.02, 36, 18), 0.02, 36, 18) == pytest.approx(0.8)
    # With many seeds the normal approximation: 1.9600 + 0.8416 errors.
    assert detectable(1 / 100, 9_999) == pytest.approx(2.8016 / 100, rel=1e-3)


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 34), (0.8, 15), (0.2, 199)])
def test_seeds_are_those_of_published_tables(effect, seeds):
    """Sample sizes of the paired t test for small, medium and large effects, at 5% and 80%."""
    assert seeds_needed(effect, 1.0) == seeds
    few, enough = (power(effect, 1 / n**0.5, n - 1) for n in (seeds - 1, seeds))
    assert enough >= 0.8 > few


def test_more_degrees_of_freedom_for_each_seed_need_fewer_seeds():
    assert seeds_needed(1.0, 1.0, freedom=18) < seeds_needed(1.0, 1.0) < seeds_needed(1.0, 1.0, tests=18)
