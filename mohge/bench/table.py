"""Rows as a table for people, ratios first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mohge.bench.rows import Row

_COLUMNS: dict[str, Callable[[Row], str]] = {
    "threads": lambda row: _number(row.threads_per_rank, "d"),
    "ratio": lambda row: _number(row.ratio, ".3f"),
    "ms": lambda row: _milliseconds(row.timing.median if row.timing else None),
    "25%": lambda row: _milliseconds(row.timing.low if row.timing else None),
    "75%": lambda row: _milliseconds(row.timing.high if row.timing else None),
    "forward": lambda row: _milliseconds(row.forward_seconds),
    "GFLOP/s": lambda row: _number(row.gflops, ".1f"),
    "tokens/s": lambda row: _number(row.tokens_per_second, ",.0f"),
    "waiting": lambda row: _number(row.waiting_share, ".1%"),
    "sent MiB": lambda row: _mebibytes(row.sent_bytes),
    "MiB": lambda row: _mebibytes(row.peak_bytes),
    "peak ratio": lambda row: _number(row.peak_ratio, ".2f"),
}


def render(result: dict[str, Any], rows: Sequence[Row]) -> RenderableType:
    """The machine, a table for each shape, dtype and number of threads, and the notes."""
    tables: dict[tuple[str, str], list[Row]] = {}
    for row in rows:  # shapes such as `experts=64` belong into one table
        threads = f"{row.threads} thread{'s' if row.threads > 1 else ''}"
        title = " · ".join((result["bench"], row.shape.partition("=")[0], row.dtype, threads))
        ratios = f"ratios{f' of {row.unit}' if row.unit else ''} to {row.against}"
        tables.setdefault((title, ratios), []).append(row)
    blocks: list[RenderableType] = [Text(describe(result) + "\n")]
    for (title, ratios), group in tables.items():
        measured = [row for row in group if row.note is None]
        blocks += [Text(title, style="bold"), Text(ratios), _table(measured)]
        blocks += [Text(f"{_name(row)}: {row.note}\n") for row in group if row.note is not None]
    return Group(*blocks, *(Text(note) for note in result["notes"]))


def describe(result: dict[str, Any]) -> str:
    """Machine and source revision, in two lines."""
    machine, git = result["machine"], result["revision"]
    memory, bf16 = machine["memory_bytes"], machine["bf16_instructions"]
    hardware = [
        machine["gpu"] or machine["cpu"],
        f"{machine['cores']} cores",
        f"{memory / 2**30:.0f} GiB" if memory else "",
        "" if bf16 is None else f"bf16 instructions: {', '.join(bf16) or 'none'}",
    ]
    revision = "" if git["revision"] is None else f"revision {git['revision'][:7]}"
    software = [
        f"torch {machine['torch']}",
        revision + (" with changes" if git["dirty"] else ""),
        result["date"],
    ]
    return "\n".join(" · ".join(fact for fact in line if fact) for line in (hardware, software))


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("", no_wrap=True)
    cells = [cell for cell in _COLUMNS.items() if any(cell[1](row) for row in rows)]
    for name, _ in cells:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(escape(_name(row)), *(cell(row) for _, cell in cells))
    return table


def _name(row: Row) -> str:
    return row.part or (row.shape if "=" in row.shape else None) or row.peer or row.kernel or ""


def _milliseconds(seconds: float | None) -> str:
    """Four digits, or whole milliseconds."""
    value = (seconds or 0.0) * 1e3
    return "" if seconds is None else f"{value:.{max(0, 3 - len(str(int(value))))}f}"


def _mebibytes(value: int | None) -> str:
    return "" if value is None else f"{value / 2**20:.1f}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
