"""By simulation: under no difference, 95% intervals cover it in 93 to 97% of trials, and p-values are valid.

Two models of equal skill answer items of very different difficulty, so that they are often right together.
"""

import numpy as np
import pytest
from scipy import stats

from evaluation.statistics.pairs import bootstrap_interval, mcnemar, permutation_test
from evaluation.statistics.scores import by_cluster, parts_of_mean, score_interval, standard_error
from evaluation.statistics.seeds import over_seeds

TRIALS = 2000
LEAST, MOST = 0.93, 0.97
FALSE_ALARMS = 0.05 + 3 * np.sqrt(0.05 * 0.95 / TRIALS)


def answers(rng, items, trials=TRIALS):
    """Right or wrong, for two models: (trials, 2, items)."""
    easy = rng.beta(0.8, 1.2, (trials, 1, items))
    return (rng.random((trials, 2, items)) < easy) * 1.0


def texts(rng, items, trials=TRIALS):
    """Bits of two models and bytes: texts of all lengths, the longer the better known."""
    size = np.ceil(rng.lognormal(3.5, 0.7, (trials, 1, items)))
    per_byte = 4 * size**-0.15 * rng.gamma(20, 1 / 20, (trials, 1, items))
    bits = size * per_byte * rng.gamma(60, 1 / 60, (trials, 2, items))
    return bits, size[:, 0]


def covered(intervals, truth=0.0):
    return np.mean([low <= truth <= high for low, high in intervals])


@pytest.mark.parametrize("items", [100, 700])
def test_bootstrap_intervals_of_right_and_wrong(items):
    rng = np.random.default_rng(items)
    found = [
        bootstrap_interval([(parts_of_mean(a), parts_of_mean(b))], seed)
        for seed, (a, b) in enumerate(answers(rng, items))
    ]
    assert LEAST <= covered(found) <= MOST


def test_bootstrap_intervals_of_ratios():
    bits, size = texts(np.random.default_rng(1), 150)
    found = [
        bootstrap_interval([(np.stack([a, n], 1), np.stack([b, n], 1))], seed, 600)
        for seed, ((a, b), n) in enumerate(zip(bits, size, strict=True))
    ]
    assert LEAST <= covered(found) <= MOST


def test_bootstrap_intervals_of_macro_averages():
    rng = np.random.default_rng(2)
    tasks = [answers(rng, items) for items in (60, 150)]
    found = [
        bootstrap_interval([tuple(map(parts_of_mean, task[trial])) for task in tasks], trial, 600)
        for trial in range(TRIALS)
    ]
    assert LEAST <= covered(found) <= MOST


def test_intervals_of_scores_near_guessing():
    rng = np.random.default_rng(3)
    found = [score_interval(parts_of_mean((rng.random(200) < 0.25) * 1.0)) for _ in range(TRIALS)]
    assert LEAST <= covered(found, 0.25) <= MOST


def test_standard_errors_of_ratios_are_the_deviation_between_samples():
    bits, size = texts(np.random.default_rng(4), 150)
    ratios = bits[:, 0].sum(1) / size.sum(1)
    errors = [standard_error(np.stack([a, n], 1)) for a, n in zip(bits[:, 0], size, strict=True)]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(ratios), rel=0.07)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_t_intervals_over_seeds(seeds):
    differences = np.random.default_rng(seeds).normal(0, 0.01, (TRIALS, seeds))
    found = [over_seeds(list(values)) for values in differences]
    assert LEAST <= covered([(one.low, one.high) for one in found]) <= MOST
    assert np.mean([one.p <= 0.05 for one in found]) <= FALSE_ALARMS


def test_mcnemar_does_not_cry_wolf():
    found = [mcnemar(a, b) for a, b in answers(np.random.default_rng(5), 200)]
    assert np.mean(np.array(found) <= 0.05) <= FALSE_ALARMS
    assert np.mean(np.array(found) <= 0.05) > 0.015, "nor is it deaf"


@pytest.mark.parametrize("items", [12, 80])
def test_permutation_tests_do_not_cry_wolf(items):
    """Of skewed differences, exact ones and by random swaps."""
    rng = np.random.default_rng(items)
    drawn = rng.exponential(1, (TRIALS, 2, items)) ** 2
    p = np.array(
        [
            permutation_test([(parts_of_mean(a), parts_of_mean(b))], seed, 299)[0]
            for seed, (a, b) in enumerate(drawn)
        ]
    )
    assert np.mean(p <= 0.05) <= FALSE_ALARMS
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_permutation_tests_of_ratios_do_not_cry_wolf():
    bits, size = texts(np.random.default_rng(6), 60)
    p = np.array(
        [
            permutation_test([(np.stack([a, n], 1), np.stack([b, n], 1))], seed, 299)[0]
            for seed, ((a, b), n) in enumerate(zip(bits, size, strict=True))
        ]
    )
    assert np.mean(p <= 0.05) <= FALSE_ALARMS
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_pieces_of_texts_do_not_cry_wolf_if_they_are_taken_together():
    """Pieces of a text are alike in what one model or the other finds hard: one by one they say too much."""
    rng, trials = np.random.default_rng(8), TRIALS // 2
    texts_of = np.repeat(np.arange(40), 9)
    alike = rng.normal(0, 0.05, (trials, 2, 40))[:, :, texts_of] + rng.normal(0, 0.1, (trials, 2, 360))
    size = np.full(360, 1000.0)
    pairs = [[np.stack([1000 * (2 + one), size], 1) for one in trial] for trial in alike]
    together = [[by_cluster(parts, list(map(str, texts_of))) for parts in pair] for pair in pairs]
    p, alone = (
        np.array([permutation_test([tuple(pair)], seed, 299)[0] for seed, pair in enumerate(some)])
        for some in (together, pairs[: trials // 5])
    )
    assert np.mean(p <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)
    assert np.mean(alone <= 0.05) > 0.15, "else there would be nothing to take together"
    intervals = [bootstrap_interval([tuple(pair)], seed) for seed, pair in enumerate(together)]
    assert LEAST - 0.01 <= covered(intervals) <= MOST


def test_permutation_tests_of_macro_averages_do_not_cry_wolf():
    rng = np.random.default_rng(7)
    tasks = [answers(rng, items) for items in (60, 150)]
    p = np.array(
        [
            permutation_test([tuple(map(parts_of_mean, task[trial])) for task in tasks], trial, 299)[0]
            for trial in range(TRIALS)
        ]
    )
    assert 0.015 < np.mean(p <= 0.05) <= FALSE_ALARMS
