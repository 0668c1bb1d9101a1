"""Scores and standard errors: by hand, and as scipy has them."""

import numpy as np
import pytest
from scipy import stats

from evaluation.statistics.scores import (
    by_cluster,
    is_binary,
    mean_of_scores_error,
    parts_of_mean,
    score,
    score_interval,
    standard_error,
)


def test_clusters_are_sums_in_the_order_of_their_first_items():
    parts_N2 = np.array([[1.0, 2], [3, 4], [5, 6], [7, 8]])
    parts_C2 = by_cluster(parts_N2, ["b", "a", "b", "c"])
    np.testing.assert_array_equal(parts_C2, [[6, 8], [3, 4], [7, 8]])
    assert score(parts_C2) == score(parts_N2)
    np.testing.assert_array_equal(by_cluster(parts_N2, list("abcd")), parts_N2)


def test_a_mean_has_the_textbook_standard_error():
    values_N = np.array([1.0, 0, 1, 1, 0, 2.5])
    parts_N2 = parts_of_mean(values_N)
    assert score(parts_N2) == pytest.approx(5.5 / 6)
    assert standard_error(parts_N2) == pytest.approx(stats.sem(values_N))


def test_a_ratio_by_hand():
    """Items (8 bits, 2 bytes), (6, 6), (10, 4): r = 2, residuals 4, -6, 2; √(56/2)/√3/4."""
    parts_N2 = np.array([[8.0, 2], [6, 6], [10, 4]])
    assert score(parts_N2) == 2
    assert standard_error(parts_N2) == pytest.approx(np.sqrt(28) / np.sqrt(3) / 4)


def test_the_delta_method_is_the_deviation_of_scipys_bootstrap():
    rng = np.random.default_rng(0)
    bytes_N = rng.lognormal(3, 0.6, 400)
    bits_N = bytes_N * rng.normal(2, 0.4, 400)
    drawn = stats.bootstrap(
        (bits_N, bytes_N),
        lambda bits, size, axis: bits.sum(axis) / size.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=2000,
        method="percentile",
        rng=rng,
    )
    assert standard_error(np.stack([bits_N, bytes_N], 1)) == pytest.approx(drawn.standard_error, rel=0.06)


def test_one_item_has_no_error():
    assert standard_error(parts_of_mean(np.ones(1))) is None
    assert score_interval(parts_of_mean(np.ones(1))) is None


def test_no_right_item_still_has_an_interval():
    """Wilson's upper end for 0 of n is z²/(n + z²): 3.8415/103.8415; the standard error would say 0."""
    parts_N2 = parts_of_mean(np.zeros(100))
    assert standard_error(parts_N2) == 0
    low, high = score_interval(parts_N2)
    assert low == pytest.approx(0, abs=1e-12)
    assert high == pytest.approx(3.8414588 / 103.8414588, rel=1e-6)


def test_the_interval_of_other_scores_is_normal():
    parts_N2 = np.array([[8.0, 2], [6, 6], [10, 4]])
    low, high = score_interval(parts_N2)
    assert (low + high) / 2 == pytest.approx(2)
    assert (high - low) / 2 == pytest.approx(1.959964 * standard_error(parts_N2), rel=1e-6)


def test_what_is_binary():
    assert is_binary(parts_of_mean(np.array([0, 1, 1])))
    assert not is_binary(parts_of_mean(np.array([0, 0.5])))
    assert not is_binary(np.array([[1.0, 2], [0, 2]]))


def test_error_of_a_macro_average_by_hand():
    assert mean_of_scores_error([3.0, 4.0]) == 2.5
