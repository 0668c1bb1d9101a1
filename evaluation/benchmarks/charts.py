"""Charts of a comparison: differences with their intervals, and the widths that each task used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import altair as alt

from evaluation.benchmarks.sheet import macro_name, task_name
from evaluation.report.look import (
    COLOURS,
    FIGURES,
    GREY,
    label_margin,
    layered,
    one_chart,
    panels,
    source,
    width_colour,
)
from evaluation.report.tables import Chart, DataTable, Value

SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down")


NAMES = ("differences", "differences_bits", "widths")
"""Of all charts that a comparison may have."""


def charts(comparison: Mapping[str, Any]) -> list[Chart]:
    """All that have something to show; `run` in their tables is the arm."""
    found = [
        _differences(comparison, NAMES[0], in_percent=True),
        _differences(comparison, NAMES[1], in_percent=False),
        _widths(comparison),
    ]
    return [chart for chart in found if chart is not None]


def _differences(comparison: Mapping[str, Any], name: str, *, in_percent: bool) -> Chart | None:
    """A forest plot: of scores in percent, or of bits per byte and the like, which have another axis."""
    rows: list[tuple[Value, ...]] = []
    for arm, facts in comparison["arms"].items():
        lines = [
            (task_name(task), facts["tasks"][key]["difference"])
            for key, task in comparison["tasks"].items()
            if task["in_percent"] is in_percent and _is_shown(task)
        ]
        if in_percent and facts["macro"] is not None:
            lines.append((macro_name(comparison), facts["macro"]["difference"]))
        factor = 100 if in_percent else 1
        for label, found in lines:
            if found is not None and found["low"] is not None:
                ends = [factor * found[key] for key in ("difference", "low", "high")]
                rows.append((arm, label, *ends, found["p"], found.get("p_holm"), found["basis"]))
    if not rows:
        return None
    columns = ("run", "task", "difference", "low", "high", "p", "p_holm", "basis")
    table = DataTable(columns, rows)
    arms, tasks = table.texts("run"), table.texts("task")
    every = list(comparison["arms"])
    unit = "points of percent" if in_percent else "units of the metric"
    y = alt.Y("task:N", sort=tasks, title=None, scale=alt.Scale(paddingInner=0.3), axis=alt.Axis(grid=True))
    tips = [(name, "N" if table.kinds()[name] == "string" else "Q") for name in columns]
    base = alt.Chart(source(table)).encode(
        y=y,
        yOffset=alt.YOffset("run:N", sort=arms, scale=alt.Scale(paddingOuter=0.6)),
        color=_channel(alt.Color, arms, [COLOURS[every.index(arm) % len(COLOURS)] for arm in arms]),
        tooltip=[alt.Tooltip(f"{name}:{kind}") for name, kind in tips],
    )
    x = alt.X("low:Q", title=f"difference to the baseline, in {unit}", axis=FIGURES)
    zero = alt.Chart(source(table)).mark_rule(color=GREY, strokeWidth=1.5).encode(x=alt.datum(0))
    chart = layered(
        zero,
        base.mark_rule(strokeWidth=2.5).encode(x=x, x2="high:Q"),
        base.mark_point(filled=True, size=70, opacity=1).encode(
            x="difference:Q", shape=_channel(alt.Shape, arms, SHAPES)
        ),
    ).properties(height=max(len(tasks) * (14 * len(arms) + 14), 60))
    better = "right of 0 is better" if in_percent else "left of 0 is better, where less is better"
    note = (
        f"Score of the arm less that of its baseline, with the 95% interval: {_basis(rows)}. An interval "
        f"that holds 0 shows no difference; {better}. Intervals are not widened for the number of tasks."
    )
    what = "accuracies" if in_percent else ", ".join(tasks)
    title = f"Differences to {' and '.join(comparison['baselines'])}: {what}"
    return one_chart(name, title, note, table, chart, margin=label_margin(tasks), least=150)


def _is_shown(task: Mapping[str, Any]) -> bool:
    """Perplexities and counts have units that no axis suits together."""
    return bool(task["metrics"][task["primary"]]["aggregation"] != "other")


def _basis(rows: list[tuple[Value, ...]]) -> str:
    kinds = {row[-1] for row in rows}
    said = {
        "items": "two checkpoints on the same items (bootstrap)",
        "seeds": "over seeds, paired by seed (t)",
    }
    return " or ".join(text for kind, text in said.items() if kind in kinds)


C = TypeVar("C", alt.Color, alt.Shape)


def _channel(channel: type[C], arms: Sequence[str], values: Sequence[str]) -> C:
    """A colour or shape of each arm; one legend shows both."""
    scale = alt.Scale(domain=list(arms), range=[values[place % len(values)] for place in range(len(arms))])
    return channel("run:N", scale=scale, title=None)


def _widths(comparison: Mapping[str, Any]) -> Chart | None:
    rows: list[tuple[Value, ...]] = []
    for arm, facts in comparison["arms"].items():
        widths = facts["cost"]["widths"]
        if len(set(widths)) < 2:
            continue
        for task, cost in facts["cost"]["tasks"].items():
            label = comparison["tasks"][task]["label"]
            for width, share in zip(widths, cost["group_shares"], strict=False):
                rows.append((arm, label, str(width), width, share, cost["mean_width"]))
    if not rows:
        return None
    table = DataTable(("run", "task", "width", "order", "share", "mean_width"), rows)
    tasks = table.texts("task")
    labels = sorted(table.texts("width"), key=int)
    axis = alt.Axis(format="%", tickCount=5)
    bars = (
        alt.Chart(source(table))
        .mark_bar(stroke="white", strokeWidth=1)
        .encode(
            x=alt.X(
                "share:Q", title="share of all choices of experts", axis=axis, scale=alt.Scale(domain=[0, 1])
            ),
            y=alt.Y("task:N", sort=tasks, title=None),
            color=width_colour(labels).legend(symbolType="square", symbolStrokeWidth=0),
            order=alt.Order("order:Q"),
            tooltip=[
                *(alt.Tooltip(f"{name}:N") for name in ("run", "task", "width")),
                alt.Tooltip("share:Q", format=".2%"),
                alt.Tooltip("mean_width:Q", format=".1f", title="mean width of the task"),
            ],
        )
        .properties(height=max(24 * len(tasks), 60))
    )
    note = (
        "Each bar is a task: how its tokens' choices of experts fell on the widths. Hover for the shares and "
        "for the mean width."
    )
    title = "Widths of experts by task"
    return panels(
        NAMES[2], title, note, table, layered(bars), by="run", columns=1, margin=label_margin(tasks)
    )
