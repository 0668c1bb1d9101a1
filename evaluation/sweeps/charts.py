"""Charts of a sweep: all of them, differences to the baseline, and families of arms."""

from __future__ import annotations

import re

import altair as alt

from evaluation.report.look import (
    COLOURS,
    FIGURES,
    GREY,
    label_margin,
    layered,
    one_chart,
    panels,
    source,
)
from evaluation.report.tables import Chart, Value
from evaluation.sweeps.analysis import Analysis, Levels
from evaluation.sweeps.cells import QUALITY
from evaluation.sweeps.comparing import Comparison
from evaluation.sweeps.curve_charts import active_curves, difference_curves, learning_curves
from evaluation.sweeps.pareto import AXES, pareto
from evaluation.sweeps.shown import (
    CENTRED,
    FEW,
    MARKS,
    WHOLE,
    centred,
    chart_table,
    cut,
    over,
    reach,
    seeds_note,
    shared_seeds,
    steadied,
    whisker,
)
from evaluation.sweeps.study import Study
from evaluation.sweeps.wording import BETTER, NOT_SHOWN, SHOWN, WORSE, verdict

_BLUE = COLOURS[0]
_FAMILY_PANELS = {
    QUALITY: "validation bits per byte",
    "active_measured": "measured active parameters",
    "mean_width": "mean width of the experts used",
}
_SHOWN, _IF_EQUAL, _NOT_SHOWN, _NO_TEST = "shown", "shown if noise is equal", "not shown", "no test"
_FOUND = {_SHOWN: "#0072B2", _IF_EQUAL: "#E69F00", _NOT_SHOWN: "#8a9099", _NO_TEST: "#c9ccd1"}
_DIFFERENCE_COLUMNS = (
    *("run", "part", "finding", "difference", "low", "high", "drawn_low", "drawn_high"),
    *("pooled_low", "pooled_high", "drawn_pooled_low", "drawn_pooled_high", "p_holm", "p_pooled", "seed"),
)
_FAMILY_COLUMNS = (
    *("level", "run", "measure", "part", "value"),
    *("low", "high", "drawn_low", "drawn_high"),
)
ALWAYS = (
    *(f"pareto_{ending}" for ending, _ in AXES.values()),
    *("differences", "learning_curves", "difference_curves", "active_curves"),
)
"""Charts that any sweep may have, once enough of it is finished."""


def charts(study: Study, analysis: Analysis) -> list[Chart]:
    """All that have something to show, in reading order."""
    found = [
        *(pareto(analysis, figure) for figure in AXES),
        differences(analysis),
        *(family(analysis, levels) for levels in analysis.families),
        learning_curves(study),
        difference_curves(study),
        active_curves(study),
    ]
    return [steadied(chart) for chart in found if chart is not None]


def differences(analysis: Analysis) -> Chart | None:
    """A forest plot of differences to the baseline, best first once all are judged; None without any."""
    found = [arm.beside_baseline for arm in analysis.arms.values() if arm.beside_baseline is not None]
    known = [(one, one.quality) for one in found if one.quality is not None]
    if not known:
        return None
    if not any(one.lacking for one, _ in known):  # until then an order would be read as a ranking
        known.sort(key=lambda pair: pair[1].mean)
    band = analysis.power
    points = [value for _, one in known for value in (one.mean, *one.by_seed.values())]
    pooled = [end for one, _ in known if one.pooled for end in (one.pooled.low, one.pooled.high)]
    ends = reach([0, *points, *pooled], [end for _, one in known for end in (one.low, one.high)])
    rows: list[tuple[Value, ...]] = []
    for one, quality in known:
        low, high = (one.pooled.low, one.pooled.high) if one.pooled else (None, None)
        lines = (
            *whisker(quality.mean, quality.low, quality.high, ends),
            *whisker(quality.mean, low, high, ends),
        )
        rows.append((one.name, "mean", _kind(one), quality.mean, *lines, one.p_holm, one.p_pooled, None))
        rows += [
            (one.name, "seed", None, value, *[None] * 10, seed) for seed, value in quality.by_seed.items()
        ]
        if band is not None and quality.seeds == band.seeds:
            edges = [cut(edge, ends) for edge in (-band.pooled.detectable, band.pooled.detectable)]
            rows.append((one.name, "band", None, None, *[None] * 2, *edges, *[None] * 7))
    table = chart_table(_DIFFERENCE_COLUMNS, rows)
    arms = [one.name for one, _ in known]
    base = alt.Chart(source(table)).encode(
        y=alt.Y("run:N", sort=arms, title=None, axis=alt.Axis(grid=True, ticks=False)),
    )
    title = f"bits per byte less those of {analysis.baseline}"
    scale = alt.Scale(domain=list(ends), nice=False)
    x = alt.X("difference:Q", title=title, axis=FIGURES, scale=scale)
    thin, thick = (
        alt.X(name, title=title, axis=FIGURES, scale=scale) for name in ("drawn_low:Q", "drawn_pooled_low:Q")
    )
    kinds = [kind for kind in _FOUND if kind in table.texts("finding")]
    colour = alt.Color(
        "finding:N",
        scale=alt.Scale(domain=kinds, range=[_FOUND[kind] for kind in kinds]),
        title=None,
        legend=MARKS,
    )
    means, seeds, bands = (base.transform_filter(alt.datum.part == part) for part in ("mean", "seed", "band"))
    tips = [
        alt.Tooltip("run:N", title="arm"),
        *(
            alt.Tooltip(f"{name}:Q", format="+.4f")
            for name in ("difference", "low", "high", "pooled_low", "pooled_high")
        ),
        alt.Tooltip("p_holm:Q", format=".2g", title="p, Holm"),
        alt.Tooltip("p_pooled:Q", format=".2g", title="p, pooled"),
    ]
    layers = [
        bands.mark_bar(color="#e6e8eb", opacity=0.6, size=20).encode(x=thin, x2="drawn_high:Q"),
        alt.Chart(source(table)).mark_rule(color=GREY, strokeWidth=1.5).encode(x=alt.datum(0)),
        means.mark_rule(strokeWidth=1).encode(x=thin, x2="drawn_high:Q", color=colour),
        means.mark_rule(strokeWidth=4).encode(x=thick, x2="drawn_pooled_high:Q", color=colour),
        seeds.mark_point(filled=True, size=18, opacity=0.5, color="#000000").encode(x=x),
        means.mark_point(filled=True, size=75, opacity=1).encode(x=x, color=colour, tooltip=tips),
    ]
    note = (
        f"Difference to {analysis.baseline}, paired by seed: mean, and each seed as a small dot. Left of 0 "
        "is better. Thin lines: 95% t intervals by the deviation of each difference itself, cut where they "
        "are long; thick ones: by the noise of all arms together. Intervals are of single tests; colours "
        "tell what is shown after Holm's correction for all tests."
    )
    if band is not None:
        note += (
            f" Grey, for arms with {band.seeds} seeds: true differences that the pooled test, so corrected, "
            "misses in more than one sweep of five."
        )
    chart = layered(*layers).properties(height=22 * len(arms) + 10)
    heading = f"Differences to {analysis.baseline}"
    return one_chart("differences", heading, note, table, chart, margin=label_margin(arms), least=320)


