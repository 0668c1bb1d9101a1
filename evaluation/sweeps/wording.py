"""How figures and names of a sweep are worded in tables and sentences."""

from __future__ import annotations

import re

from evaluation.benchmarks.figures import NONE, with_interval
from evaluation.sweeps.analysis import Comparison
from evaluation.sweeps.pairing import Estimate, Pairs

SIGNIFICANT = 0.05
BITS = "bits per byte"
WORDS = {
    "total_parameters": "total parameters",
    "active_expected": "active, expected",
    "active_measured": "active, measured",
    "flops_measured": "training FLOPs per token",
    "tokens_per_second": "tokens per second",
}
"""Headings of figures of cost."""
_UNITS = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def short(value: float | None) -> str:
    """Four digits and a unit, such as 3.190M; the tables of cells have the exact value."""
    if value is None:
        return NONE
    for unit, size in _UNITS:
        if value >= size:
            return f"{value / size:#.4g}".rstrip(".") + unit
    return f"{value:.4g}"


def interval(found: Estimate | None) -> str:
    """`2.131 (2.120 to 2.142)`."""
    return NONE if found is None else with_interval(found.mean, found.low, found.high)


def change(found: Estimate | None, *, percent: bool = False) -> str:
    """`+0.012 (−0.004 to +0.028)`."""
    if found is None:
        return NONE
    return with_interval(found.mean, found.low, found.high, percent=percent, signed=True)


def percentage(found: Estimate | None) -> str:
    """`−18.3%`: a relative change without its interval."""
    return NONE if found is None else f"{100 * found.mean:+.1f}%".replace("-", "\N{MINUS SIGN}")


def percent_change(found: Estimate | None) -> str:
    """`−5.4% (−7.6% to −3.3%)`."""
    return re.sub(r"([\d.]+)", r"\1%", change(found, percent=True))


def pairs_text(pairs: Pairs) -> str:
    """`sizes_only less moe_shrunk; mohge less grouping_only`."""
    return "; ".join(f"{first} less {second}" for first, second in pairs)


def verdict(found: Comparison, p: float | None) -> str:
    """Whether quality is better, worse, the same by construction, or not shown to differ.

    Args:
        found: the comparison.
        p: that decides, Holm's or the plain one.
    """
    if found.quality is None:
        return "not paired"
    if found.quality.low is None:
        same = found.quality.seeds > 1 and found.quality.mean == 0
        return "the same training" if same else "one seed tells nothing"
    if p is None or p >= SIGNIFICANT:
        return "not shown"
    return "better" if found.quality.mean < 0 else "worse"
