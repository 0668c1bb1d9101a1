"""The numbers behind a chart, once: the page, the PNG and the CSV file are made of the same text."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Value = str | int | float | None


@dataclass(frozen=True)
class DataTable:
    """Rows of a chart, each with a value (None: unknown) for every column."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[Value, ...]]

    def csv(self) -> str:
        """As CSV with a header line; floats have seven digits, None and NaN are empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_cell(value) for value in row] for row in self.rows)
        return text.getvalue()

    def kinds(self) -> dict[str, str]:
        """`number` or `string` of each column, as Vega parses it."""
        return {name: _kind(row[index] for row in self.rows) for index, name in enumerate(self.columns)}

    def texts(self, column: str) -> list[str]:
        """The different values of a column of text, in order of appearance."""
        index = self.columns.index(column)
        return list(dict.fromkeys(str(row[index]) for row in self.rows))


@dataclass(frozen=True)
class Chart:
    """A chart of the page."""

    name: str
    """Stem of its files."""
    title: str
    note: str
    """What it shows and how to read it, in plain sentences."""
    table: DataTable
    page: dict[str, Any]
    """Vega-Lite for the page; `usermeta` tells the page's script how it fits a width."""
    picture: dict[str, Any]
    """Vega-Lite for the PNG: as the page's, with all runs where the page lets one be chosen."""


def _cell(value: Value) -> Value:
    if isinstance(value, float):
        return f"{value:.7g}" if math.isfinite(value) else None
    return value


def _kind(values: Iterable[Value]) -> str:
    return "string" if any(isinstance(value, str) for value in values) else "number"
