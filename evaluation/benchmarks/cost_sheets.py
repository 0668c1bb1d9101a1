"""Tables of what evaluations cost and where the tokens of each task went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluation.benchmarks.arms import short
from evaluation.benchmarks.figures import NONE, digits
from evaluation.benchmarks.sheet import Sheet


def costs(comparison: Mapping[str, Any]) -> Sheet:
    """A row for each arm."""
    rows = []
    for name, arm in comparison["arms"].items():
        cost = arm["cost"]
        planned = [cost[key]["expected"] for key in ("active_parameters", "flops_per_token")]
        measured = [cost[key]["measured"] for key in ("active_parameters", "flops_per_token")]
        figures = [
            arm["training_tokens"],
            cost["parameters"],
            planned[0],
            measured[0],
            planned[1],
            measured[1],
        ]
        seconds = cost["seconds"]
        rows.append([name, *map(_short, figures), NONE if seconds is None else f"{seconds:,.0f}"])
    header = ["arm", "training tokens", "parameters", "active, expected", "active, measured"]
    header += ["FLOPs, expected", "FLOPs, measured", "seconds in all"]
    note = (
        "Active parameters and forward FLOPs of a token: expected if tokens use all experts alike, and "
        "measured with the experts that the tasks' tokens visited. Means over seeds."
    )
    return Sheet("cost", "Cost", note, header, rows)


def task_costs(comparison: Mapping[str, Any]) -> Sheet:
    """A row for each task and arm."""
    rows = []
    for task, facts in comparison["tasks"].items():
        for name, arm in comparison["arms"].items():
            cost = arm["cost"]["tasks"].get(task)
            if cost is None:
                continue
            seconds, width = cost["seconds_per_item"], cost["mean_width"]
            rows.append(
                [
                    *(facts["label"], name, digits(None if seconds is None else 1000 * seconds)),
                    digits(cost["tokens_per_second"]),
                    *(_short(cost["active_parameters"]), _short(cost["flops_per_token"])),
                    NONE if width is None else f"{width:.1f}",
                ]
            )
    header = ["task", "arm", "ms per item", "tokens per second", "active, measured", "FLOPs per token"]
    header.append("mean width")
    note = "Time of the model alone; it depends on the machine. Mean width is that of the experts chosen."
    return Sheet("task_cost", "Cost by task", note, header, rows, frozenset({1}))


def widths(comparison: Mapping[str, Any], name: str) -> Sheet:
    """Of an arm with experts of several widths, the share of each width in each task."""
    arm = comparison["arms"][name]
    used = arm["cost"]["widths"]
    rows = []
    for task, cost in arm["cost"]["tasks"].items():
        if cost["group_shares"] and len(set(used)) > 1:
            shares = [f"{100 * share:.1f}%" for share in cost["group_shares"]]
            rows.append([comparison["tasks"][task]["label"], *shares, f"{cost['mean_width']:.1f}"])
    header = ["task", *(f"width {width}" for width in used), "mean width"]
    note = "Of all choices of experts by the task's tokens, the share that fell on each width."
    return Sheet(f"widths_{name}", f"Widths that {name} used", note, header, rows, in_terminal=len(used) <= 8)


def _short(value: float | None) -> str:
    return NONE if value is None else short(value)
