"""What several seeds say, and p-values of several tasks together."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import stats

from evaluation.statistics.scores import LEVEL

Name = TypeVar("Name", bound=Hashable)
_SAME = 1e-12
"""Below this, figures are equal but for rounding."""


@dataclass(frozen=True)
class OverSeeds:
    """Figures of one quantity over trainings that differ in seed alone."""

    seeds: int
    mean: float
    deviation: float
    """Sample deviation, divided by the number of seeds less one."""
    low: float | None
    """Ends of the 95% interval; None where all seeds give the same figure, which says nothing of others."""
    high: float | None
    p: float | None
    """Two-sided p of a true mean of zero, which is of interest for differences alone.

    Of figures that are all the same 1 if they are zero, as nothing speaks against it; else None.
    """


def over_seeds(values: Sequence[float]) -> OverSeeds | None:
    """Mean, deviation and Student's t interval of one figure per seed; None with fewer than two.

    For differences between two designs, paired by seed, this is the paired t test (Student 1908). It holds
    for other seeds on these very items, if figures are normal over seeds; two seeds give wide intervals.
    """
    if len(values) < 2:
        return None
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    if deviation < _SAME:
        return OverSeeds(len(values), mean, 0.0, None, None, 1.0 if abs(mean) < _SAME else None)
    error = deviation / math.sqrt(len(values))
    freedom = len(values) - 1
    low, high = stats.t.interval(LEVEL, freedom, mean, error)
    p = 2 * stats.t.sf(abs(mean) / error, freedom)
    return OverSeeds(len(values), mean, deviation, float(low), float(high), float(p))


def holm(p_values: Mapping[Name, float | None]) -> dict[Name, float | None]:
    """p-values adjusted so that one false finding in the whole family is as rare as the level says.

    Holm's step-down method (1979): the smallest p is multiplied by the number of tests, the next by one less,
    and so on; none becomes smaller than one before it, or larger than 1. It holds however tests depend on
    each other.

    Args:
        p_values: of each member of the family; None, where no test could be made, is no member.
    """
    known = {name: p for name, p in p_values.items() if p is not None}
    adjusted: dict[Name, float | None] = dict.fromkeys(p_values)
    largest = 0.0
    for place, name in enumerate(sorted(known, key=lambda name: known[name])):
        largest = max(largest, min(1.0, (len(known) - place) * known[name]))
        adjusted[name] = largest
    return adjusted
