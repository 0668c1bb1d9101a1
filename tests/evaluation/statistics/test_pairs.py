"""Paired differences: by hand, and as scipy has them."""

import numpy as np
import pytest
from scipy import stats

from evaluation.statistics.pairs import bootstrap_interval, difference, mcnemar, permutation_test
from evaluation.statistics.scores import parts_of_mean


def means(a_N, b_N):
    return parts_of_mean(np.asarray(a_N)), parts_of_mean(np.asarray(b_N))


def ratios(rng, items, *, apart=0.0):
    bytes_N = rng.integers(5, 200, items).astype(float)
    shared_N = rng.normal(2, 0.5, items)
    a_N, b_N = (bytes_N * (shared_N + rng.normal(0, 0.1, items) + by) for by in (apart, 0.0))
    return np.stack([a_N, bytes_N], 1), np.stack([b_N, bytes_N], 1)


def test_differences_by_hand():
    a, b = np.array([[8.0, 2], [6, 6], [10, 4]]), np.array([[4.0, 2], [6, 6], [8, 4]])
    assert difference([(a, b)]) == pytest.approx(2 - 1.5)
    assert difference([(a, b), means([1, 1], [0, 1])]) == pytest.approx((0.5 + 0.5) / 2)


@pytest.mark.parametrize("kind", ["many values", "right and wrong"])
def test_the_interval_of_a_mean_is_scipys(kind):
    rng = np.random.default_rng(1)
    a_N, b_N = rng.random((2, 300))
    if kind == "right and wrong":
        a_N, b_N = (a_N < 0.6) * 1.0, (b_N < 0.5) * 1.0
    found = bootstrap_interval([means(a_N, b_N)], resamples=20000)
    theirs = stats.bootstrap((a_N - b_N,), np.mean, n_resamples=20000, method="percentile", rng=rng)
    interval = theirs.confidence_interval
    assert found == pytest.approx(tuple(interval), abs=0.04 * (interval.high - interval.low))


def test_the_interval_of_a_ratio_is_scipys():
    rng = np.random.default_rng(2)
    a_N2, b_N2 = ratios(rng, 200, apart=0.02)
    found = bootstrap_interval([(a_N2, b_N2)], resamples=20000)

    def apart(a, b, size, axis):
        return (a.sum(axis) - b.sum(axis)) / size.sum(axis)

    columns = (a_N2[:, 0], b_N2[:, 0], a_N2[:, 1])
    theirs = stats.bootstrap(
        columns, apart, paired=True, vectorized=True, n_resamples=20000, method="percentile", rng=rng
    ).confidence_interval
    assert found == pytest.approx(tuple(theirs), abs=0.04 * (theirs.high - theirs.low))


def test_a_macro_average_has_the_error_of_the_mean_of_its_tasks():
    """Independent tasks: the half width is 1.96/2 · √(Σ s²/n)."""
    rng = np.random.default_rng(3)
    pairs = [means(rng.normal(0, 1, 400), np.zeros(400)), means(rng.normal(0, 3, 100), np.zeros(100))]
    low, high = bootstrap_interval(pairs, resamples=20000)
    error = np.sqrt(sum(stats.sem(a_N2[:, 0]) ** 2 for a_N2, _ in pairs)) / 2
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.04)
    assert (high + low) / 2 == pytest.approx(difference(pairs), abs=0.1 * error)


def test_pairing_counts():
    """A model one item better than another is clearly so on the same items, whatever their difficulty."""
    rng = np.random.default_rng(4)
    hard_N = rng.normal(0, 10, 200)
    low, high = bootstrap_interval([means(hard_N + 1, hard_N)])
    assert (low, high) == pytest.approx((1, 1))


def test_the_same_seed_gives_the_same_figures_and_another_does_not():
    pair = ratios(np.random.default_rng(5), 100, apart=0.02)
    assert bootstrap_interval([pair]) == bootstrap_interval([pair]) != bootstrap_interval([pair], seed=1)
    assert permutation_test([pair]) == permutation_test([pair]) != permutation_test([pair], seed=1)


@pytest.mark.parametrize(("only_a", "only_b", "p"), [(0, 0, 1), (1, 0, 1), (5, 0, 2 / 32), (1, 5, 14 / 64)])
def test_mcnemar_by_hand(only_a, only_b, p):
    a_N = np.array([1] * only_a + [0] * only_b + [1, 1, 0])
    b_N = np.array([0] * only_a + [1] * only_b + [1, 1, 0])
    assert mcnemar(a_N, b_N) == pytest.approx(p)


def test_mcnemar_and_all_swaps_are_one_test():
    rng = np.random.default_rng(6)
    a_N, b_N = (rng.random((2, 20)) < 0.6) * 1.0
    assert 4 < np.count_nonzero(a_N != b_N) <= 13
    p, exact = permutation_test([means(a_N, b_N)])
    assert exact
    assert p == pytest.approx(mcnemar(a_N, b_N))


def theirs(a_N, b_N, **options):
    return stats.permutation_test(
        (a_N, b_N),
        lambda a, b, axis: np.mean(a - b, axis),
        permutation_type="samples",
        vectorized=True,
        **options,
    ).pvalue


def test_few_differing_items_are_tested_exactly_as_scipy_does():
    rng = np.random.default_rng(7)
    a_N, b_N = rng.normal(0.4, 1, 11), rng.normal(0, 1, 11)
    p, exact = permutation_test([means([*a_N, 5, 5], [*b_N, 5, 5])])
    assert exact
    assert p == pytest.approx(theirs(a_N, b_N))


def test_many_differing_items_are_tested_by_random_swaps_as_scipy_does():
    rng = np.random.default_rng(8)
    a_N, b_N = rng.normal(0.15, 1, 150), rng.normal(0, 1, 150)
    p, exact = permutation_test([means(a_N, b_N)])
    assert not exact
    assert p == pytest.approx(theirs(a_N, b_N, n_resamples=9999, rng=rng), abs=0.02)


def test_p_is_never_zero():
    p, exact = permutation_test([means(np.arange(1.0, 51), np.zeros(50))], swaps=999)
    assert (p, exact) == (1 / 1000, False)


def test_swaps_of_a_ratio_whose_denominators_differ():
    """As they are 2/3 - 0; the first item swapped 1/3 - 1/4, the second 1/4 - 1/3, both 0 - 2/3."""
    a_N2, b_N2 = np.array([[1.0, 1], [1, 2]]), np.array([[0.0, 1], [0, 3]])
    assert difference([(a_N2, b_N2)]) == pytest.approx(2 / 3)
    assert permutation_test([(a_N2, b_N2)]) == (0.5, True)


def test_tasks_are_swapped_together():
    """Differences 1 in two tasks of one item: of four assignments of signs, two reach the mean of 1."""
    assert permutation_test([means([1], [0]), means([1], [0])]) == (0.5, True)


def test_equal_models_do_not_differ():
    pair = means([1, 0, 1], [1, 0, 1])
    assert permutation_test([pair]) == (1.0, True)
    assert bootstrap_interval([pair]) == (0, 0)
