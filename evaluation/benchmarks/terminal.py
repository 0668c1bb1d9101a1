"""A comparison in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from evaluation.benchmarks.sheet import Sheet
from evaluation.benchmarks.sheets import sheets


def render(comparison: Mapping[str, Any]) -> RenderableType:
    """Tables that fit 110 columns, then answers and remarks.

    Args:
        comparison: of `comparing.compare`.
    """
    parts: list[RenderableType] = []
    for sheet in sheets(comparison):
        if sheet.in_terminal:
            parts += [sheet_table(sheet), Padding(Text(sheet.note, style="dim"), (0, 0, 1, 0))]
    parts += [point(answer["answer"]) for answer in comparison["answers"]]
    said = [*comparison["remarks"], *comparison["families"]]
    if said:
        parts += [Text("\nRemarks", style="bold"), *map(point, said)]
    return Group(*parts)


def point(sentence: str) -> Table:
    """A sentence after a dash, its lines below each other."""
    grid = Table.grid(padding=(0, 1))
    grid.add_row("-", Text(sentence))
    return grid


def sheet_table(sheet: Sheet) -> Table:
    """A table with the title of its sheet."""
    table = Table(title=Text(sheet.title), title_justify="left", title_style="bold")
    for place, name in enumerate(sheet.header):
        left = place == 0 or place in sheet.words
        table.add_column(Text(name), justify="left" if left else "right", overflow="fold")
    for row in sheet.rows:
        table.add_row(*map(Text, row))
    return table
