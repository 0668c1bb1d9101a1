"""mohge-prepare: fetch, clean, split and tokenize a corpus, once."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from mohge.apps.output import emit
from mohge.apps.runner import run_app
from mohge.config.schema import PrepareConfig
from mohge.config.targets import locate


def run(config: PrepareConfig, overrides: list[str]) -> None:
    """Prepares the corpus of the composed configuration, and prints what it holds."""
    data = locate("data", config.data.target)(config.data, seed=config.seed)
    data.prepare(progress=config.format == "table")
    summary = data.summary()
    emit(summary, lambda: _render(summary), config.format, config.output)


def main() -> None:
    """Console entry point."""
    run_app("prepare", PrepareConfig, run)


def _render(summary: dict[str, Any]) -> RenderableType:
    return Group(Table(), str(summary))
