"""The figures of one run that the summary, the answers and report.json hold.

Shape suffixes: L layers, E experts, G width groups; expert ids are group-major.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.report.differences import settings_of
from evaluation.run_data import RunData, read_lines
from mohge.budget import train_flops


def run_facts(run: RunData, alarms: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures of a run by name, for JSON; None where nothing was recorded.

    - `settings`: the same for runs that differ in seed alone.
    - `active_parameters`, `train_flops_per_token`: the budget's, and as measured in the last validation.
    - `groups`: width, and share of the last validation's rows (a token at one of its experts).
    - `max_violation`: largest load over mean load, minus 1, in the worst layer of the last validation.
    - `idle_experts`: layer, expert and width of those that no token of the last validation chose.
    - `tokens_per_second`: median over the run.
    - `alarms`: how many there were of each kind.
    """
    expected = run.budget["active_parameters"]["expected"]
    measured = run.last("val/routing/active_parameters") if run.config.experts.num_experts else expected
    train_flops = run.budget.get("flops_per_token", {}).get("train")
    shares = run.rows_share()
    load_LE = last_load(run)
    speeds = run.series("speed/tokens_per_second")[1]
    return {
        "name": run.name,
        "path": str(run.path),
        "model": run.config.model.name,
        "arch": run.config.arch_name,
        "seed": run.config.seed,
        "settings": settings_of(run),
        "state": run.status.get("state"),
        "step": run.metrics[-1]["step"],
        "tokens": run.metrics[-1]["tokens"],
        "parameters": run.budget["parameters"]["total"],
        "active_parameters": {"expected": expected, "measured": measured},
        "train_flops_per_token": {
            "expected": train_flops,
            "measured": _measured_flops(run, train_flops, expected, measured),
        },
        "train_loss": run.last("train/loss"),
        "bits_per_byte": run.last("val/bits_per_byte"),
        "best_bits_per_byte": min(run.series("val/bits_per_byte")[1], default=None),
        "tokens_per_second": statistics.median(speeds) if speeds else None,
        "groups": [
            {"width": width, "share": shares[group] if shares else None}
            for group, width in enumerate(run.config.experts.widths)
        ],
        "max_violation": None if load_LE is None else float(load_LE.max() - 1),
        "idle_experts": None if load_LE is None else idle_experts(run, load_LE),
        "alarms": dict(Counter(alarm["kind"] for alarm in alarms)),
    }


def last_load(run: RunData) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """Load (L, E) of each expert in the last validation, 1 being the mean of its layer; None if unknown."""
    if not run.routing:
        return None
    counts_LE = np.asarray(run.routing[-1]["expert_counts"], dtype=np.float64)
    return counts_LE / counts_LE.mean(axis=1, keepdims=True)


def idle_experts(run: RunData, load_LE: np.ndarray[Any, np.dtype[np.float64]]) -> list[dict[str, int]]:
    """Experts without any load, layer by layer."""
    experts = run.config.experts
    return [
        {"layer": int(layer), "expert": int(expert), "width": experts.widths[expert // experts.per_group]}
        for layer, expert in zip(*np.nonzero(load_LE == 0), strict=True)
    ]


def run_alarms(run: RunData) -> list[dict[str, Any]]:
    """What alarms.jsonl holds: step, tokens, kind and text of each; none where nothing was wrong.

    Raises:
        UserError: it is damaged.
    """
    path = run.path / "alarms.jsonl"
    needs = ("step", "tokens", "kind", "text")
    return read_lines(path, needs=needs, growing=run.growing) if path.exists() else []


def group_labels(widths: Sequence[int]) -> list[str]:
    """A label for each group: its width, with the group's number where two have the same."""
    times = Counter(widths)
    return [
        str(width) if times[width] == 1 else f"{width} (group {group})" for group, width in enumerate(widths)
    ]


def over_seeds(facts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and sample standard deviation over runs that differ in seed alone, trained for as many tokens.

    Only sets of two runs or more, with seeds that all differ, appear.
    """
    sets: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for fact in facts:
        if fact["bits_per_byte"] is not None:
            sets.setdefault((fact["settings"], fact["tokens"]), []).append(fact)
    rows = []
    for members in sets.values():
        if len(members) < 2 or len({fact["seed"] for fact in members}) < len(members):
            continue
        row: dict[str, Any] = {name: members[0][name] for name in ("model", "arch", "tokens")}
        row["runs"] = len(members)
        for name in ("bits_per_byte", "tokens_per_second"):
            values = [fact[name] for fact in members if fact[name] is not None]
            known = len(values) == len(members)
            row[name] = {
                "mean": statistics.mean(values) if known else None,
                "deviation": statistics.stdev(values) if known else None,
            }
        rows.append(row)
    return rows


def _measured_flops(run: RunData, train: int | None, expected: float, measured: float | None) -> float | None:
    """The budget's training FLOPs, corrected by the routed parameters that tokens really visited."""
    if train is None or measured is None:
        return None
    return train + train_flops(run.config, measured - expected)
