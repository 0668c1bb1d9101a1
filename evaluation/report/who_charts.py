"""Charts of who goes where: frequency and loss of tokens by width, parts of text and domains by width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from evaluation.report.facts import group_labels
from evaluation.report.look import GREY, label_margin, layered, panels, source
from evaluation.report.tables import Chart, DataTable, Value
from evaluation.report.who import Analysis

_MEASURES = {
    "frequency": ("token_frequency", "How rare the tokens of each width are", "log10 of uses per million"),
    "loss": ("token_loss", "How hard the tokens of each width are", "loss (nats)"),
}
_WHAT = {
    "frequency": (
        "Mean of log10 of how often a routed token occurs in a million training tokens: lower is rarer."
    ),
    "loss": "Mean cross-entropy of predicting the next token where a token was routed: higher is harder.",
}


def difficulty(analyses: Sequence[Analysis], measure: str) -> Chart | None:
    """Mean `frequency` or `loss` of the tokens at each width, with intervals; None without analyses."""
    rows: list[tuple[Value, ...]] = []
    for analysis in analyses:
        labels = group_labels(analysis.widths)
        for table in analysis.data["difficulty"]:
            layer = "all layers" if table["layer"] is None else f"layer {table['layer']}"
            for group in table["groups"]:
                value = group[measure]
                bounds = (value["mean"], value["low"], value["high"])
                rows.append((analysis.run, layer, labels[group["group"]], group["rows"], *bounds))
    if not rows:
        return None
    table = DataTable(("run", "layer", "width", "rows", "mean", "low", "high"), rows)
    name, title, axis = _MEASURES[measure]
    base = alt.Chart(source(table)).encode(
        x=alt.X("width:O", title="width of experts", sort=None, axis=alt.Axis(labelAngle=0))
    )
    y = alt.Y("mean:Q", title=axis, scale=alt.Scale(zero=False))
    tips = ["run:N", "layer:N", "width:O", alt.Tooltip("rows:Q", format=",d")]
    tips += [alt.Tooltip(f"{bound}:Q", format=".3f") for bound in ("mean", "low", "high")]
    # Conditions, and no filters: layers with other rows each would not share the panel's scale.
    whole = "datum.layer == 'all layers'"
    colour = alt.condition(whole, alt.value("#0072B2"), alt.value(GREY))

    def heavy(most: float, least: float) -> Any:
        return alt.condition(whole, alt.value(most), alt.value(least))

    layers = layered(
        base.mark_line().encode(y=y, detail="layer:N", color=colour, strokeWidth=heavy(2, 0.7)),
        base.mark_rule(color="#0072B2", strokeWidth=3).encode(
            y=alt.Y("low:Q", title=axis), y2="high:Q", opacity=heavy(1, 0)
        ),
        base.mark_point(filled=True, opacity=1).encode(y=y, color=colour, size=heavy(70, 14), tooltip=tips),
    )
    level = analyses[0].data["level"]
    note = (
        f"{_WHAT[measure]} Blue: all layers, bars are {level:.0%} intervals (bootstrap over sequences). "
        "Grey: single layers. A line that rises or falls steadily from narrow to wide means that width and "
        "difficulty go together."
    )
    return panels(
        name, title, note, table, layers.properties(height=200), by="run", independent=["x"], least=200
    )


def shares(analyses: Sequence[Analysis], kind: str) -> Chart | None:
    """Shares of rows per width of each of `parts` of text or `domains`; None without analyses."""
    rows: list[tuple[Value, ...]] = []
    for analysis in analyses:
        labels, overall = group_labels(analysis.widths), analysis.all_shares()
        for entry in analysis.data[kind]:
            name = f"{entry[kind.removesuffix('s')]} ({entry['tokens']:,})"
            for group, share in enumerate(entry["shares"]):
                usual = share / overall[group] if overall[group] else 1.0  # none, as everywhere
                rows.append((analysis.run, name, entry["tokens"], labels[group], share, usual))
    if not rows:
        return None
    table = DataTable(("run", "text", "tokens", "width", "share", "times_usual"), rows)
    base = alt.Chart(source(table)).encode(
        x=alt.X("width:O", title="width of experts", sort=None, axis=alt.Axis(labelAngle=0, ticks=False)),
        y=alt.Y("text:N", title=None, sort=None),
    )
    tips = ["run:N", "text:N", "width:O", alt.Tooltip("share:Q", format=".1%")]
    cells = base.mark_rect(stroke="white").encode(
        color=alt.Color(
            "times_usual:Q",
            title="÷ share of all text",
            scale=alt.Scale(scheme="redblue", reverse=True, domain=[0, 1, 2], clamp=True),
        ),
        tooltip=[*tips, alt.Tooltip("times_usual:Q", format=".2f")],
    )
    numbers = base.mark_text(fontSize=11).encode(
        text=alt.Text("share:Q", format=".1%"),
        color=alt.condition(
            "datum.times_usual < 0.35 || datum.times_usual > 1.65", alt.value("white"), alt.value("#1b1f24")
        ),
    )
    what = "Of the rows of each part of text" if kind == "parts" else "Of the rows of each domain"
    note = (
        f"{what} (its tokens in brackets), the share that each width computed; a line adds up to 100%. Red "
        "cells have more than the width's share of all text, blue ones less, white ones as much."
    )
    title = (
        "Which width handles which part of text" if kind == "parts" else "Which width handles which domain"
    )
    most = max(len(analysis.data[kind]) for analysis in analyses)
    layers = layered(cells, numbers).properties(height=26 * most)
    margin = label_margin(table.texts("text"))
    return panels(
        kind, title, note, table, layers, by="run", margin=margin, least=190, independent=["x", "y"]
    )
