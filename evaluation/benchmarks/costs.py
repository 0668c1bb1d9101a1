"""What evaluations cost: parameters, FLOPs, time, and the widths of the experts that tasks used.

Shapes: G width groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from evaluation.benchmarks.arms import Arm
from evaluation.benchmarks.reading import Cost, Evaluation

_MEASURED = ("tokens_per_second", "seconds_per_item", "active_parameters", "flops_per_token")


def arm_cost(arm: Arm, tasks: Iterable[str]) -> dict[str, Any]:
    """Means over the arm's checkpoints, as planned, as measured over all tasks, and for each task.

    Returns:
        `parameters`, `active_parameters` and `flops_per_token` (forward), the last two `expected` and
        `measured` (over all tasks, weighted by tokens), `seconds` of all tasks, `widths`, and by task
        `tokens_per_second`, `seconds_per_item`, `active_parameters`, `flops_per_token`, `group_shares` and
        `mean_width` of the experts chosen. None or empty where nothing was measured.
    """
    results = arm.results
    by_task = {name: found for name in tasks if (found := _task_cost(arm, name)) is not None}
    costs = [cost for one in arm.evaluations for name in by_task if (cost := cost_of(one, name)) is not None]
    return {
        "parameters": results.parameters.total,
        "active_parameters": {
            "expected": results.parameters.active,
            "measured": _weighted(costs, "active_parameters"),
        },
        "flops_per_token": {
            "expected": results.flops_per_token,
            "measured": _weighted(costs, "flops_per_token"),
        },
        "seconds": _mean([sum(_seconds(one)) for one in arm.evaluations if _seconds(one)]),
        "widths": list(results.widths),
        "tasks": by_task,
    }


def mean_width(shares_G: Sequence[float], widths_G: Sequence[int]) -> float | None:
    """Mean width of the experts chosen; None where shares are not known."""
    if not shares_G or len(shares_G) != len(widths_G):
        return None
    return float(np.dot(shares_G, widths_G) / np.sum(shares_G))


def _task_cost(arm: Arm, name: str) -> dict[str, Any] | None:
    costs = [cost for one in arm.evaluations if (cost := cost_of(one, name)) is not None]
    if not costs:
        return None
    shares = [cost.group_shares for cost in costs if cost.group_shares]
    shares_G = np.mean(shares, axis=0).tolist() if shares else []
    return {
        **{
            key: _mean([value for cost in costs if (value := getattr(cost, key)) is not None])
            for key in _MEASURED
        },
        "group_shares": shares_G,
        "mean_width": mean_width(shares_G, arm.results.widths),
    }


def cost_of(one: Evaluation, name: str) -> Cost | None:
    """What a task cost, or None."""
    task = one.done(name)
    return task.cost if task is not None else None


def _seconds(one: Evaluation) -> list[float]:
    costs = [cost_of(one, name) for name in one.results.tasks]
    return [cost.seconds for cost in costs if cost is not None and cost.seconds is not None]


def _weighted(costs: Sequence[Cost], key: str) -> float | None:
    known = [
        (getattr(cost, key), cost.tokens) for cost in costs if getattr(cost, key) is not None and cost.tokens
    ]
    tokens = sum(cost_tokens for _, cost_tokens in known)
    return sum(value * cost_tokens for value, cost_tokens in known) / tokens if known else None


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
