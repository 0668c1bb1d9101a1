"""How small a difference some seeds can show: power of the two-sided paired t test.

With n seeds, deviation s of the differences and true difference d, the statistic of the test has a noncentral
t distribution of n - 1 degrees of freedom and noncentrality d √n / s (Cohen, Statistical Power Analysis for
the Behavioral Sciences, 1988). s is the observed deviation, itself known from few seeds only.

Shape suffix: Q nodes of the quadrature.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from evaluation.statistics.scores import LEVEL
from evaluation.sweeps.steady import steady

POWER = 0.8
"""Share of sweeps that would show a difference that counts as detectable."""
_NODES = 128


def power(difference: float, deviation: float, seeds: int) -> float:
    """Probability that the test finds a true difference at the level of 5%.

    The statistic is (Z + noncentrality) / C with Z normal and C² a chi-squared variable over its degrees of
    freedom: its tails are integrated over C, since scipy's noncentral t is not a number for few seeds.

    Args:
        difference: the true one.
        deviation: of the differences of single seeds; above 0.
        seeds: pairs; at least 2.
    """
    critical, nodes_Q, weights_Q = _quadrature(seeds - 1)
    shift = abs(difference) * math.sqrt(seeds) / deviation
    beyond_Q = special.ndtr(shift - critical * nodes_Q) + special.ndtr(-shift - critical * nodes_Q)
    # Not a product of BLAS, whose last bits depend on the processor.
    return math.fsum(weights_Q * beyond_Q)


def detectable(deviation: float, seeds: int) -> float:
    """The smallest true difference that is found with 80% power; arguments as of `power`."""
    most = 1.0  # in deviations
    while power(most, 1.0, seeds) < POWER:
        most *= 2
    found = optimize.brentq(lambda difference: power(difference, 1.0, seeds) - POWER, 0.0, most, xtol=1e-12)
    return steady(deviation * float(found))


def seeds_needed(difference: float, deviation: float) -> int:
    """The fewest seeds with which a true difference is found with 80% power; arguments as of `power`."""
    few, many = 1, 2  # too few, perhaps enough
    while power(difference, deviation, many) < POWER:
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        if power(difference, deviation, middle) < POWER:
            few = middle
        else:
            many = middle
    return many


@cache
def _quadrature(freedom: int) -> tuple[float, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The critical value, and nodes and weights of Gauss and Legendre for means over C, by its quantiles."""
    nodes_Q, weights_Q = _legendre()
    chi_Q = np.sqrt(stats.chi2.ppf((nodes_Q + 1) / 2, freedom) / freedom)
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom)), chi_Q, weights_Q / 2


@cache
def _legendre() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return np.polynomial.legendre.leggauss(_NODES)
