"""mohge-prepare: fetch, clean, split and tokenize a corpus, once."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mohge.apps.output import emit
from mohge.apps.runner import run_app
from mohge.config.schema import ResultConfig
from mohge.config.targets import build, check_data


def run(config: ResultConfig, overrides: list[str]) -> None:
    """Prepares the corpus of the composed configuration, and prints what it holds."""
    check_data(config.data)
    data = build("data", config.data.target, config.data, config.seed)
    data.prepare(progress=config.format == "table")
    summary = data.summary()
    emit(summary, lambda: _render(summary), config.format, config.output)


def main() -> None:
    """Console entry point."""
    run_app("prepare", ResultConfig, run)


def _render(summary: dict[str, Any]) -> RenderableType:
    """A row per domain and split, then where the corpus is and under which licences."""
    table = Table(title=f"{summary['corpus']}, by domain", title_justify="left")
    table.add_column("domain")
    table.add_column("split")
    units = ("documents", "bytes", "tokens")
    for unit in units:
        table.add_column(unit, justify="right")
    totals = dict.fromkeys(("train", "validation"), (0, 0, 0))
    for domain, splits in summary["domains"].items():
        for split, counts in splits.items():
            row = [counts[unit] for unit in units]
            totals[split] = tuple(total + value for total, value in zip(totals[split], row, strict=True))
            table.add_row(domain, split, *(f"{value:,}" for value in row))
    table.add_section()
    for split, sums in totals.items():
        table.add_row("all", split, *(f"{value:,}" for value in sums))
    tokenizer = summary["tokenizer"]
    facts = Text(
        f"tokenizer: {tokenizer['source']}, {tokenizer['vocab_size']} entries\n"
        f"licences: {', '.join(summary['licences'])}\n"
        f"store: {summary['folder']}"
    )
    return Group(table, facts)
