"""Charts of work and its price: load of experts, balance of ranks, cost against quality."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import altair as alt

from evaluation.report.facts import last_load
from evaluation.report.look import (
    COLOURS,
    FIGURES,
    MANY,
    highlight,
    label_margin,
    layered,
    one_chart,
    panels,
    run_colour,
    run_dash,
    source,
)
from evaluation.report.ranks import RECORDED, RankBalance
from evaluation.report.tables import Chart, DataTable, Value
from evaluation.run_data import RunData, spread
from mohge.parallel.replay import PLACEMENTS

_NUMBERED = 24
"""Experts in a layer up to which cells have their numbers printed."""
_CELL = 22
"""Height of a cell, in pixels."""
_LABELLED = 12
"""Runs up to which points have their names printed."""


def expert_load(runs: Sequence[RunData]) -> Chart | None:
    """Load of each expert in the last validation, layers x experts ordered by width; None without counts."""
    rows: list[tuple[Value, ...]] = []
    for run in runs:
        rows += _loads(run)
    if not rows:
        return None
    columns = ("run", "layer", "expert", "width", "label", "first", "rows", "load")
    table = DataTable(columns, rows)
    most = max(run.config.experts.num_experts for run in runs)
    numbered = most <= _NUMBERED
    highest = max(float(row[-1] or 0) for row in rows)
    by_rank = alt.EncodingSortField("expert", op="min", order="ascending")
    axis = alt.Axis(ticks=False, labelAngle=0 if numbered else -90)
    base = alt.Chart(source(table)).encode(
        x=alt.X("label:N", title="expert: width · number", sort=by_rank, axis=axis),
        y=alt.Y("layer:O", title="layer"),
    )
    tips = ["run:N", "layer:O", "expert:O", "width:O", alt.Tooltip("rows:Q", format=",d")]
    colours = (
        alt.Scale(scheme="redblue", reverse=True, domain=[0, 1, max(2.0, highest)], clamp=True)
        if numbered
        else alt.Scale(scheme="cividis", domain=[0, max(2.0, highest)])
    )
    cells = base.mark_rect().encode(
        color=alt.Color("load:Q", title="load, 1 = mean of the layer", scale=colours),
        tooltip=[*tips, alt.Tooltip("load:Q", format=".3f")],
    )
    lines = base.mark_tick(orient="vertical", thickness=2, bandSize=_CELL, color="black").encode(
        x=alt.X("label:N", sort=by_rank, bandPosition=0), opacity=alt.Opacity("first:Q", scale=None)
    )
    dark = f"datum.load < 0.35 || datum.load > 1 + 0.65 * {max(2.0, highest) - 1:.4f}"
    marks = base.mark_text(fontSize=alt.expr("datum.rows == 0 ? 16 : 10")).encode(
        text="mark:N", color=alt.condition(dark, alt.value("white"), alt.value("#1b1f24"))
    )
    printed = "datum.load < 0.005 ? '<0.01' : format(datum.load, '.2f')" if numbered else "''"
    # On the whole, not on the marks alone: layers with other data would not share the panel's scale.
    layers = layered(cells, lines, marks).transform_calculate(
        mark=f"datum.rows == 0 ? '\N{MULTIPLICATION SIGN}' : {printed}"
    )
    note = (
        "Load of each expert in the last validation: 1 is the mean of its layer, 2 twice as many tokens. A "
        "white cross marks an idle expert, which no token chose. Experts are ordered by width, narrow to "
        "wide; black lines part the widths."
    )
    return panels(
        "expert_load",
        "Load of experts",
        note,
        table,
        layers.properties(height=_CELL * max(run.config.model.layers for run in runs)),
        by="run",
        columns=1,
        margin=80,
        least=28 * most if numbered else 8 * most,
        independent=["x", "y"],
    )


def rank_balance(balances: Sequence[RankBalance]) -> Chart | None:
    """Largest over mean of the ranks' work, a point for each run and placement; None without any."""
    if not balances:
        return None
    rows: list[tuple[Value, ...]] = [
        (balance.run, balance.ranks, placement, value)
        for balance in balances
        for placement, value in balance.max_over_mean.items()
    ]
    table = DataTable(("run", "ranks", "placement", "max_over_mean"), rows)
    names, placements = table.texts("run"), table.texts("placement")
    points = (
        alt.Chart(source(table))
        .mark_point(filled=True, size=110)
        .encode(
            x=alt.X(
                "max_over_mean:Q",
                title="busiest rank ÷ mean (1 is even)",
                scale=alt.Scale(zero=False, domainMin=1, nice=True),
                axis=alt.Axis(tickCount=6, format=".2f"),
            ),
            y=alt.Y("run:N", title=None, sort=names, axis=alt.Axis(grid=True)),
            yOffset=alt.YOffset("placement:N", sort=placements),
            color=_placed(alt.Color, placements, _PLACEMENT_COLOURS),
            shape=_placed(alt.Shape, placements, _PLACEMENT_SHAPES),
            tooltip=["run:N", "ranks:Q", "placement:N", alt.Tooltip("max_over_mean:Q", format=".3f")],
        )
    )
    note = (
        "Expert FLOPs of the busiest rank in a step over the mean of the ranks, over the last tenth of the "
        "steps: at 1 no rank waits for another. 'as trained' is what the ranks of a run recorded. The "
        "others are replays of the run's routing on more GPUs than it had, for three placements: all_size "
        "gives each rank experts of every width, contiguous puts equal widths together, pairs joins narrow "
        "with wide."
    )
    step = alt.Step(step=44 if len(names) <= MANY else 24, **{"for": "position"})
    chart = layered(points).properties(height=step)
    title, margin = "The busiest rank against the mean", label_margin(names)
    return one_chart("rank_balance", title, note, table, chart, margin=margin)


