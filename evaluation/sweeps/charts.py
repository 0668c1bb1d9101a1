"""Charts of a sweep: differences to the baseline, families of arms, and curves."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import altair as alt

from evaluation.report.look import (
    COLOURS,
    FIGURES,
    GREY,
    faded,
    highlight,
    label_margin,
    layered,
    one_chart,
    panels,
    run_colour,
    run_dash,
    source,
)
from evaluation.report.tables import Chart, DataTable, Value
from evaluation.sweeps.analysis import Analysis, Levels
from evaluation.sweeps.cells import QUALITY, CurvePoint
from evaluation.sweeps.pairing import comparable, estimate
from evaluation.sweeps.pareto import COSTS, pareto
from evaluation.sweeps.study import Study

_BLUE = COLOURS[0]
_TOKENS = "training tokens"
_FAMILY_PANELS = {
    QUALITY: "validation bits per byte",
    "active_measured": "measured active parameters",
    "mean_width": "mean width of the experts used",
}


def charts(study: Study, analysis: Analysis) -> list[Chart]:
    """All that have something to show, in reading order."""
    found = [
        *(pareto(analysis, figure) for figure in COSTS),
        differences(analysis),
        *(family(analysis, levels) for levels in analysis.families),
        learning_curves(study),
        difference_curves(study),
        active_curves(study),
    ]
    return [chart for chart in found if chart is not None]


def differences(analysis: Analysis) -> Chart | None:
    """A forest plot of differences to the baseline, best first; None where there are none."""
    rows: list[tuple[Value, ...]] = []
    for arm in analysis.arms.values():
        beside = arm.beside_baseline
        if beside is None or beside.quality is None:
            continue
        found = beside.quality
        low, high = (found.mean if end is None else end for end in (found.low, found.high))
        rows.append((arm.name, "mean", found.mean, low, high, beside.p_holm, None))
        rows += [(arm.name, "seed", value, None, None, None, seed) for seed, value in found.by_seed.items()]
    if not rows:
        return None
    columns = ("run", "part", "difference", "low", "high", "p_holm", "seed")
    table = DataTable(columns, rows)
    arms = [str(row[0]) for row in sorted(_means(rows), key=lambda row: float(row[2] or 0))]
    base = alt.Chart(source(table)).encode(
        y=alt.Y("run:N", sort=arms, title=None, axis=alt.Axis(grid=True, ticks=False)),
    )
    title = f"bits per byte less those of {analysis.baseline}"
    x = alt.X("difference:Q", title=title, axis=FIGURES)
    means, seeds = (base.transform_filter(alt.datum.part == part) for part in ("mean", "seed"))
    tips = [
        alt.Tooltip("run:N", title="arm"),
        *(alt.Tooltip(f"{name}:Q", format="+.4f") for name in ("difference", "low", "high")),
        alt.Tooltip("p_holm:Q", format=".2g", title="p, Holm"),
    ]
    layers = [
        alt.Chart(source(table)).mark_rule(color=GREY, strokeWidth=1.5).encode(x=alt.datum(0)),
        means.mark_rule(strokeWidth=2.5, color=_BLUE).encode(x=alt.X("low:Q", title=title), x2="high:Q"),
        seeds.mark_point(filled=True, size=18, opacity=0.5, color="#000000").encode(x=x),
        means.mark_point(filled=True, size=75, opacity=1, color=_BLUE).encode(x=x, tooltip=tips),
    ]
    note = (
        f"Difference to {analysis.baseline}, paired by seed: mean, 95% t interval, and each seed as a small "
        "dot. Left of 0 is better; an interval that holds 0 shows no difference. Intervals are not widened "
        "for the number of arms."
    )
    if analysis.power is not None:
        band = analysis.power.detectable
        layers.insert(
            0,
            alt.Chart(source(table))
            .mark_rect(color="#e6e8eb", opacity=0.6)
            .encode(x=alt.datum(-band), x2=alt.datum(band)),
        )
        note += (
            f" Grey: true differences that {analysis.power.seeds} seeds miss in more than one sweep of five."
        )
    chart = layered(*layers).properties(height=22 * len(arms) + 10)
    heading = f"Differences to {analysis.baseline}"
    return one_chart("differences", heading, note, table, chart, margin=label_margin(arms), least=320)


def family(analysis: Analysis, levels: Levels) -> Chart | None:
    """Quality, measured active parameters and mean width against the key that a family of arms differs in."""
    rows: list[tuple[Value, ...]] = []
    for figure, title in _FAMILY_PANELS.items():
        for value, arm in levels.values:
            found = analysis.arms[arm].figures.get(figure)
            if found is None:
                continue
            low, high = (found.mean if end is None else end for end in (found.low, found.high))
            rows.append((f"{value:g}", arm, title, "mean", found.mean, low, high))
            rows += [(f"{value:g}", arm, title, "seed", one, None, None) for one in found.by_seed.values()]
    if not rows:
        return None
    # Levels are names: the axis has a place for each, 0 among them.
    table = DataTable(("level", "run", "measure", "part", "value", "low", "high"), rows)
    order = [f"{value:g}" for value, _ in levels.values]
    base = alt.Chart(source(table)).encode(
        x=alt.X("level:N", title=levels.key, sort=order, axis=alt.Axis(labelAngle=0, grid=False))
    )
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=FIGURES)
    mean = alt.datum.part == "mean"
    tips = [alt.Tooltip("run:N", title="arm"), "level:N"]
    tips += [alt.Tooltip(f"{name}:Q", format=",.5~g") for name in ("value", "low", "high")]
    layers = layered(
        base.transform_filter(mean).mark_line(color=_BLUE, strokeWidth=1.2).encode(y=y),
        base.transform_filter(mean)
        .mark_rule(color=_BLUE, strokeWidth=2.2)
        .encode(y=alt.Y("low:Q", title=None), y2="high:Q"),
        base.transform_filter(alt.datum.part == "seed")
        .mark_point(filled=True, size=16, opacity=0.5, color="#000000")
        .encode(y=y),
        base.transform_filter(mean)
        .mark_point(filled=True, size=70, opacity=1, color=_BLUE)
        .encode(y=y, tooltip=tips),
    ).properties(height=220)
    note = (
        f"{levels.key} at its values, evenly spaced: mean over seeds with its 95% t interval, and each seed "
        "as a small dot. Axes do not start at zero."
    )
    name = "family_" + levels.key.rpartition(".")[2]
    title = f"What {levels.key} does"
    return panels(
        name, title, note, table, layers, by="measure", columns=3, independent=["x", "y"], least=230
    )


def learning_curves(study: Study) -> Chart | None:
    """Bits per byte over tokens, mean over seeds; None without curves."""
    rows: list[tuple[Value, ...]] = [
        (arm, tokens, value)
        for arm in study.arms
        for tokens, value in _mean_curve(study, arm, lambda point: point.bits_per_byte)
    ]
    title = "validation bits per byte"
    note = (
        "Mean over seeds of bits per byte of held-out text while the arms learn, less is better. Only times "
        "that all seeds of an arm have. Click a name in the legend to see it alone, double-click to see all."
    )
    return _lines("learning_curves", "Learning curves", note, title, rows, logarithmic=True)


def active_curves(study: Study) -> Chart | None:
    """Measured active parameters of validations over tokens, mean over seeds; None without curves."""
    rows: list[tuple[Value, ...]] = [
        (arm, tokens, value)
        for arm in study.arms
        for tokens, value in _mean_curve(study, arm, lambda point: point.active_measured)
    ]
    varying = {row[0] for row in rows if len({other[2] for other in rows if other[0] == row[0]}) > 1}
    note = (
        "Mean over seeds of the parameters that a token of the held-out text used, for arms in which that is "
        "not fixed by design."
    )
    kept = [row for row in rows if row[0] in varying]
    title = "measured active parameters"
    return _lines("active_curves", "Active parameters over the training", note, title, kept)


def difference_curves(study: Study) -> Chart | None:
    """Differences to the baseline over tokens, a panel for each arm; None without curves."""
    base = study.plan.baseline
    theirs = {(point.seed, point.tokens): point.bits_per_byte for point in study.curves if point.arm == base}
    rows: list[tuple[Value, ...]] = []
    for arm in study.arms:
        cells, others = study.of(arm), study.of(base)
        paired = {seed for seed in cells if seed in others and comparable(cells[seed], others[seed])}
        points = [
            (point.tokens, point.seed, point.bits_per_byte - theirs[point.seed, point.tokens])
            for point in study.curves
            if point.arm == arm != base and point.seed in paired and (point.seed, point.tokens) in theirs
        ]
        rows += [(arm, "seed", seed, tokens, value) for tokens, seed, value in points]
        by_tokens: dict[float, dict[int, float]] = defaultdict(dict)
        for tokens, seed, value in points:
            by_tokens[tokens][seed] = value
        for tokens, values in sorted(by_tokens.items()):
            found = estimate(values)
            if found is not None and len(values) == len(paired):
                rows.append((arm, "mean", None, tokens, found.mean))
    if not rows:
        return None
    table = DataTable(("arm", "part", "seed", "tokens", "difference"), rows)
    late = [
        float(row[4] or 0) for row in rows if float(row[3] or 0) > 0.2 * max(float(r[3] or 0) for r in rows)
    ]
    reach = 1.1 * max(map(abs, late), default=0.1) or 0.1
    data = source(table)
    root = alt.Chart(data).encode(
        x=alt.X("tokens:Q", title=_TOKENS, axis=alt.Axis(format="~s", tickCount=3)),
        y=alt.Y(
            "difference:Q",
            title=f"less {base}",
            scale=alt.Scale(domain=[-reach, reach], clamp=True, nice=False),
            axis=alt.Axis(format="+.2~g", tickCount=5),
        ),
    )
    layers = layered(
        alt.Chart(data).mark_rule(color=GREY).encode(y=alt.datum(0)),
        root.transform_filter(alt.datum.part == "seed")
        .mark_line(strokeWidth=0.8, opacity=0.6, color=GREY)
        .encode(detail="seed:N"),
        root.transform_filter(alt.datum.part == "mean").mark_line(strokeWidth=2, color=_BLUE),
    ).properties(height=110)
    note = (
        f"Bits per byte less those of {base} at the same tokens, paired by seed: blue the mean, grey each "
        "seed. Below 0 is better. The first fifth of the training may leave the axes: it is drawn at their "
        "edge."
    )
    title = f"Differences to {base} over the training"
    return panels("difference_curves", title, note, table, layers, by="arm", columns=4, margin=55, least=170)


def _lines(
    name: str,
    title: str,
    note: str,
    axis: str,
    rows: Sequence[tuple[Value, ...]],
    *,
    logarithmic: bool = False,
) -> Chart | None:
    if not rows:
        return None
    table = DataTable(("run", "tokens", "value"), rows)
    names = table.texts("run")
    selected = highlight("run")
    scale = alt.Scale(zero=False, nice=False, type="log" if logarithmic else "linear")
    lines = (
        alt.Chart(source(table))
        .mark_line(strokeWidth=1.6)
        .encode(
            x=alt.X("tokens:Q", title=_TOKENS, axis=FIGURES),
            y=alt.Y("value:Q", title=axis, scale=scale, axis=FIGURES),
            color=run_colour(names, names),
            strokeDash=run_dash(names, names),
            opacity=faded(selected),
            tooltip=[alt.Tooltip("run:N", title="arm"), alt.Tooltip("tokens:Q", format=",.0f"), "value:Q"],
        )
        .add_params(selected)
    )
    return one_chart(name, title, note, table, layered(lines).properties(height=340), least=320)


def _mean_curve(
    study: Study, arm: str, value: Callable[[CurvePoint], float | None]
) -> list[tuple[float, float]]:
    """Tokens and mean over seeds, where all finished seeds of an arm have a value."""
    seeds = len(study.of(arm))
    at: dict[float, list[float]] = defaultdict(list)
    for point in study.curves:
        found = value(point) if point.arm == arm else None
        if found is not None and math.isfinite(found):
            at[point.tokens].append(found)
    return [(tokens, sum(values) / seeds) for tokens, values in sorted(at.items()) if len(values) == seeds]


def _means(rows: Sequence[tuple[Value, ...]]) -> list[tuple[Value, ...]]:
    return [row for row in rows if row[1] == "mean"]
