"""mohge-plan: what a configuration costs, and each rank of it, or the replay of a recorded run's routing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from mohge.apps.output import emit
from mohge.apps.runner import run_app
from mohge.budget import budget
from mohge.budget_table import render
from mohge.config.checks import remarks
from mohge.config.matching import describe_match
from mohge.config.plan_schema import PlanConfig
from mohge.config.targets import check_router
from mohge.parallel.rank_plan import rank_plan
from mohge.parallel.rank_table import render_ranks


def run(config: PlanConfig, overrides: list[str]) -> None:
    """Prints the budget of the composed configuration and, on more than one rank, the plan of its mesh.

    With `replay`, it prints how evenly that run's experts would have worked on several ranks instead.
    """
    if config.replay is not None:
        _replay(config.replay, config)
        return
    check_router(config.router)
    cost, mesh = budget(config), rank_plan(config)
    result: dict[str, Any] = cost.as_dict()
    if mesh.sizes.world > 1:
        result["parallel"] = mesh.as_dict()
    if (sentence := describe_match(config)) is not None:
        result["match"] = asdict(config.match)
    if remarked := remarks(config):
        result["remarks"] = remarked

    def table() -> RenderableType:
        parts = [render(cost, config)]
        if mesh.sizes.world > 1:
            parts.append(render_ranks(mesh, config))
        if sentence is not None:
            parts.append(Text(sentence))
        parts += [Text(remark) for remark in remarked]
        return Group(*parts)

    emit(result, table, config.format, config.output)


def _replay(folder: str, config: PlanConfig) -> None:
    # Imported here, since a plan needs no numpy.
    from mohge.parallel import replay_table
    from mohge.parallel.replay import replay_run

    replay = replay_run(folder, config.ranks, config.last)
    emit(replay.as_dict(), lambda: replay_table.render(replay), config.format, config.output)


def main() -> None:
    """Console entry point."""
    run_app("plan", PlanConfig, run)
