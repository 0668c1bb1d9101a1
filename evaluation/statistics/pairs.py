"""Two models on the same items: how far apart, how sure, and whether chance alone would do.

The difference is that of the scores of `evaluation.statistics.scores`, first model minus second. Several
tasks make a macro average, the mean of the tasks' differences; a single task is a list of one.

Shapes: N items of a task, R resamples, M items of all tasks on which the models differ; a_N2 and b_N2 hold an
item's numerator and denominator for the first and the second model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from evaluation.statistics.scores import LEVEL, score

RESAMPLES = 2000
"""Of the bootstrap."""
SWAPS = 9999
"""Of the Monte Carlo permutation test."""
SEED = 20260423
_EXACT = 13
"""Differing items up to which all 2^M assignments are tried: fewer than `SWAPS`."""
_FEW = 64
"""Distinct items up to which a resample is drawn as their counts."""
_CHUNK = 1 << 20
"""Numbers of a matrix in memory at a time."""

Pair = tuple[np.ndarray, np.ndarray]
"""a_N2 and b_N2, items in the same order."""


def difference(pairs: Sequence[Pair]) -> float:
    """Mean over tasks of score(a) - score(b)."""
    return float(np.mean([score(a_N2) - score(b_N2) for a_N2, b_N2 in pairs]))


def bootstrap_interval(
    pairs: Sequence[Pair], seed: int = SEED, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95% percentile interval of `difference`, by drawing items again with replacement within each task.

    Both models get the same draws, so that what makes an item hard for both cancels (Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, chapter 13; for systems compared on test items: Koehn 2004). Tasks
    are given, not drawn.
    """
    rng = np.random.default_rng(seed)
    drawn_R = np.zeros(resamples)
    for a_N2, b_N2 in pairs:
        sums_R4 = _resampled_sums(np.concatenate([a_N2, b_N2], axis=1), resamples, rng)
        drawn_R += sums_R4[:, 0] / sums_R4[:, 1] - sums_R4[:, 2] / sums_R4[:, 3]
    low, high = np.quantile(drawn_R / len(pairs), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mcnemar(a_N: np.ndarray, b_N: np.ndarray) -> float:
    """Two-sided p of McNemar's exact test (1947) for items that are right (1) or wrong (0).

    Of the items that one model alone gets right, either model has each with probability one half: a binomial
    test of their split.
    """
    only_a = int(np.count_nonzero((a_N == 1) & (b_N == 0)))
    only_b = int(np.count_nonzero((a_N == 0) & (b_N == 1)))
    if only_a + only_b == 0:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue)


def permutation_test(pairs: Sequence[Pair], seed: int = SEED, swaps: int = SWAPS) -> tuple[float, bool]:
    """Two-sided p of the paired permutation test of `difference`, and whether it is exact.

    If the models were alike, the two results of an item could as well be swapped: for means this flips the
    sign of its difference (Fisher 1935). p is the share of swaps whose difference is at least as far from
    zero. All 2^M are tried where M is at most 13; else random ones, the observed one counted among them, so
    that p is never too small (Phipson and Smyth 2010).
    """
    halves = [_differing(pair) for pair in pairs]
    differing = sum(len(half_M2) for _, half_M2 in halves)
    exact = differing <= _EXACT
    observed = abs(difference(pairs))
    reached = 0
    rng = np.random.default_rng(seed)
    rows = 2**differing if exact else swaps
    chunk = max(1, _CHUNK // max(differing, 1))
    for start in range(0, rows, chunk):
        size = min(chunk, rows - start)
        sign_RM = _every_sign(start, size, differing) if exact else _random_signs(rng, size, differing)
        drawn_R = np.zeros(size)
        first = 0
        for middle_2, half_M2 in halves:
            swing_R2 = sign_RM[:, first : first + len(half_M2)] @ half_M2
            first += len(half_M2)
            a_R2, b_R2 = middle_2 + swing_R2, middle_2 - swing_R2
            drawn_R += a_R2[:, 0] / a_R2[:, 1] - b_R2[:, 0] / b_R2[:, 1]
        # Sums in another order differ in the last digits: what is equal but for those counts as reached.
        reached += int(np.count_nonzero(np.abs(drawn_R) / len(pairs) >= observed * (1 - 1e-9) - 1e-12))
    return (reached / rows if exact else (reached + 1) / (rows + 1)), exact


def _resampled_sums(items_NC: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Sums (R, C) over N items drawn with replacement."""
    items = len(items_NC)
    distinct_UC, counts_U = np.unique(items_NC, axis=0, return_counts=True)
    if len(distinct_UC) <= _FEW:  # right and wrong: the counts of each kind have the same distribution
        sums_RC: np.ndarray = rng.multinomial(items, counts_U / items, resamples) @ distinct_UC
        return sums_RC
    chunk = max(1, _CHUNK // items)
    sums = []
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn_RN = rng.integers(0, items, (size, items)) + items * np.arange(size)[:, None]
        times_RN = np.bincount(drawn_RN.ravel(), minlength=size * items).reshape(size, items)
        sums.append(times_RN @ items_NC)
    return np.concatenate(sums)


def _differing(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Half the sum over all items of both models' parts (2,), and half their differences (M, 2)."""
    a_N2, b_N2 = pair
    half_N2 = (a_N2 - b_N2) / 2
    return (a_N2 + b_N2).sum(0) / 2, half_N2[half_N2.any(1)]


def _every_sign(start: int, size: int, length: int) -> np.ndarray:
    """Rows start to start + size of all 2^length assignments of ±1."""
    number_R1 = np.arange(start, start + size)[:, None]
    return (number_R1 >> np.arange(length) & 1) * 2.0 - 1


def _random_signs(rng: np.random.Generator, size: int, length: int) -> np.ndarray:
    bits = np.unpackbits(rng.integers(0, 256, -(-size * length // 8), np.uint8), count=size * length)
    return bits.reshape(size, length) * 2.0 - 1
