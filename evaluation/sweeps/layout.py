"""The noise of a single training, from the whole sweep, and what it says of a difference.

A cell's bits per byte are what its arm gives, plus what its seed and data give, plus noise: the additive
model of randomised blocks (Fisher, The Design of Experiments, 1935). What least squares leave over tells the
noise with many more degrees of freedom than the seeds of one pair have: (arms - 1)(seeds - 1) in a complete
sweep. The price is an assumption, that all arms are equally noisy, each by itself; where they are not, too
many or too few differences are found. Arms that are one training at first, until a loss is switched on, have
part of their noise in common: they count once.

Shape suffixes: C cells, K arms and blocks.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy import stats

from evaluation.statistics.scores import LEVEL
from evaluation.sweeps.beginnings import begun_as
from evaluation.sweeps.cells import QUALITY
from evaluation.sweeps.pairing import Estimate, Pairs
from evaluation.sweeps.steady import steady
from evaluation.sweeps.study import Study

_NONE = 1e-12
"""Below this, noise is rounding."""


@dataclass(frozen=True)
class Noise:
    """Of bits per byte of a cell, beside what its arm and its seed give."""

    deviation: float
    freedom: int
    """Degrees of freedom that it is known with."""


@dataclass(frozen=True)
class Pooled:
    """A difference judged by the noise of all arms together."""

    error: float
    """Standard error of the difference."""
    freedom: int
    low: float
    """Ends of the 95% interval."""
    high: float
    p: float
    """Two-sided, of a true difference of zero."""


def noise_of(study: Study) -> Noise | None:
    """The noise of a sweep; None where arms and seeds explain all, as one seed or one arm does.

    Cells are of one block if they have one seed and learned from as many tokens of the same data. Arms that
    share cells, or are one training at first, count once.
    """
    begun = begun_as(study)
    told = [cell for cell in study.cells if QUALITY in cell.figures and begun[cell.arm] == cell.arm]
    cells = list({cell.id: cell for cell in told}.values())
    if not cells:
        return None
    arms = [cell.arm for cell in cells]
    blocks = [(cell.seed, cell.texts["data"], cell.figures.get("tokens")) for cell in cells]
    columns = [np.array([[one == name for one in of] for name in dict.fromkeys(of)]) for of in (arms, blocks)]
    design_CK = np.concatenate(columns).T.astype(np.float64)
    bits_C = np.array([cell.figures[QUALITY] for cell in cells])
    bits_C -= bits_C.mean()  # loses no digits to what all have in common
    given_K, _, rank, _ = np.linalg.lstsq(design_CK, bits_C)
    freedom = len(cells) - int(rank)
    if freedom < 1:
        return None
    deviation = math.sqrt(math.fsum((bits_C - design_CK @ given_K) ** 2) / freedom)
    return Noise(steady(deviation), freedom) if deviation > _NONE else None


def pooled(study: Study, pairs: Pairs, found: Estimate | None, noise: Noise | None) -> Pooled | None:
    """A mean difference with the error that the noise of all arms gives it.

    Exact in complete sweeps; where cells lack, p is a little too large.

    Args:
        study: the sweep.
        pairs: of arms, that the difference is the mean over.
        found: the difference, paired by seed.
        noise: of the sweep.

    Returns:
        None where the pairs have no deviation of their own either.
    """
    if noise is None or found is None or found.low is None:
        return None
    share = 1 / (len(pairs) * found.seeds)
    weights: dict[str, float] = defaultdict(float)  # of cells, which several pairs may have in common
    for first, second in pairs:
        cells, others = study.of(first), study.of(second)
        for seed in found.by_seed:
            weights[cells[seed].id] += share
            weights[others[seed].id] -= share
    error = noise.deviation * math.sqrt(math.fsum(weight**2 for weight in weights.values()))
    low, high = stats.t.interval(LEVEL, noise.freedom, found.mean, error)
    p = 2 * stats.t.sf(abs(found.mean) / error, noise.freedom)
    return Pooled(steady(error), noise.freedom, steady(float(low)), steady(float(high)), steady(float(p)))
