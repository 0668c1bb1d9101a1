"""All tables of a comparison, in reading order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluation.benchmarks.cost_sheets import costs, task_costs, widths
from evaluation.benchmarks.score_sheets import checkpoints, differences, other_metrics, over_seeds, scores
from evaluation.benchmarks.sheet import Sheet


def sheets(comparison: Mapping[str, Any]) -> list[Sheet]:
    """Those that have something to show."""
    arms = comparison["arms"]
    found = scores(comparison)
    found += [differences(comparison, name) for name, arm in arms.items() if arm["baseline"] is not None]
    if len(comparison["checkpoints"]) > len(arms):
        found += [over_seeds(comparison), checkpoints(comparison)]
    found += [costs(comparison), task_costs(comparison)]
    found += [widths(comparison, name) for name in arms]
    found.append(other_metrics(comparison))
    return [sheet for sheet in found if sheet.rows]
