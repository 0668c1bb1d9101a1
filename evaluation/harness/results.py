"""What lm-eval found of a task, as plain facts: scores with standard errors, items, and what answering took.

Shapes: G width groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lm_eval.api.task import Task

from evaluation.harness.scoring import Usage
from evaluation.statistics.scores import parts_of_mean, standard_error
from mohge.budget import budget
from mohge.config.schema import TrainConfig

_PRIMARY = ("acc", "exact_match", "bits_per_byte")
"""Metrics that stand for a task, by preference."""
_FIRST_FILTER = "none"


@dataclass
class Item:
    """One item of a task."""

    name: str
    """Unique in its task, or group."""
    hash: str
    """Of its content."""
    metrics: dict[str, float | list[float]] = field(default_factory=dict)
    """A number, or a numerator and a denominator."""
    choices: int = 0
    """Continuations that were compared; 0 if it is not multiple choice."""
    requests: int = 0
    """That were made of it."""
    cluster: str | None = None
    """Items of one cluster are alike, as pieces of one text are; None of an item by itself."""

    def plain(self) -> dict[str, Any]:
        """As it is written."""
        facts = {"item": self.name, "hash": self.hash, "metrics": self.metrics}
        return facts if self.cluster is None else {**facts, "cluster": self.cluster}


@dataclass(frozen=True)
class Found:
    """What a task or group gave."""

    name: str
    entry: dict[str, Any]
    """As in results.json."""
    items: list[Item]


def task_entry(
    config: TrainConfig,
    label: str,
    items: Sequence[Item],
    metrics: dict[str, Any],
    subtasks: dict[str, Any],
    fewshot: int,
    version: Any,
    usage: Usage,
    cut: int,
) -> dict[str, Any]:
    """The facts of a task that was answered.

    Args:
        config: of the model.
        label: for people.
        items: of the task.
        metrics: by name.
        subtasks: of a group.
        fewshot: solved examples before each item.
        version: of the task's definition.
        usage: what all answers took.
        cut: requests whose context was cut to fit.
    """
    primary = primary_of(metrics)
    return {
        "status": "done",
        "error": None,
        "label": label,
        "items": len(items),
        "fewshot": fewshot,
        "version": version,
        "chance": chance_of(items, primary),
        "primary": primary,
        "metrics": metrics,
        "subtasks": subtasks,
        "cost": cost_of(config, usage, len(items), sum(item.requests for item in items), cut),
    }


def collect_items(samples: Sequence[Mapping[str, Any]], task: Task, prefix: str = "") -> list[Item]:
    """The items of one task, in order, with all their metrics.

    Args:
        samples: as lm-eval logs them, one for each item and filter of answers.
        task: they are of.
        prefix: of the items' names.
    """
    filters = {sample["filter"] for sample in samples}
    aggregation = task.aggregation()
    items: dict[int, Item] = {}
    for sample in samples:
        item = items.get(sample["doc_id"])
        if item is None:
            choices = len(sample["arguments"]) if task.OUTPUT_TYPE == "multiple_choice" else 0
            name = f"{prefix}{sample['doc_id']}"
            item = Item(name, sample["doc_hash"], choices=choices, requests=len(sample["arguments"]))
            items[sample["doc_id"]] = item
        for metric in sample["metrics"]:
            kind = kind_of(aggregation.get(metric))
            value = sample[metric]
            if kind == "mean" and isinstance(value, int | float | np.number):
                item.metrics[_name(metric, sample["filter"], filters)] = float(value)
            elif kind == "ratio":
                log_likelihood, size = value
                item.metrics[_name(metric, sample["filter"], filters)] = [
                    -float(log_likelihood) / math.log(2),
                    float(size),
                ]
    return [items[number] for number in sorted(items)]


def kind_of(aggregation: Any) -> str:
    """How a task makes one number of its items': mean, ratio (bits per byte), or other."""
    name = getattr(aggregation, "__name__", "")
    return {"mean": "mean", "bits_per_byte": "ratio"}.get(name, "other")


