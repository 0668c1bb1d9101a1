"""A comparison as one HTML page, in the look of the reports; it needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.benchmarks.markup import title
from evaluation.benchmarks.sheet import Sheet
from evaluation.benchmarks.sheets import sheets
from evaluation.report.frame import framed
from evaluation.report.tables import Chart

_HERE = Path(__file__).parent
_FOLDED = ("checkpoints", "other_metrics", "task_cost")
"""Tables that the reader has to open."""


def as_page(comparison: Mapping[str, Any], charts: Sequence[Chart]) -> str:
    """The whole page; names and errors in it are escaped.

    Args:
        comparison: of `comparing.compare`.
        charts: of `charts.charts`; the page links to their files in charts/.
    """
    tables = sheets(comparison)
    return framed(
        _HERE,
        drawn=bool(charts),
        title=title(comparison),
        comparison=comparison,
        said=[*comparison["remarks"], *comparison["families"]],
        sections=[
            ("scores", "Scores", _named(tables, "scores", "over_seeds", "checkpoints"), []),
            ("differences", "Differences", _named(tables, "difference"), _drawn(charts, "differences")),
            ("cost", "Cost", _named(tables, "cost", "task_cost"), []),
            ("widths", "Widths", _named(tables, "widths"), _drawn(charts, "widths")),
            ("others", "Other metrics", _named(tables, "other_metrics"), []),
        ],
        folded=_FOLDED,
    )


def _named(tables: Sequence[Sheet], *stems: str) -> list[Sheet]:
    return [sheet for sheet in tables if sheet.name.startswith(stems)]


def _drawn(charts: Sequence[Chart], stem: str) -> list[Chart]:
    return [chart for chart in charts if chart.name.startswith(stem)]
