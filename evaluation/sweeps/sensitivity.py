"""What a sweep could have shown: the smallest differences to its baseline that each kind of test finds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from evaluation.sweeps.comparing import Comparison
from evaluation.sweeps.layout import Noise
from evaluation.sweeps.power import detectable, seeds_needed
from evaluation.sweeps.steady import steady

WANTED = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002)
"""Differences, in bits per byte, for which the seeds that they need are told."""


@dataclass(frozen=True)
class Sensitivity:
    """Of one kind of test."""

    freedom: int
    """Degrees of freedom of its error."""
    tests: int
    """That Holm's correction is over; 1 for none."""
    detectable: float
    """The smallest true difference, in bits per byte, that it finds with 80% power."""
    needed: dict[float, int]
    """For each of `WANTED`, the seeds with which it does."""


@dataclass(frozen=True)
class Power:
    """What the sweep could have shown of a difference to the baseline."""

    seeds: int
    """That most arms have in common with the baseline; of two numbers as frequent the larger."""
    deviation: float
    """Of a paired difference between seeds, as the noise of a training tells: √2 times it."""
    alone: Sensitivity
    """One paired t test by its own seeds."""
    corrected: Sensitivity
    """The same, the first of all tests of the analysis to pass Holm's correction."""
    pooled: Sensitivity
    """As `corrected`, with the noise of all arms together."""


def power_of(beside: Iterable[Comparison], noise: Noise | None) -> Power | None:
    """The power of differences to the baseline; None where no two seeds of one differ.

    Args:
        beside: comparisons with the baseline.
        noise: of the sweep.
    """
    tested = [one for one in beside if one.quality is not None and one.pooled is not None]
    if noise is None or not tested:
        return None
    seeds = max(statistics.multimode(one.quality.seeds for one in tested if one.quality is not None))
    tests = tested[0].tests
    deviation = steady(math.sqrt(2) * noise.deviation)

    def sensitivity(freedom: int, number: int) -> Sensitivity:
        least = detectable(deviation / math.sqrt(seeds), freedom, number)
        each = freedom / (seeds - 1)
        needed = {wanted: seeds_needed(wanted, deviation, each, number) for wanted in WANTED}
        return Sensitivity(freedom, number, least, needed)

    return Power(
        seeds=seeds,
        deviation=deviation,
        alone=sensitivity(seeds - 1, 1),
        corrected=sensitivity(seeds - 1, tests),
        pooled=sensitivity(noise.freedom, tests),
    )
