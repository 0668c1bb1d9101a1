"""How all charts look: colours that colour-blind readers tell apart, sizes, and how panels are arranged.

Runs have Okabe and Ito's colours and a dash pattern each, 35 pairs before one comes again. Widths have
viridis. Blue-white-red stands only where numbers are printed in the cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import altair as alt

from evaluation.report.tables import Chart, DataTable

MANY = 6
"""Runs up to which each has a panel of its own; of more, the page shows the one that is chosen."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [14, 4])
GREY = "#8a8f98"
LINES = alt.Legend(symbolType="stroke", symbolSize=700)
"""Entries long enough to show a dash pattern."""
FIGURES = alt.Axis(
    labelExpr="abs(datum.value) < 1000 ? format(datum.value, '.6~g') : format(datum.value, '.4~s')",
    tickCount=5,
)
"""0.6, 250, 1.2k, 3M; enough digits that ticks of a narrow axis differ: 1.8455, 1.394M."""
_PICTURE_WIDTH = 860
_LABEL = 230
"""Pixels of a label of an axis, at most."""
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"
_CONFIG: dict[str, Any] = {
    "background": "white",
    "font": _FONT,
    "view": {"stroke": None},
    "axis": {
        "gridColor": "#e6e8eb",
        "domainColor": "#8a8f98",
        "tickColor": "#8a8f98",
        "labelColor": "#33383f",
    }
    | {"titleColor": "#33383f", "titleFontWeight": "normal", "labelFontSize": 11, "titleFontSize": 12}
    | {"labelOverlap": "greedy", "labelLimit": _LABEL},
    "header": {"labelFontSize": 12, "labelFontWeight": "bold", "labelLimit": 330, "labelColor": "#1b1f24"},
    "legend": {"orient": "bottom", "labelLimit": 230, "titleFontWeight": "normal", "symbolSize": 120}
    | {"labelFontSize": 11, "titleFontSize": 12, "columns": 4, "symbolStrokeWidth": 2},
}

Spec = alt.Chart | alt.LayerChart | alt.ConcatChart | alt.FacetChart


def source(table: DataTable) -> alt.Data:
    """The table as inline CSV: half the bytes of objects."""
    return alt.Data(values=table.csv(), format=alt.CsvDataFormat(type="csv", parse=table.kinds()))


def run_colour(names: Sequence[str], every: Sequence[str]) -> alt.Color:
    """Colour of each run, with a legend.

    Args:
        names: of the runs in the chart.
        every: names of all runs of the page: a run has one colour in all charts.
    """
    scale = alt.Scale(domain=list(names), range=[COLOURS[every.index(name) % len(COLOURS)] for name in names])
    return alt.Color("run:N", scale=scale, title=None, legend=LINES)


def run_dash(names: Sequence[str], every: Sequence[str]) -> alt.StrokeDash:
    """Dash pattern of each run, in the legend of its colour; arguments as of `run_colour`."""
    dashes = [list(DASHES[every.index(name) % len(DASHES)]) for name in names]
    scale = alt.Scale(domain=list(names), range=dashes)
    return alt.StrokeDash("run:N", scale=scale, title=None, legend=LINES)


def width_colour(labels: Sequence[str]) -> alt.Color:
    """Viridis, without its palest end, from the narrowest to the widest."""
    scale = alt.Scale(domain=list(labels), scheme=alt.SchemeParams(name="viridis", extent=[0, 0.85]))
    return alt.Color("width:O", scale=scale, title="width of experts", sort=list(labels), legend=LINES)


def dashes_of(labels: Sequence[str]) -> list[list[int]]:
    """A dash pattern for each of some labels."""
    return [list(DASHES[index % len(DASHES)]) for index in range(len(labels))]


def layered(*charts: alt.Chart) -> alt.LayerChart:
    """Charts on top of each other; they have one table."""
    layers = alt.layer(*charts)
    assert isinstance(layers, alt.LayerChart)
    return layers


def label_margin(labels: Sequence[str]) -> int:
    """Pixels beside a panel whose vertical axis has these labels."""
    return 40 + min(_LABEL, 7 * max(map(len, labels)))


def highlight(field: str) -> alt.Parameter:
    """A click on an entry of the legend shows it alone; shift adds another, a double click shows all."""
    return alt.selection_point(fields=[field], bind="legend", name=f"highlight_{field}")


def faded(selection: alt.Parameter) -> Any:
    """Opacity of what is not highlighted."""
    return alt.when(selection).then(alt.value(1)).otherwise(alt.value(0.1))


def one_chart(
    name: str, title: str, note: str, table: DataTable, chart: Spec, *, margin: int = 70, least: int = 240
) -> Chart:
    """A chart of one panel.

    Args:
        name, title, note, table: as in `Chart`.
        chart: without a width.
        margin: pixels beside the panel, of axes and headers.
        least: pixels of the panel below which the page scrolls it.
    """
    spec = _finished(chart.properties(width=_PICTURE_WIDTH - margin), title, note)
    page = spec | {"usermeta": {"kind": "single", "columns": 1, "margin": margin, "least": least}}
    return Chart(name, title, note, table, page, spec)


def side_by_side(
    name: str, title: str, note: str, table: DataTable, charts: Sequence[alt.LayerChart]
) -> Chart:
    """A chart of several panels that share their legend."""
    margin, width = 70, _PICTURE_WIDTH // 2
    panels = [chart.properties(width=width - margin, height=260) for chart in charts]
    spec = _finished(alt.concat(*panels, columns=2), title, note)
    page = spec | {"usermeta": {"kind": "concat", "columns": 2, "margin": margin, "least": 240}}
    return Chart(name, title, note, table, page, spec)


def panels(
    name: str,
    title: str,
    note: str,
    table: DataTable,
    layers: alt.LayerChart,
    *,
    by: str,
    columns: int = 2,
    margin: int = 70,
    least: int = 240,
    independent: Sequence[Literal["x", "y"]] = (),
) -> Chart:
    """A chart with a panel for each value of a column.

    Args:
        name, title, note, table: as in `Chart`.
        layers: one panel, with the data of all.
        by: the column; if it is `run` and there are many, the page shows one panel and lets choose the run.
        columns: panels beside each other, at most.
        margin: pixels beside a panel, of its axes.
        least: pixels of a panel below which the page scrolls it.
        independent: channels whose scale each panel has for itself.
    """
    values = table.texts(by)
    columns = min(columns, len(values))
    panel = layers.properties(width=_PICTURE_WIDTH // columns - margin)
    header = alt.Header(labelAnchor="start", title=None)
    facet = panel.facet(alt.Facet(f"{by}:N", sort=values, header=header), columns=columns)
    facet = facet.resolve_axis(x="independent")
    if independent:
        resolution: dict[str, Any] = dict.fromkeys(independent, "independent")
        facet = facet.resolve_scale(**resolution)
    spec = _finished(facet, title, note)
    meta = {"kind": "facet", "columns": columns, "margin": margin, "least": least}
    page = spec
    if by == "run" and len(values) > MANY:
        options = alt.binding_select(options=values, name="Run shown: ")
        chosen = alt.param(name="chosen", value=values[0], bind=options)
        single = panel.transform_filter("datum.run === chosen").add_params(chosen)
        page, meta = _finished(single, title, note), meta | {"kind": "single", "columns": 1, "runs": values}
    return Chart(name, title, note, table, page | {"usermeta": meta}, spec)


def _finished(chart: Spec, title: str, note: str) -> dict[str, Any]:
    spec: dict[str, Any] = chart.properties(description=f"{title}. {note}").to_dict()
    return spec | {"config": _CONFIG}
