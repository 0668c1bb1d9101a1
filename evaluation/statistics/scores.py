"""A score of items and its standard error.

A score is a ratio of sums over items, numerators over denominators: bits over bytes for bits per byte. A mean
is the ratio whose denominators are all 1, so that one set of functions serves both.

Shapes: N items; parts_N2 holds each item's numerator and denominator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

LEVEL = 0.95
"""Confidence of every interval."""


def parts_of_mean(values_N: np.ndarray) -> np.ndarray:
    """parts_N2 whose score is the mean of the values."""
    return np.stack([values_N, np.ones(len(values_N))], axis=1).astype(np.float64)


def score(parts_N2: np.ndarray) -> float:
    """Sum of the numerators over the sum of the denominators."""
    numerator, denominator = parts_N2.sum(0)
    return float(numerator / denominator)


def by_cluster(parts_N2: np.ndarray, clusters_N: Sequence[str]) -> np.ndarray:
    """parts_C2 of clusters of items, in the order of their first items: the same score, of fewer items.

    Items of one cluster, such as pieces of one text, are alike: drawn or swapped one by one they would seem
    to say more than they do. Sums over clusters are items of a ratio again (Cochran 1977, section 9A.1).
    """
    places = {cluster: place for place, cluster in enumerate(dict.fromkeys(clusters_N))}
    parts_C2 = np.zeros((len(places), 2))
    np.add.at(parts_C2, [places[cluster] for cluster in clusters_N], parts_N2)
    return parts_C2


def standard_error(parts_N2: np.ndarray) -> float | None:
    """Standard error of `score` over items drawn at random; None with fewer than two items.

    Of a ratio r by the delta method: the deviation of (numerator - r · denominator) over √N times the mean
    denominator (Cochran, Sampling Techniques, 3rd ed. 1977, section 6.4). Of a mean, which has denominators
    of 1, that is the sample deviation (divided by N - 1) over √N.
    """
    if len(parts_N2) < 2:
        return None
    residual_N = parts_N2[:, 0] - score(parts_N2) * parts_N2[:, 1]
    # The residuals sum to zero, so that their deviation needs no mean taken off.
    deviation = math.sqrt(float(residual_N @ residual_N) / (len(residual_N) - 1))
    return deviation / math.sqrt(len(residual_N)) / float(parts_N2[:, 1].mean())


def score_interval(parts_N2: np.ndarray) -> tuple[float, float] | None:
    """95% interval of `score` over items drawn at random; None with fewer than two items.

    Wilson's score interval (1927) for items that are 0 or 1, which holds near 0 and 1 and where no item is
    right; else score ± 1.96 standard errors.
    """
    error = standard_error(parts_N2)
    if error is None:
        return None
    if is_binary(parts_N2):
        right = stats.binomtest(int(parts_N2[:, 0].sum()), len(parts_N2))
        found = right.proportion_ci(LEVEL, method="wilson")
        return float(found.low), float(found.high)
    reach = float(stats.norm.ppf((1 + LEVEL) / 2)) * error
    return score(parts_N2) - reach, score(parts_N2) + reach


def is_binary(parts_N2: np.ndarray) -> bool:
    """Whether every item is simply right (1) or wrong (0)."""
    return bool(np.isin(parts_N2[:, 0], (0, 1)).all() and (parts_N2[:, 1] == 1).all())


def mean_of_scores_error(errors: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """Standard error of the mean of independent scores, as of several tasks: √Σ(we)² over Σw.

    Args:
        errors: of each score.
        weights: of each; unset, they count alike.
    """
    weights = [1.0] * len(errors) if weights is None else weights
    squares = ((weight * error) ** 2 for weight, error in zip(weights, errors, strict=True))
    return math.sqrt(sum(squares)) / sum(weights)
