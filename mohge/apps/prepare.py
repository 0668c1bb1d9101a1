"""mohge-prepare: fetch, clean, split and tokenize a corpus, or fetch the benchmarks, once."""

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
    """Prepares the corpus or the benchmarks of the composed configuration, and prints what they hold."""
    benchmarks = config.data.name == "benchmarks"
    if not benchmarks:  # their check refuses them as a corpus
        check_data(config.data)
    data = build("data", config.data.target, config.data, config.seed)
    data.prepare(progress=config.format == "table")
    summary = data.summary()
    render = _render_benchmarks if benchmarks else _render
    emit(summary, lambda: render(summary), config.format, config.output)


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


def _render_benchmarks(summary: dict[str, Any]) -> RenderableType:
    """A row per benchmark, then where the tasks are and what they are made of."""
    table = Table(title="benchmarks, by task of lm-eval", title_justify="left")
    for heading in ("task", "benchmark", "split", "items", "bytes", "licence"):
        table.add_column(heading, justify="right" if heading in ("items", "bytes") else "left")
    for name, facts in summary["benchmarks"].items():
        numbers = (f"{facts['items']:,}", f"{facts['bytes']:,}")
        table.add_row(name, facts["label"], facts["split"], *numbers, facts["licence"])
    wheel = summary["wheel"]
    lines = Text(
        f"items: {wheel['project']} {wheel['version']} ({wheel['licence']}); licences are those that the "
        "datasets' cards state\n"
        f"tasks, on the definitions of lm-eval {summary['lm_eval']}:"
    )
    # In one line, however long: it is there to be copied.
    place = Text(f"{summary['folder']}/tasks", no_wrap=True, overflow="ignore")
    return Group(table, lines, place)
