"""Power of the paired t test: against scipy, known tables and simulation."""

import numpy as np
import pytest
from scipy import stats

from evaluation.sweeps.power import detectable, power, seeds_needed


@pytest.mark.parametrize(("seeds", "shift"), [(3, 2.0), (5, 3.0), (30, 2.5)])
def test_it_is_the_noncentral_t(seeds, shift):
    critical = stats.t.ppf(0.975, seeds - 1)
    expected = stats.nct.sf(critical, seeds - 1, shift) + stats.nct.cdf(-critical, seeds - 1, shift)
    assert power(shift * 0.1 / seeds**0.5, 0.1, seeds) == pytest.approx(expected, abs=2e-5)


def test_it_is_what_simulated_sweeps_find():
    """Four seeds, a difference of two deviations: the share of 20,000 t tests with p below 0.05."""
    rng = np.random.default_rng(0)
    drawn = rng.normal(2.0, 1.0, (20_000, 4))
    found = np.mean(stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05)
    assert power(2.0, 1.0, 4) == pytest.approx(found, abs=0.01)


def test_without_a_difference_one_test_in_twenty_finds_one():
    assert power(0.0, 1.0, 3) == pytest.approx(0.05, abs=1e-6)


def test_the_smallest_detectable_difference_has_80_percent_power():
    assert power(detectable(0.02, 3), 0.02, 3) == pytest.approx(0.8)
    # With many seeds the normal approximation: (1.9600 + 0.8416) / sqrt(n) deviations.
    assert detectable(1.0, 10_000) == pytest.approx(2.8016 / 100, rel=1e-3)


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 34), (0.8, 15), (0.2, 199)])
def test_seeds_are_those_of_published_tables(effect, seeds):
    """Sample sizes of the paired t test for small, medium and large effects, at 5% and 80%."""
    assert seeds_needed(effect, 1.0) == seeds
    assert power(effect, 1.0, seeds) >= 0.8 > power(effect, 1.0, seeds - 1)