def _kind(one: Comparison) -> str:
    found = verdict(one)
    if found in (BETTER, WORSE):
        return _SHOWN
    return _IF_EQUAL if found in SHOWN else _NOT_SHOWN if found == NOT_SHOWN else _NO_TEST


def family(analysis: Analysis, levels: Levels) -> Chart | None:
    """Quality, measured active parameters and mean width against the key that a family of arms differs in."""
    arms = {name: analysis.arms[name].figures for _, name in levels.values}
    seeds = shared_seeds([figures[QUALITY] for figures in arms.values() if QUALITY in figures])
    rows: list[tuple[Value, ...]] = []
    for figure, title in _FAMILY_PANELS.items():
        known = {name: arms[name][figure] for _, name in levels.values if figure in arms[name]}
        without = dict(zip(known, centred(list(known.values()), seeds), strict=True))
        found = [
            (f"{value:g}", name, *over(without[name], seeds))
            for value, name in levels.values
            if name in without
        ]
        if not found:
            continue
        points = [value for _, _, one, _ in found for value in (one.mean, *one.by_seed.values())]
        ends = reach(points, [end for _, _, one, _ in found for end in (one.low, one.high)])
        for level, name, one, whole in found:
            part = WHOLE if whole and len(seeds) > 1 else FEW
            rows.append((level, name, title, part, one.mean, *whisker(one.mean, one.low, one.high, ends)))
            rows += [(level, name, title, "seed", value, *[None] * 4) for value in one.by_seed.values()]
    if not rows:
        return None
    # Levels are names: the axis has a place for each, 0 among them.
    table = chart_table(_FAMILY_COLUMNS, rows)
    order = [f"{value:g}" for value, _ in levels.values]
    base = alt.Chart(source(table)).encode(
        x=alt.X("level:N", title=levels.key, sort=order, axis=alt.Axis(labelAngle=0, grid=False))
    )
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=FIGURES)
    means, few, dots = (base.transform_filter(alt.datum.part == part) for part in (WHOLE, FEW, "seed"))
    tips = [alt.Tooltip("run:N", title="arm"), "level:N"]
    tips += [alt.Tooltip(f"{name}:Q", format=",.5~g") for name in ("value", "low", "high")]
    whiskers = alt.Y("drawn_low:Q", title=None, scale=alt.Scale(zero=False), axis=FIGURES)
    layers = layered(
        means.mark_line(color=_BLUE, strokeWidth=1.2).encode(y=y),
        means.mark_rule(color=_BLUE, strokeWidth=2.2).encode(y=whiskers, y2="drawn_high:Q"),
        few.mark_rule(color=_BLUE, strokeWidth=1, strokeDash=[3, 2]).encode(y=whiskers, y2="drawn_high:Q"),
        dots.mark_point(filled=True, size=16, opacity=0.5, color="#000000").encode(y=y),
        means.mark_point(filled=True, size=70, opacity=1, color=_BLUE).encode(y=y, tooltip=tips),
        few.mark_point(size=70, opacity=1, stroke=_BLUE, fill="white", strokeWidth=2).encode(
            y=y, tooltip=tips
        ),
    ).properties(height=220)
    note = (
        f"{levels.key} at its values, evenly spaced: mean over seeds with its 95% t interval, and each seed "
        f"as a small dot. {CENTRED if len(seeds) > 1 else ''}{seeds_note(seeds)} Long intervals are cut at "
        "the edge. Intervals are of single levels and not corrected: the table has the tests. Axes do not "
        "start at zero."
    )
    name = "family_" + re.sub(r"[^\w.-]+", "_", levels.name)
    title = f"What {levels.name} does"
    return panels(
        name, title, note, table, layers, by="measure", columns=3, independent=["x", "y"], least=230
    )
