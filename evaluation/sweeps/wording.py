"""How figures and names of a sweep are worded in tables and sentences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from evaluation.benchmarks.figures import NONE, rounded, with_interval
from evaluation.sweeps.comparing import Comparison
from evaluation.sweeps.pairing import Estimate, Pairs
from evaluation.sweeps.study import UNFINISHED

SIGNIFICANT = 0.05
BITS = "bits per byte"
UNPAIRED, SAME, ONE_SEED = "not paired", "the same training", "one seed tells nothing"
WAITING, LOST = "not all seeds yet", "a seed has failed"
NO_SPREAD, NOT_SHOWN = "equal in all seeds, no test", "not shown"
BETTER, WORSE = "better", "worse"
BETTER_POOLED, WORSE_POOLED = "better (pooled)", "worse (pooled)"
SHOWN = (BETTER, WORSE, BETTER_POOLED, WORSE_POOLED)
"""A difference is shown by its own deviation between seeds, or only by the noise of all arms together."""
WORDS = {
    "total_parameters": "total parameters",
    "active_expected": "active, expected",
    "active_measured": "active, measured",
    "flops_measured": "training FLOPs per token",
    "tokens_per_second": "tokens per second",
}
"""Headings of figures of cost."""
_PLACES = 4
"""Decimals of bits per byte that have no interval."""
_UNITS = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def short(value: float | None) -> str:
    """Four digits and a unit, such as 3.190M; the tables of cells have the exact value."""
    if value is None:
        return NONE
    for unit, size in _UNITS:
        if value >= 0.99995 * size and value >= 999.95:  # what rounds to the unit has the unit
            return f"{value / size:#.4g}".rstrip(".") + unit
    return f"{value:.4g}"


def interval(found: Estimate | None) -> str:
    """`2.131 (2.120 to 2.142)`."""
    if found is not None and found.low is None:
        return rounded(found.mean, _PLACES)
    return NONE if found is None else with_interval(found.mean, found.low, found.high)


def change(found: Estimate | None, *, percent: bool = False) -> str:
    """`+0.012 (−0.004 to +0.028)`."""
    if found is None:
        return NONE
    if found.low is None and not percent:
        return rounded(found.mean, _PLACES, signed=True)
    return with_interval(found.mean, found.low, found.high, percent=percent, signed=True)


def percentage(found: Estimate | None) -> str:
    """`−18.3%`: a relative change without its interval."""
    return NONE if found is None else rounded(100 * found.mean, 1, signed=True) + "%"


def percent_change(found: Estimate | None) -> str:
    """`−5.4% (−7.6% to −3.3%)`; the mean alone where there is no interval."""
    if found is None or found.low is None:
        return percentage(found)
    return re.sub(r"([\d.]+)", r"\1%", change(found, percent=True))


def pairs_text(pairs: Pairs) -> str:
    """`sizes_only less moe_shrunk; mohge less grouping_only`."""
    return "; ".join(f"{first} less {second}" for first, second in pairs)


def seeds_text(seeds: Iterable[int]) -> str:
    """`1`, `1, 3`, `1 to 5, 8`; a dash for none."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    parts = [[f"{run[0]} to {run[-1]}"] if len(run) > 2 else list(map(str, run)) for run in runs]
    return ", ".join(part for some in parts for part in some) or NONE


def listed(names: Sequence[object]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    texts = list(map(str, names))
    return " and ".join(part for part in (", ".join(texts[:-1]), *texts[-1:]) if part)


def verdict(found: Comparison) -> str:
    """Whether quality is better, worse, the same by construction, or not shown to differ, by corrected p."""
    if found.same:
        return SAME
    if found.lacking:
        return WAITING if found.lacking == UNFINISHED else LOST
    if found.quality is None:
        return UNPAIRED
    if found.quality.seeds < 2:
        return ONE_SEED
    if found.quality.low is None:
        return NO_SPREAD
    better = found.quality.mean < 0
    if found.p_holm is not None and found.p_holm < SIGNIFICANT:
        return BETTER if better else WORSE
    if found.p_pooled is not None and found.p_pooled < SIGNIFICANT:
        return BETTER_POOLED if better else WORSE_POOLED
    return NOT_SHOWN
