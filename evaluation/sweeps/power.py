"""How small a difference some seeds can show: power of two-sided t tests, alone or among many.

With true difference d and standard error e, known with some degrees of freedom, the statistic of the test has
a noncentral t distribution of those, and noncentrality d / e (Cohen, Statistical Power Analysis for the
Behavioral Sciences, 1988). e is the observed one, itself known with those degrees of freedom only.

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


def power(difference: float, error: float, freedom: float, tests: int = 1) -> float:
    """Probability that the test finds a true difference at the level of 5%.

    The statistic is (Z + noncentrality) / C with Z normal and C² a chi-squared variable over its degrees of
    freedom: its tails are integrated over C, since scipy's noncentral t is not a number for few of them.

    Args:
        difference: the true one.
        error: standard error of the difference that is found; above 0.
        freedom: degrees of freedom of the error; of n paired values, n - 1.
        tests: in a family of so many, the smallest p passes Holm's correction if it is below 5% / tests.
    """
    critical, nodes_Q, weights_Q = _quadrature(freedom, tests)
    shift = abs(difference) / error
    beyond_Q = special.ndtr(shift - critical * nodes_Q) + special.ndtr(-shift - critical * nodes_Q)
    # Not a product of BLAS, whose last bits depend on the processor.
    return math.fsum(weights_Q * beyond_Q)


def detectable(error: float, freedom: float, tests: int = 1) -> float:
    """The smallest true difference that is found with 80% power; arguments as of `power`."""
    most = 1.0  # in errors
    while power(most, 1.0, freedom, tests) < POWER:
        most *= 2
    found = optimize.brentq(lambda shift: power(shift, 1.0, freedom, tests) - POWER, 0.0, most, xtol=1e-12)
    return steady(error * float(found))


def seeds_needed(difference: float, deviation: float, freedom: float = 1, tests: int = 1) -> int:
    """The fewest seeds with which a true difference is found with 80% power.

    Args:
        difference: the true one.
        deviation: of differences between seeds.
        freedom: degrees of freedom for each seed after the first.
        tests: as of `power`.
    """

    def found(seeds: int) -> bool:
        return power(difference, deviation / math.sqrt(seeds), freedom * (seeds - 1), tests) >= POWER

    few, many = 1, 2  # too few, perhaps enough
    while not found(many):
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if found(middle) else (middle, many)
    return many


@cache
def _quadrature(freedom: float, tests: int) -> tuple[float, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The critical value, and nodes and weights of Gauss and Legendre for means over C, by its quantiles."""
    nodes_Q, weights_Q = _legendre()
    chi_Q = np.sqrt(stats.chi2.ppf((nodes_Q + 1) / 2, freedom) / freedom)
    return float(stats.t.isf((1 - LEVEL) / 2 / tests, freedom)), chi_Q, weights_Q / 2


@cache
def _legendre() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return np.polynomial.legendre.leggauss(_NODES)
