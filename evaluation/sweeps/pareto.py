"""Quality against cost: a point for each arm, with its intervals and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from evaluation.report.look import FIGURES, GREY, layered, one_chart, source
from evaluation.report.tables import Chart, Value
from evaluation.sweeps.analysis import Analysis
from evaluation.sweeps.cells import QUALITY
from evaluation.sweeps.labels import place
from evaluation.sweeps.pairing import Estimate
from evaluation.sweeps.shown import (
    CENTRED,
    FEW,
    MARKS,
    WHOLE,
    centred,
    chart_table,
    over,
    reach,
    seeds_note,
    shared_seeds,
    whisker,
)
from mohge.config.checks import MATCHED

AXES = {
    "active_measured": ("active", "measured active parameters per token"),
    "total_parameters": ("total", "total parameters"),
    "flops_measured": ("flops", "training FLOPs per token, measured"),
}
"""Figure, end of the chart's name, and what it is."""
_SIZE = (780, 380)
_BASELINE, _FRONT, _BEATEN, _OTHER = "baseline", "on the front of means", "behind it", "not ranked"
_FRONT_NOTE = (
    f"Dashed: the Pareto front, of means that no other beats in both; costs within {MATCHED:.1%} count as "
    "equal, as those of matched models do. "
)
_ALIKE = "Arms that are one training at first count as one in that mean. "
_KINDS = {
    _BASELINE: ("#D55E00", "diamond"),
    _FRONT: ("#0072B2", "circle"),
    _BEATEN: (GREY, "circle"),
    _OTHER: ("#009E73", "square"),
}
"""Colour and shape of each; an arm with fewer seeds than the others is not ranked."""
_COLUMNS = (
    *("run", "kind", "part", "cost", "cost_low", "cost_high", "drawn_cost_low", "drawn_cost_high"),
    *("bits_per_byte", "low", "high", "drawn_low", "drawn_high", "label_x", "label_y", "lead_x", "seed"),
)


