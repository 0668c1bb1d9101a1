"""Charts of a sweep over the training: bits per byte, active parameters, differences to the baseline."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence

import altair as alt

from evaluation.report.look import (
    COLOURS,
    FIGURES,
    GREY,
    faded,
    highlight,
    layered,
    one_chart,
    panels,
    run_colour,
    run_dash,
    source,
)
from evaluation.report.tables import Chart, Value
from evaluation.sweeps.cells import QUALITY, CurvePoint
from evaluation.sweeps.pairing import comparable, estimate, of_arm
from evaluation.sweeps.shown import chart_table, shared_seeds
from evaluation.sweeps.study import Study
from evaluation.sweeps.wording import listed, seeds_text

_BLUE = COLOURS[0]
_TOKENS = "training tokens"


def learning_curves(study: Study) -> Chart | None:
    """Bits per byte over tokens, mean over seeds; None without curves."""
    rows: list[tuple[Value, ...]] = [
        (arm, tokens, value)
        for arm in study.arms
        for tokens, value in _mean_curve(study, arm, lambda point: point.bits_per_byte)
    ]
    title = "validation bits per byte"
    note = (
        "Bits per byte of held-out text while the arms learn, less is better. Only times that all seeds of "
        f"an arm have. {_curve_note(study)} Click a name in the legend to see it alone, twice to see all."
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
        "Parameters that a token of the held-out text used, for arms in which that is not fixed by design. "
        + _curve_note(study)
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
    table = chart_table(("arm", "part", "seed", "tokens", "difference"), rows)
    latest = max(float(row[3] or 0) for row in rows)
    late = [float(row[4] or 0) for row in rows if float(row[3] or 0) > 0.2 * latest]
    low, high = min([0, *late]), max([0, *late])
    room = 0.1 * (high - low) or 0.1
    data = source(table)
    root = alt.Chart(data).encode(
        x=alt.X("tokens:Q", title=_TOKENS, axis=alt.Axis(format="~s", tickCount=3)),
        y=alt.Y(
            "difference:Q",
            title=f"less {base}",
            scale=alt.Scale(domain=[low - room, high + room], clamp=True, nice=False),
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
    table = chart_table(("run", "tokens", "value"), rows)
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
    """Tokens and mean over the seeds of the chart, or over the arm's own, where all have a value."""
    shared, own = _shared(study), list(study.of(arm))
    seeds = shared if set(shared) <= set(own) else own
    at: dict[float, list[float]] = defaultdict(list)
    for point in study.curves:
        found = value(point) if point.arm == arm and point.seed in seeds else None
        if found is not None and math.isfinite(found):
            at[point.tokens].append(found)
    return [
        (tokens, statistics.fmean(some)) for tokens, some in sorted(at.items()) if len(some) == len(seeds)
    ]


def _shared(study: Study) -> list[int]:
    found = [of_arm(study, arm, QUALITY) for arm in study.arms]
    return shared_seeds([one for one in found if one is not None])


def _curve_note(study: Study) -> str:
    shared = _shared(study)
    others = [arm for arm in study.arms if not set(shared) <= study.of(arm).keys()]
    over_others = f"; of {listed(others)}, which lack some, over those they have" if others else ""
    return f"Means are over seed{'s' * (len(shared) > 1)} {seeds_text(shared)}{over_others}."
