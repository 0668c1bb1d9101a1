"""Charts of what a run recorded over its steps: losses, shares of groups, metrics of routing, speed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from evaluation.report.facts import group_labels
from evaluation.report.look import (
    FIGURES,
    LINES,
    MANY,
    dashes_of,
    faded,
    highlight,
    label_margin,
    layered,
    one_chart,
    panels,
    run_colour,
    run_dash,
    side_by_side,
    source,
    width_colour,
)
from evaluation.report.tables import Chart, DataTable, Value
from evaluation.run_data import RunData, read_lines, spread
from mohge.errors import UserError

_ROWS = 1500
"""Points of a chart, about; each line has `_LEAST` to `_MOST` of them."""
_MOST, _LEAST = 300, 20
_TOKENS = alt.X("tokens:Q", title="training tokens", axis=FIGURES)
_HOW_LINES = "Hover to read a line; click a name in the legend to see it alone, double-click to see all."

_ROUTING = {
    "routing/max_violation": "largest load over the mean, minus 1, in the worst layer (0 is even)",
    "routing/max_violation_in_groups": "the same, each expert against the mean of its width group",
    "routing/dead_experts": "experts, over all layers, that no token of the step chose",
    "routing/load_variation": "standard deviation of the loads of a layer's experts over their mean",
    "routing/group_entropy": "1 when tokens choose all widths alike, 0 when always the same",
    "routing/expert_entropy": "1 when tokens choose all experts alike, 0 when always the same",
    "routing/active_parameters": "parameters that a token passed through, measured",
    "routing/flops_per_token": "training FLOPs per token, measured",
    "val/routing/churn": "share of the tokens of a fixed text whose experts changed since the last look",
}
"""Metrics of routing that come first, if recorded, and what they say."""
_PARTS = ("forward", "backward", "optimizer", "communication", "data", "logging", "other")


StepShare = tuple[int, int, list[float]]
"""Step, tokens, and the share of routed rows of each group."""


def step_shares(run: RunData) -> list[StepShare]:
    """Shares of the width groups in logged training steps, at most 300; none where nothing was recorded.

    Raises:
        UserError: routing_steps.jsonl is damaged.
    """
    path = run.path / "routing_steps.jsonl"
    experts, layers = run.config.experts, run.config.model.layers
    if not experts.num_experts or not path.exists():
        return []
    needs = ("step", "tokens", "expert_counts")
    shares = []
    for line in read_lines(path, needs=needs, growing=run.growing, most=_MOST):
        counts_LE = np.asarray(line["expert_counts"])
        if counts_LE.shape != (layers, experts.num_experts) or not counts_LE.any():
            raise UserError(
                f"{path} is damaged (step {line['step']} lacks counts of {layers} layers x "
                f"{experts.num_experts} experts): train the run anew"
            )
        rows_G = counts_LE.sum(axis=0).reshape(experts.num_groups, -1).sum(axis=1)
        shares.append((line["step"], line["tokens"], (rows_G / rows_G.sum()).tolist()))
    return shares


def loss_curves(runs: Sequence[RunData]) -> Chart:
    """Training cross-entropy and validation bits per byte over tokens."""
    each = _points(2 * len(runs))
    rows: list[tuple[Value, ...]] = []
    for run in runs:
        for measure, metric in (("training", "train/loss"), ("validation", "val/bits_per_byte")):
            rows += [(run.name, measure, *point) for point in _thinned(run, metric, each)]
    table = DataTable(("run", "measure", "tokens", "value"), rows)
    names = [run.name for run in runs]
    selected = highlight("run")
    titles = {"training": "training cross-entropy (nats per token)", "validation": "validation bits per byte"}
    charts = [
        _lines(
            table, names, selected, title, marked=measure == "validation" and len(runs) <= MANY
        ).transform_filter(alt.datum.measure == measure)
        for measure, title in titles.items()
    ]
    charts[0] = charts[0].add_params(selected)
    note = (
        "How the loss falls while a run learns, lower is better. Left: cross-entropy of the training text, "
        "without auxiliary losses. Right: bits per byte of held-out text, which compares runs whatever "
        f"their tokenizer. {_HOW_LINES}"
    )
    return side_by_side("loss_curves", "Loss over tokens", note, table, charts)


def group_shares(runs: Sequence[RunData], shares: Mapping[str, Sequence[StepShare]]) -> Chart | None:
    """Share of rows of each width group over steps.

    Args:
        runs: any; those of one group are left out.
        shares: of `step_shares`, by the name of the run.

    Returns:
        None if there is nothing to show.
    """
    watched = [run for run in runs if run.config.experts.num_groups > 1 and shares.get(run.name)]
    each = _points(sum(run.config.experts.num_groups for run in watched))
    rows: list[tuple[Value, ...]] = []
    widths: dict[str, int] = {}
    for run in watched:
        labels = group_labels(run.config.experts.widths)
        widths |= dict(zip(labels, run.config.experts.widths, strict=True))
        for step, tokens, share_G in spread(shares[run.name], each):
            rows += [(run.name, step, tokens, *pair) for pair in zip(labels, share_G, strict=True)]
    if not rows:
        return None
    table = DataTable(("run", "step", "tokens", "width", "share"), rows)
    ordered = sorted(widths, key=widths.__getitem__)
    selected = highlight("width")
    dash = alt.StrokeDash(
        "width:O",
        scale=alt.Scale(domain=ordered, range=dashes_of(ordered)),
        title="width of experts",
        sort=ordered,
        legend=LINES,
    )
    base = alt.Chart(source(table)).encode(
        x=_TOKENS,
        y=alt.Y(
            "share:Q", title="share of routed rows", axis=alt.Axis(format=".0%"), scale=alt.Scale(zero=True)
        ),
    )
    line = base.mark_line(strokeWidth=2).encode(
        color=width_colour(ordered), strokeDash=dash, opacity=faded(selected)
    )
    hover = _hover(base, ["run", "width", "step", "tokens"], ("share", ".1%"), detail="width:N")
    note = (
        "Of all routed rows (a token at one of its experts) in a training step, the share that the experts "
        "of each width computed. With equal use, every width would have the same share. Lines that part show "
        f"tokens moving to narrow or wide experts. {_HOW_LINES}"
    )
    layers = layered(line.add_params(selected), hover).properties(height=220)
    return panels("group_shares", "Share of tokens per width over time", note, table, layers, by="run")


def routing_metrics(runs: Sequence[RunData]) -> Chart | None:
    """Scalars `routing/NAME` of training steps, and churn of validations; None if there are none."""
    scalars = {name for run in runs for name in _recorded(run, r"routing/[a-z_]+|val/routing/churn")}
    found = {name for name in scalars if not name.endswith("_expected")}  # the summary has them
    first = [name for name in _ROUTING if name in found]
    metrics = [*first, *sorted(found - set(first))]
    said = "; ".join(f"{name.rpartition('/')[2]}: {_ROUTING[name]}" for name in first)
    note = f"Of each logged training step. {said}. {_HOW_LINES}"
    return metric_panels("routing_metrics", "Routing over time", note, runs, metrics)


def auxiliary_losses(runs: Sequence[RunData]) -> Chart | None:
    """Auxiliary losses, raw and weighted; None if there are none."""
    found = sorted({name for run in runs for name in _recorded(run, r"aux(_weighted)?/\w+")})
    note = (
        "aux/NAME is an auxiliary loss as it is defined, summed over layers; aux_weighted/NAME is what it "
        f"adds to the cross-entropy, after its weight and schedule. {_HOW_LINES}"
    )
    return metric_panels("auxiliary_losses", "Auxiliary losses over time", note, runs, found)


def speed(runs: Sequence[RunData]) -> Chart | None:
    """Throughput and memory; None if nothing was recorded."""
    metrics = ["speed/tokens_per_second", "speed/flops_per_second", "speed/peak_share", "memory/peak_bytes"]
    found = [name for name in metrics if any(run.series(name)[0] for run in runs)]
    note = (
        "tokens_per_second: training tokens in a second, all ranks together. flops_per_second: the same in "
        "floating-point operations; peak_share: as a share of the fastest matrix product that the machine "
        f"managed. peak_bytes: largest memory. {_HOW_LINES}"
    )
    return metric_panels("speed", "Speed and memory over time", note, runs, found)


def metric_panels(
    name: str, title: str, note: str, runs: Sequence[RunData], metrics: Sequence[str]
) -> Chart | None:
    """A panel for each metric, a line in it for each run; None without metrics."""
    if not metrics:
        return None
    each = _points(len(runs) * len(metrics))
    rows: list[tuple[Value, ...]] = [
        (run.name, metric, *point)
        for metric in metrics
        for run in runs
        for point in _thinned(run, metric, each)
    ]
    table = DataTable(("run", "metric", "tokens", "value"), rows)
    selected = highlight("run")
    lines = _lines(table, [run.name for run in runs], selected, None)
    layers = lines.properties(height=150).add_params(selected)
    return panels(name, title, note, table, layers, by="metric", independent=["y"])


def time_split(runs: Sequence[RunData]) -> Chart | None:
    """Parts of a step's time in the second half of each run; None if nothing was recorded."""
    rows: list[tuple[Value, ...]] = []
    for run in runs:
        for part in _PARTS:
            values = run.series(f"time/{part}_share")[1]
            if values:
                rows.append((run.name, part, float(np.mean(values[len(values) // 2 :]))))
    if not rows:
        return None
    table = DataTable(("run", "part", "share"), rows)
    order = ", ".join(f"'{part}'" for part in _PARTS)
    chart = (
        alt.Chart(source(table))
        .transform_calculate(order=f"indexof([{order}], datum.part)")
        .mark_bar(stroke="white", height={"band": 0.8})
        .encode(
            x=alt.X(
                "share:Q",
                title="share of a step's time",
                axis=alt.Axis(format=".0%"),
                scale=alt.Scale(domain=[0, 1]),
            ),
            y=alt.Y("run:N", title=None, sort=table.texts("run")),
            color=alt.Color(
                "part:N",
                title="part",
                sort=list(_PARTS),
                scale=alt.Scale(domain=list(_PARTS), scheme="viridis"),
            ),
            order=alt.Order("order:Q"),
            tooltip=["run:N", "part:N", alt.Tooltip("share:Q", format=".1%")],
        )
        .properties(height=alt.Step(26))
    )
    note = (
        "Where the time of a training step goes, mean over the second half of each run, in the order of the "
        "legend from left to right. data: waiting for text; communication: waiting for other ranks; logging: "
        "records and callbacks. Hover for figures."
    )
    margin = label_margin(table.texts("run"))
    return one_chart("time_split", "Time of a step", note, table, chart, margin=margin)


def _lines(
    table: DataTable,
    every: Sequence[str],
    selected: alt.Parameter,
    title: str | None,
    *,
    marked: bool = False,
) -> alt.LayerChart:
    """A line for each run over tokens; hovering tells values, or in small panels of many runs the run.

    `every` has the names of all runs of the page.
    """
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False), axis=FIGURES)
    base = alt.Chart(source(table)).encode(x=_TOKENS, y=y)
    points: Any = {"size": 30} if marked else False
    names = table.texts("run")
    line = base.mark_line(strokeWidth=1.6, point=points).encode(
        color=run_colour(names, every), strokeDash=run_dash(names, every), opacity=faded(selected)
    )
    if title is None and len(names) > MANY:  # thousands of points would make the page slow to open
        return layered(line.encode(tooltip="run:N"))
    return layered(line, _hover(base, ["run", "tokens"], ("value", ".5~g"), detail="run:N"))


def _hover(base: alt.Chart, names: Sequence[str], value: tuple[str, str], *, detail: str) -> alt.Chart:
    """Invisible points over lines, that tell their values."""
    kinds = {"step": "Q", "tokens": "Q"}
    tips = [
        alt.Tooltip(f"{name}:{kinds.get(name, 'N')}", format=",d" if name in kinds else "") for name in names
    ]
    return base.mark_point(opacity=0, size=90, filled=True).encode(
        detail=detail, tooltip=[*tips, alt.Tooltip(f"{value[0]}:Q", format=value[1])]
    )


def _points(lines: int) -> int:
    return min(_MOST, max(_LEAST, _ROWS // max(lines, 1)))


def _thinned(run: RunData, metric: str, most: int) -> list[tuple[float, float]]:
    return spread(list(zip(*run.series(metric), strict=True)), most)


def _recorded(run: RunData, pattern: str) -> set[str]:
    return {name for row in run.metrics for name in row if re.fullmatch(pattern, name)}