def rank_load(balances: Sequence[RankBalance]) -> Chart | None:
    """Load of each rank, by placement; None without any."""
    if not balances:
        return None
    rows: list[tuple[Value, ...]] = [
        (balance.run, placement, rank, load)
        for balance in balances
        for placement, loads in balance.shares.items()
        for rank, load in enumerate(loads)
    ]
    table = DataTable(("run", "placement", "rank", "load"), rows)
    placements = table.texts("placement")
    selected = highlight("placement")
    base = alt.Chart(source(table))
    bars = (
        base.mark_bar(stroke="white", strokeWidth=0.5)
        .encode(
            x=alt.X("rank:O", title="rank", axis=alt.Axis(labelAngle=0)),
            xOffset=alt.XOffset("placement:N", sort=placements),
            y=alt.Y("load:Q", title="load (1 = mean of ranks)"),
            color=_placed(alt.Color, placements, _PLACEMENT_COLOURS),
            opacity=alt.when(selected).then(alt.value(1)).otherwise(alt.value(0.1)),
            tooltip=["run:N", "placement:N", "rank:O", alt.Tooltip("load:Q", format=".3f")],
        )
        .add_params(selected)
    )
    even = base.mark_rule(color="#33383f", strokeDash=[4, 3]).encode(y=alt.datum(1))
    note = (
        "Expert FLOPs of each rank over the last tenth of the steps; the dashed line is an even share. A "
        "rank above it makes the others wait."
    )
    layers = layered(bars, even).properties(height=180)
    return panels("rank_load", "Load of each rank", note, table, layers, by="run")


def rank_history(balances: Sequence[RankBalance], thin: int, every: Sequence[str]) -> Chart | None:
    """Largest over mean of recorded ranks over steps, at most `thin` steps a run; None without records.

    `every` has the names of all runs of the page, which give each its colour.
    """
    rows: list[tuple[Value, ...]] = []
    for balance in balances:
        points = list(zip(balance.steps_S, balance.history_S, strict=True))
        rows += [(balance.run, *point) for point in spread(points, thin)]
    if not rows:
        return None
    table = DataTable(("run", "step", "max_over_mean"), rows)
    names = table.texts("run")
    chart = (
        alt.Chart(source(table))
        .mark_line(strokeWidth=1.4)
        .encode(
            x=alt.X("step:Q", title="optimizer step", axis=FIGURES),
            y=alt.Y("max_over_mean:Q", title="busiest rank ÷ mean", scale=alt.Scale(zero=False)),
            color=run_colour(names, every),
            strokeDash=run_dash(names, every),
        )
    )
    note = (
        "Of runs on several ranks: expert FLOPs of the busiest rank over the mean, step by step; 1 is even."
    )
    layers = layered(chart).properties(height=220)
    return one_chart("rank_history", "Balance of ranks over time", note, table, layers)


