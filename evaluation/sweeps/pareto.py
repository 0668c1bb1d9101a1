"""Quality against cost: a point for each arm, with its intervals and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from evaluation.report.look import FIGURES, GREY, layered, one_chart, source
from evaluation.report.tables import Chart, DataTable, Value
from evaluation.sweeps.analysis import Analysis, Arm
from evaluation.sweeps.cells import QUALITY
from evaluation.sweeps.labels import place
from evaluation.sweeps.pairing import Estimate

COSTS = {
    "active_measured": ("active", "measured active parameters per token"),
    "total_parameters": ("total", "total parameters"),
    "flops_measured": ("flops", "training FLOPs per token, measured"),
}
"""Figure, end of the chart's name, and what it is."""
_SIZE = (780, 380)
_KINDS = ("baseline", "on the front", "beaten by another")
_COLOURS = ("#D55E00", "#0072B2", GREY)
_SHAPES = ("diamond", "circle", "circle")
_COLUMNS = (
    *("run", "kind", "part", "cost", "cost_low", "cost_high"),
    *("bits_per_byte", "low", "high", "label_x", "label_y", "lead_x", "seed"),
)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points no other beats: none costs as little and is as good, and is better in one of the two.

    Args:
        points: cost and bits per byte; less is better.

    Returns:
        Their places, by rising cost.
    """
    kept = [
        index
        for index, (cost, bits) in enumerate(points)
        if not any(c <= cost and b <= bits and (c, b) != (cost, bits) for c, b in points)
    ]
    return sorted(kept, key=lambda index: points[index])


def pareto(analysis: Analysis, figure: str) -> Chart | None:
    """Bits per byte against one cost; None where fewer than two arms have it."""
    arms = [arm for arm in analysis.arms.values() if QUALITY in arm.figures and figure in arm.figures]
    if len(arms) < 2:
        return None
    ending, axis = COSTS[figure]
    points = [(arm.figures[figure].mean, arm.figures[QUALITY].mean) for arm in arms]
    best = front(points)
    scales = [_around(_ends([arm.figures[name] for arm in arms])) for name in (figure, QUALITY)]
    table = DataTable(_COLUMNS, _rows(analysis, arms, figure, best, scales))
    base = alt.Chart(source(table)).encode(
        x=alt.X("cost:Q", title=axis, scale=alt.Scale(domain=scales[0], nice=False), axis=FIGURES),
        y=alt.Y(
            "bits_per_byte:Q",
            title="validation bits per byte",
            scale=alt.Scale(domain=scales[1], nice=False),
            axis=FIGURES,
        ),
    )
    opaque = alt.Legend(symbolOpacity=1)
    colour = alt.Color(
        "kind:N", scale=alt.Scale(domain=list(_KINDS), range=list(_COLOURS)), title=None, legend=opaque
    )
    shape = alt.Shape(
        "kind:N", scale=alt.Scale(domain=list(_KINDS), range=list(_SHAPES)), title=None, legend=opaque
    )
    means, seeds, steps = (
        base.transform_filter(alt.datum.part == part) for part in ("mean", "seed", "front")
    )
    tips = [
        alt.Tooltip("run:N", title="arm"),
        *(alt.Tooltip(f"{name}:Q", format=",.0f") for name in ("cost", "cost_low", "cost_high")),
        *(alt.Tooltip(f"{name}:Q", format=".4f") for name in ("bits_per_byte", "low", "high")),
    ]
    label_x, label_y = alt.X("label_x:Q"), alt.Y("label_y:Q")
    layers = layered(
        steps.mark_line(interpolate="step-after", color="#0072B2", strokeWidth=1.2, strokeDash=[5, 3]),
        means.mark_rule(color=GREY, strokeWidth=0.5).encode(x2="lead_x:Q", y2="label_y:Q"),
        means.mark_rule(strokeWidth=1.4, opacity=0.55).encode(y=alt.Y("low:Q"), y2="high:Q", color=colour),
        means.mark_rule(strokeWidth=1.4, opacity=0.55).encode(
            x=alt.X("cost_low:Q"), x2="cost_high:Q", color=colour
        ),
        seeds.mark_point(filled=True, size=14, opacity=0.45).encode(color=colour),
        means.mark_point(filled=True, size=90, opacity=1).encode(color=colour, shape=shape, tooltip=tips),
        *(
            means.mark_text(align="left", baseline="middle", fontSize=11, **ink).encode(
                x=label_x, y=label_y, text="run:N"
            )
            for ink in ({"stroke": "white", "strokeWidth": 3, "opacity": 0.85}, {"color": "#1b1f24"})
        ),
    ).properties(height=_SIZE[1])
    note = (
        "Lower left is better. A large mark is the mean of an arm over its seeds, small ones are its cells, "
        "whiskers 95% t intervals. Dashed: the Pareto front of the means, arms that no other beats in both. "
        "Axes do not start at zero. Intervals hold what a seed does to all arms alike: the chart of "
        "differences is the sharper comparison."
    )
    return one_chart(f"pareto_{ending}", f"Quality against {axis}", note, table, layers, margin=80, least=560)


def _rows(
    analysis: Analysis, arms: Sequence[Arm], figure: str, best: Sequence[int], scales: list[list[float]]
) -> list[tuple[Value, ...]]:
    pixels = [
        tuple(
            size * (arm.figures[name].mean - low) / (high - low)
            for name, size, (low, high) in zip((figure, QUALITY), _SIZE, scales, strict=True)
        )
        for arm in arms
    ]
    labels = place([(x, y) for x, y in pixels], [arm.name for arm in arms], _SIZE)
    rows: list[tuple[Value, ...]] = []
    for index, (arm, label) in enumerate(zip(arms, labels, strict=True)):
        cost, bits = arm.figures[figure], arm.figures[QUALITY]
        kind = _KINDS[0] if arm.name == analysis.baseline else _KINDS[1] if index in best else _KINDS[2]
        (x_low, x_high), (y_low, y_high) = scales
        place_x = x_low + (x_high - x_low) * label.x / _SIZE[0]
        lead_x = x_low + (x_high - x_low) * label.lead / _SIZE[0]
        place_y = y_low + (y_high - y_low) * label.y / _SIZE[1]
        rows.append(
            (arm.name, kind, "mean", *_bar(cost), *_bar(bits), place_x, place_y, lead_x, None),
        )
        for seed, value in bits.by_seed.items():
            spent = cost.by_seed.get(seed, cost.mean)
            rows.append((arm.name, kind, "seed", spent, None, None, value, *[None] * 5, seed))
    for index in best:
        cost, bits = arms[index].figures[figure], arms[index].figures[QUALITY]
        name = arms[index].name
        rows.append((name, _KINDS[1], "front", cost.mean, None, None, bits.mean, *[None] * 6))
    return rows


def _bar(found: Estimate) -> tuple[float, float, float]:
    """Mean and ends of the interval, which are the mean where there is none."""
    low = found.mean if found.low is None else found.low
    return found.mean, low, found.mean if found.high is None else found.high


def _ends(found: Sequence[Estimate]) -> list[float]:
    return [value for one in found for value in (*_bar(one), *one.by_seed.values())]


def _around(values: Sequence[float]) -> list[float]:
    room = max(0.06 * (max(values) - min(values)), 1e-3 * abs(max(values)))
    return [min(values) - room, max(values) + room]
