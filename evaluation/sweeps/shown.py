"""What charts of a sweep have in common: seeds that they show, reach of their axes, numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import altair as alt

from evaluation.report.tables import Chart, DataTable, Value
from evaluation.sweeps.pairing import Estimate, estimate
from evaluation.sweeps.steady import drawn

WHOLE, FEW = "mean", "mean of few"
"""Parts of a table: means over the seeds of the chart, and means of arms that lack some, or of one seed."""
MARKS = alt.Legend(symbolOpacity=1, columnPadding=40)
"""A legend of marks, with room for letters that are wider than where a picture was made."""
CENTRED = (
    "What a seed does to all arms alike is taken out: from each cell the mean of its seed less that of all "
    "seeds, over the arms that have them all. "
)
_BEYOND = 0.35
"""How far whiskers may widen an axis to either side, as a share of what the points span."""


def shared_seeds(found: Sequence[Estimate]) -> list[int]:
    """The seeds that at least half of some arms have: means over them can be compared."""
    every = sorted({seed for one in found for seed in one.by_seed})
    return [seed for seed in every if 2 * sum(seed in one.by_seed for one in found) >= len(found)]


def over(found: Estimate, seeds: Sequence[int]) -> tuple[Estimate, bool]:
    """A figure over the seeds of a chart, and true; of an arm that lacks some, over its own, and false."""
    if not set(seeds) <= found.by_seed.keys():
        return found, False
    kept = estimate({seed: found.by_seed[seed] for seed in seeds})
    return (found, False) if kept is None else (kept, True)


def seeds_note(seeds: Sequence[int]) -> str:
    """Which seeds means are over, and what is drawn hollow."""
    if not seeds:
        return "No seed is common to half of them: all are hollow, over the seeds they have."
    if len(seeds) == 1:
        return f"All are of seed {seeds[0]} alone, so that marks are hollow and none has an interval."
    told = ", ".join(map(str, seeds))
    return (
        f"Means are over seeds {told}; hollow, and not ranked, are arms that lack some, over those they have."
    )


def reach(points: Iterable[float], ends: Iterable[float | None]) -> tuple[float, float]:
    """Ends of an axis: all points, and of whiskers what does not flatten the chart."""
    values = list(points)
    low, high = min(values), max(values)
    room = _BEYOND * (high - low) or float("inf")
    known = [end for end in ends if end is not None]
    least, most = max(min([low, *known]), low - room), min(max([high, *known]), high + room)
    margin = max(0.06 * (most - least), 1e-3 * abs(most))
    return least - margin, most + margin


def cut(value: float, ends: tuple[float, float]) -> float:
    """A whisker's end as it is drawn."""
    return min(max(value, ends[0]), ends[1])


def whisker(
    mean: float, low: float | None, high: float | None, ends: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Ends of an interval, which are the mean where there is none, and as they are drawn."""
    first, last = mean if low is None else low, mean if high is None else high
    return first, last, cut(first, ends), cut(last, ends)


def centred(
    found: Sequence[Estimate], seeds: Sequence[int], begun_as: Sequence[str] | None = None
) -> list[Estimate]:
    """Figures of arms as `CENTRED` says, the same means for those that have all seeds of the chart.

    The mean of a seed holds a share of each arm's own noise, which is given back to those that it is taken
    over (Morey, Tutorials in Quantitative Methods for Psychology, 2008): intervals are as wide as the noise.

    Args:
        found: figures of each arm.
        seeds: of the chart.
        begun_as: for each arm the one whose noise it shares, with which it counts as one; unset, none does.
    """
    groups = list(begun_as) if begun_as is not None else list(map(str, range(len(found))))
    whole = [
        (one, group) for one, group in zip(found, groups, strict=True) if set(seeds) <= one.by_seed.keys()
    ]
    size = Counter(group for _, group in whole)
    if len(size) < 2 or len(seeds) < 2:
        return list(found)
    means = {
        seed: math.fsum(one.by_seed[seed] / size[group] for one, group in whole) / len(size) for seed in seeds
    }
    middle, wider = math.fsum(means.values()) / len(means), math.sqrt(len(size) / (len(size) - 1))
    moved = []
    for one in found:
        left = {seed: value - means.get(seed, middle) + middle for seed, value in one.by_seed.items()}
        if set(seeds) <= one.by_seed.keys():
            mean = math.fsum(left[seed] for seed in seeds) / len(seeds)
            left = {seed: mean + wider * (value - mean) for seed, value in left.items()}
        moved.append(estimate(left) or one)
    return moved


def chart_table(columns: tuple[str, ...], rows: Iterable[tuple[Value, ...]]) -> DataTable:
    """A table whose numbers are the same on every processor."""
    return DataTable(columns, [drawn(row) for row in rows])


def steadied(chart: Chart) -> Chart:
    """A chart whose specification is the same on every processor."""
    return replace(chart, page=drawn(chart.page), picture=drawn(chart.picture))