def cost_quality(facts: Sequence[dict[str, Any]]) -> Chart | None:
    """Training FLOPs per token against validation bits per byte; None if nothing was validated."""
    rows: list[tuple[str, str, float, float, int, float, str]] = []
    for fact in facts:
        active, flops, bits = (
            fact[name] for name in ("active_parameters", "train_flops_per_token", "bits_per_byte")
        )
        known = "plan" if None in (active["measured"], flops["measured"]) else "measured"
        by = "expected" if known == "plan" else "measured"
        if bits is not None and math.isfinite(bits) and flops[by] is not None:
            rows.append((fact["name"], fact["arch"], flops[by], active[by], fact["tokens"], bits, known))
    if not rows:
        return None
    columns = ("run", "arch", "train_flops_per_token", "active_parameters", "tokens", "bits_per_byte", "cost")
    table = DataTable(columns, rows)
    selected = highlight("arch")
    archs = table.texts("arch")
    scale = alt.Scale(domain=archs, range=[COLOURS[i % len(COLOURS)] for i in range(len(archs))])
    base = alt.Chart(source(table)).encode(
        x=alt.X(
            "train_flops_per_token:Q",
            title="training FLOPs per token",
            scale=_around([row[2] for row in rows]),
            axis=FIGURES,
        ),
        y=alt.Y("bits_per_byte:Q", title="validation bits per byte", scale=_around([row[5] for row in rows])),
        opacity=alt.when(selected).then(alt.value(1)).otherwise(alt.value(0.15)),
    )
    tips = [
        "run:N",
        "arch:N",
        *(alt.Tooltip(f"{name}:Q", format=",.0f") for name in columns[2:5]),
        alt.Tooltip("bits_per_byte:Q", format=".4f"),
        alt.Tooltip("cost:N", title="cost is from"),
    ]
    points = base.mark_point(filled=True, size=120).encode(
        color=alt.Color("arch:N", scale=scale, title="architecture"),
        shape=alt.Shape("arch:N", scale=alt.Scale(domain=archs), title="architecture"),
        tooltip=tips,
    )
    layers = [points.add_params(selected)]
    if len(rows) <= _LABELLED:
        layers.append(base.mark_text(align="left", dx=9, dy=-7, fontSize=11, limit=240).encode(text="run:N"))
    note = (
        "One point for each run: what a token costs in training, with the experts that it really visited "
        "(as planned, where that was not recorded), against how well held-out text is predicted. Lower left "
        "is better. Compare only runs that saw as many tokens; hover for them."
    )
    chart = layered(*layers).properties(height=320)
    return one_chart("cost_quality", "Price of a token and bits per byte", note, table, chart)


_PLACEMENT_COLOURS = dict(
    zip((RECORDED, *PLACEMENTS), ("#000000", "#0072B2", "#E69F00", "#CC79A7"), strict=True)
)
_PLACEMENT_SHAPES = dict(
    zip((RECORDED, *PLACEMENTS), ("diamond", "circle", "square", "triangle-up"), strict=True)
)

C = TypeVar("C", alt.Color, alt.Shape)


def _around(values: Sequence[float]) -> alt.Scale:
    """A scale that shows the values with room beside them, also a single one."""
    room = max(0.15 * (max(values) - min(values)), 0.02 * max(values))
    return alt.Scale(domain=[min(values) - room, max(values) + room], nice=False)


def _placed(channel: type[C], placements: Sequence[str], values: Mapping[str, str]) -> C:
    """A colour or shape of each placement that occurs."""
    scale = alt.Scale(domain=list(placements), range=[values[placement] for placement in placements])
    return channel("placement:N", scale=scale, title="placement of experts")


def _loads(run: RunData) -> list[tuple[Value, ...]]:
    """A row for each cell of the heatmap."""
    load_LE = last_load(run)
    if load_LE is None:
        return []
    experts = run.config.experts
    widths = [width for width in experts.widths for _ in range(experts.per_group)]
    counts_LE = run.routing[-1]["expert_counts"]
    return [
        (
            *(run.name, layer, expert, width, f"{width} · {expert}", int(_begins(widths, expert))),
            *(counts_LE[layer][expert], float(load_LE[layer, expert])),
        )
        for layer in range(len(counts_LE))
        for expert, width in enumerate(widths)
    ]


def _begins(widths: Sequence[int], expert: int) -> bool:
    """Whether an expert is the first of another width than those before it."""
    return expert > 0 and widths[expert] != widths[expert - 1]
