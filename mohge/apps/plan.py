"""mohge-plan: what a configuration costs, without building it."""

from __future__ import annotations

from mohge.apps.output import emit
from mohge.apps.runner import run_app
from mohge.budget import budget
from mohge.budget_table import render
from mohge.config.schema import ResultConfig


def run(config: ResultConfig, overrides: list[str]) -> None:
    """Prints the budget of the composed configuration."""
    result = budget(config)
    emit(result.as_dict(), lambda: render(result, config), config.format, config.output)


def main() -> None:
    """Console entry point."""
    run_app("plan", ResultConfig, run)
