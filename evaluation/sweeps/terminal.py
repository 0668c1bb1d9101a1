"""A sweep in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from evaluation.benchmarks.sheet import Sheet
from evaluation.benchmarks.terminal import point, sheet_table
from evaluation.sweeps.analysis import Analysis
from evaluation.sweeps.blocks import all_sheets
from evaluation.sweeps.wording import BITS, WORDS

_SIZES = (WORDS["total_parameters"], WORDS["active_measured"])
_LEFT_OUT = {
    "quality": ("seeds", "p"),
    "costs": (WORDS["active_expected"],),
    "effects": ("compared", "seeds", "pooled (95%)", *_SIZES),
    "levels": ("compared", "seeds", "pooled (95%)", *_SIZES),
    "family_": ("arm", "seeds", BITS, "p, Holm", "pooled (95%)", "p, pooled", "change", "mean width"),
    "power": ("degrees", "seeds for 0.1", "seeds for 0.05", "seeds for 0.005", "seeds for 0.002"),
}
"""Columns of wide tables, by what their names begin with, that a terminal has no room for."""


def render(analysis: Analysis, result: Mapping[str, Any]) -> RenderableType:
    """Tables that fit 110 columns, then answers, remarks and where the report is.

    Args:
        analysis: of the sweep.
        result: of `making.report_sweep`.
    """
    parts: list[RenderableType] = [Text(result["summary"])]
    for sheet in all_sheets(analysis):
        if sheet.in_terminal:
            parts += [sheet_table(narrowed(sheet)), Padding(Text(sheet.note, style="dim"), (0, 0, 1, 0))]
    parts += [point(one["answer"]) for one in result["answers"]]
    if result["remarks"]:
        parts += [Text("\nRemarks", style="bold"), *map(point, result["remarks"])]
    if result["document"]:
        changed = ", ".join(result["document"]["changed"]) or "nothing has changed"
        parts.append(Text(f"Document: {result['document']['path']}: {changed}"))
    if result["page"]:
        parts.append(Text(f"Report: {result['page']}", no_wrap=True, overflow="ignore"))
    return Group(*parts)


def narrowed(sheet: Sheet) -> Sheet:
    """The columns that a terminal has room for."""
    left_out = next((some for name, some in _LEFT_OUT.items() if sheet.name.startswith(name)), None)
    if left_out is None:
        return sheet
    kept = [place for place, heading in enumerate(sheet.header) if not heading.startswith(left_out)]
    rows = [[row[column] for column in kept] for row in sheet.rows]
    words = frozenset(place for place, column in enumerate(kept) if column in sheet.words)
    return replace(sheet, header=[sheet.header[column] for column in kept], rows=rows, words=words)