def metrics_of(
    found: Mapping[str, Any],
    items: Sequence[Item],
    samples: Sequence[Mapping[str, Any]],
    aggregation: Mapping[str, Any],
    higher_is_better: Mapping[str, bool | None],
) -> dict[str, dict[str, Any]]:
    """Value, standard error and direction of each metric.

    Args:
        found: lm-eval's aggregated metrics by "metric,filter".
        items: of the task, or of all tasks of a group.
        samples: of the same.
        aggregation: functions of lm-eval by metric.
        higher_is_better: by metric.
    """
    keys = [key for key, value in found.items() if "," in key and isinstance(value, int | float)]
    keys = [key for key in keys if not key.partition(",")[0].endswith("_stderr")]
    filters = {key.partition(",")[2] for key in keys}
    metrics = {}
    for key in keys:
        metric, _, chosen = key.partition(",")
        name, kind = _name(metric, chosen, filters), kind_of(aggregation.get(metric))
        values = np.array([item.metrics[name] for item in items if name in item.metrics], dtype=np.float64)
        error: float | None = None
        if kind == "other" and getattr(aggregation.get(metric), "__name__", "") == "perplexity":
            logs = np.array([sample[metric] for sample in samples if sample["filter"] == chosen])
            of_mean = standard_error(parts_of_mean(logs))
            error = None if of_mean is None else float(found[key]) * of_mean  # delta method: it is exp(-mean)
        elif kind != "other":
            error = standard_error(values if kind == "ratio" else parts_of_mean(values))
        metrics[name] = {
            "value": float(found[key]),
            "stderr": error,
            "aggregation": kind,
            "higher_is_better": higher_is_better.get(metric) is not False,  # None: it is not said
        }
    return metrics


def primary_of(metrics: Mapping[str, Any]) -> str:
    """The metric that stands for a task."""
    for wanted in _PRIMARY:
        for name in metrics:
            if name == wanted or name.startswith(f"{wanted}/"):
                return name
    if not metrics:
        raise ValueError("it has no metric that is a number")
    return next(iter(metrics))


def chance_of(items: Sequence[Item], primary: str) -> float | None:
    """What guessing gets: the mean of one divided by the number of choices."""
    if primary != "acc" or not items or any(item.choices < 2 for item in items):
        return None
    return float(np.mean([1 / item.choices for item in items]))


def cost_of(config: TrainConfig, usage: Usage, items: int, requests: int, cut: int) -> dict[str, Any]:
    """What answering took, and what a token of it cost.

    Args:
        config: of the model.
        usage: of all answers.
        items: of the task.
        requests: to the model.
        cut: requests whose context was cut to fit.
    """
    plan, choices_G = budget(config), np.array(usage.choices_G, dtype=np.float64)
    active, flops = float(plan.active_parameters.expected), float(plan.flops_per_token.forward)
    shares_G = choices_G / choices_G.sum() if choices_G.sum() else np.zeros(0)
    if len(shares_G):
        per_choice = 3 * config.model.d_model * float(shares_G @ np.array(config.experts.widths))
        routed = config.model.layers * config.router.expert_top_k * per_choice
        measured = plan.parameters.total - plan.parameters.routed_experts + routed
        flops += 2 * (measured - active)
        active = measured
    return {
        "tokens": usage.tokens,
        "requests": requests,
        "cut_contexts": cut,
        "seconds": usage.seconds,
        "tokens_per_second": usage.tokens / usage.seconds if usage.seconds else None,
        "seconds_per_item": usage.seconds / items if items else None,
        "group_shares": shares_G.tolist(),
        "active_parameters": active,
        "flops_per_token": flops,
    }


def _name(metric: str, chosen: str, filters: set[str]) -> str:
    """A metric's name, with the filter of answers where there are several."""
    return metric if len(filters) == 1 or chosen == _FIRST_FILTER else f"{metric}/{chosen}"