@dataclass(frozen=True)
class _Point:
    """An arm over the seeds of the chart."""

    arm: str
    cost: Estimate
    bits: Estimate
    ranked: bool
    """Whether it has all of several seeds."""


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points no other beats: none costs as little and is as good, and is better in one of the two.

    Costs that differ by no more than those of matched models may are equal: what rounding left says nothing.

    Args:
        points: cost and bits per byte; less is better.

    Returns:
        Their places, by rising cost.
    """
    kept = [
        index
        for index, (cost, bits) in enumerate(points)
        if not any(
            c <= cost * (1 + MATCHED) and b <= bits and (b < bits or c < cost * (1 - MATCHED))
            for c, b in points
        )
    ]
    return sorted(kept, key=lambda index: points[index])


def pareto(analysis: Analysis, figure: str) -> Chart | None:
    """Bits per byte against one cost; None where fewer than two arms have it."""
    arms = [arm for arm in analysis.arms.values() if QUALITY in arm.figures and figure in arm.figures]
    if len(arms) < 2:
        return None
    ending, axis = AXES[figure]
    seeds = shared_seeds([arm.figures[QUALITY] for arm in arms])
    points = []
    begun = [analysis.begun_as[arm.name] for arm in arms]
    own_bits = centred([arm.figures[QUALITY] for arm in arms], seeds, begun)
    for arm, own in zip(arms, own_bits, strict=True):
        bits, whole = over(own, seeds)
        cost, _ = over(arm.figures[figure], list(bits.by_seed))
        points.append(_Point(arm.name, cost, bits, whole and len(seeds) > 1))
    scales = [_axis([point.cost for point in points]), _axis([point.bits for point in points])]
    table = chart_table(_COLUMNS, _rows(points, analysis.baseline, scales))
    kinds = [kind for kind in _KINDS if kind in table.texts("kind")]
    base = alt.Chart(source(table)).encode(
        x=alt.X("cost:Q", title=axis, scale=alt.Scale(domain=list(scales[0]), nice=False), axis=FIGURES),
        y=alt.Y(
            "bits_per_byte:Q",
            title="validation bits per byte",
            scale=alt.Scale(domain=list(scales[1]), nice=False),
            axis=FIGURES,
        ),
    )
    colours, shapes = (alt.Scale(domain=kinds, range=[_KINDS[kind][i] for kind in kinds]) for i in (0, 1))
    colour = alt.Color("kind:N", scale=colours, title=None, legend=MARKS)
    shape = alt.Shape("kind:N", scale=shapes, title=None, legend=MARKS)
    means, few, dots, steps = (
        base.transform_filter(alt.datum.part == part) for part in (WHOLE, FEW, "seed", "front")
    )
    both = base.transform_filter((alt.datum.part == WHOLE) | (alt.datum.part == FEW))
    tips = [
        alt.Tooltip("run:N", title="arm"),
        *(alt.Tooltip(f"{name}:Q", format=",.0f") for name in ("cost", "cost_low", "cost_high")),
        *(alt.Tooltip(f"{name}:Q", format=".4f") for name in ("bits_per_byte", "low", "high")),
    ]
    label_x, label_y = alt.X("label_x:Q"), alt.Y("label_y:Q")
    layers = layered(
        steps.mark_line(interpolate="step-after", color="#0072B2", strokeWidth=1.2, strokeDash=[5, 3]),
        both.mark_rule(color=GREY, strokeWidth=0.5).encode(x2="lead_x:Q", y2="label_y:Q"),
        both.mark_rule(strokeWidth=1.4, opacity=0.55).encode(
            y=alt.Y("drawn_low:Q"), y2="drawn_high:Q", color=colour
        ),
        both.mark_rule(strokeWidth=1.4, opacity=0.55).encode(
            x=alt.X("drawn_cost_low:Q"), x2="drawn_cost_high:Q", color=colour
        ),
        dots.mark_point(filled=True, size=14, opacity=0.45).encode(color=colour),
        means.mark_point(filled=True, size=90, opacity=1).encode(color=colour, shape=shape, tooltip=tips),
        few.mark_point(fill="white", size=80, opacity=1, strokeWidth=2).encode(
            color=colour, shape=shape, tooltip=tips
        ),
        *(
            both.mark_text(align="left", baseline="middle", fontSize=11, **ink).encode(
                x=label_x, y=label_y, text="run:N"
            )
            for ink in ({"stroke": "white", "strokeWidth": 3, "opacity": 0.85}, {"color": "#1b1f24"})
        ),
    ).properties(height=_SIZE[1])
    note = (
        "Lower left is better. A large mark is the mean of an arm, small ones are its cells, whiskers 95% t "
        f"intervals, cut at the edge where they are long. {seeds_note(seeds)} "
        + (_FRONT_NOTE if len(seeds) > 1 else "")
        + (CENTRED if len(seeds) > 1 else "")
        + (_ALIKE if len(seeds) > 1 and len(set(begun)) < len(begun) else "")
        + "Axes do not start at zero. The chart of differences is the sharper comparison."
    )
    return one_chart(f"pareto_{ending}", f"Quality against {axis}", note, table, layers, margin=80, least=560)


def _rows(
    points: Sequence[_Point], baseline: str, scales: Sequence[tuple[float, float]]
) -> list[tuple[Value, ...]]:
    x_low, y_low = (begin for begin, _ in scales)
    wide, high = ((end - begin) / size for (begin, end), size in zip(scales, _SIZE, strict=True))
    pixels = [((point.cost.mean - x_low) / wide, (point.bits.mean - y_low) / high) for point in points]
    labels = place(pixels, [point.arm for point in points], _SIZE)
    ranked = [point for point in points if point.ranked]
    best = [ranked[index] for index in front([(point.cost.mean, point.bits.mean) for point in ranked])]
    rows: list[tuple[Value, ...]] = []
    for point, label in zip(points, labels, strict=True):
        kind = _BEATEN if point.ranked else _OTHER
        kind = _BASELINE if point.arm == baseline else _FRONT if point in best else kind
        bars = (*_bar(point.cost, scales[0]), *_bar(point.bits, scales[1]))
        at = (x_low + wide * label.x, y_low + high * label.y, x_low + wide * label.lead)
        rows.append((point.arm, kind, WHOLE if point.ranked else FEW, *bars, *at, None))
        for seed, value in point.bits.by_seed.items():
            spent = point.cost.by_seed.get(seed, point.cost.mean)
            rows.append((point.arm, kind, "seed", spent, *[None] * 4, value, *[None] * 7, seed))
    for point in best:
        steps = (point.cost.mean, *[None] * 4, point.bits.mean, *[None] * 8)
        rows.append((point.arm, _FRONT, "front", *steps))
    return rows


def _bar(found: Estimate, ends: tuple[float, float]) -> tuple[float, float, float, float, float]:
    """Mean, ends of the interval, which are the mean where there is none, and both as they are drawn."""
    return found.mean, *whisker(found.mean, found.low, found.high, ends)


def _axis(found: Sequence[Estimate]) -> tuple[float, float]:
    points = [value for one in found for value in (one.mean, *one.by_seed.values())]
    return reach(points, [end for one in found for end in (one.low, one.high)])
