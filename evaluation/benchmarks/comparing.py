"""Compares finished evaluations: reads them, makes arms, and computes every figure of the comparison."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.benchmarks.answers import answers, families
from evaluation.benchmarks.arms import Arm, arms_of, baselines_of
from evaluation.benchmarks.costs import arm_cost
from evaluation.benchmarks.pairing import (
    Quantity,
    contrast,
    error_of,
    obstacle,
    partners,
    summary,
    value_of,
)
from evaluation.benchmarks.reading import Evaluation, Task, read_evaluation
from evaluation.benchmarks.remarks import remarks
from evaluation.benchmarks.widths import width_answer
from evaluation.statistics.pairs import RESAMPLES, SEED
from evaluation.statistics.scores import LEVEL, score_interval
from evaluation.statistics.seeds import holm
from mohge.errors import UserError
from mohge.files import json_plain

FORMAT = "mohge-comparison-1"


@dataclass(frozen=True)
class _Suite:
    """The tasks of all evaluations, and which of them make the macro average."""

    tasks: dict[str, Task]
    """As the first evaluation that finished it has it, in order of appearance."""
    averaged: list[str]


def compare(folders: Sequence[Path], baseline: str | None = None) -> dict[str, Any]:
    """Compare evaluations, with errors over items and over seeds.

    Args:
        folders: of evaluations of mohge-eval, one for each checkpoint.
        baseline: an arm's name, an architecture, a run's name, or the path of a run, a checkpoint or an
            evaluation; None for architecture moe, or the first arm if there is none.

    Returns:
        What comparison.json holds; docs/BENCHMARK_STATISTICS.md describes it.

    Raises:
        UserError: no folder, one that holds no intact evaluation, two evaluations of one checkpoint,
            or a baseline that is not among them.
    """
    if not folders:
        raise UserError("there is no evaluation to compare: give folders of mohge-eval")
    evaluations = [read_evaluation(Path(folder)) for folder in folders]
    arms = arms_of(evaluations)
    bases = baselines_of(arms, baseline)
    by_name = {arm.name: arm for arm in arms}
    suite = _suite(evaluations)
    facts: dict[str, Any] = {}
    for arm in arms:
        base = by_name.get(bases[arm.name] or "")
        facts[arm.name] = _arm_facts(arm, base, suite)
    result: dict[str, Any] = {
        "format": FORMAT,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "suites": list(dict.fromkeys(one.results.suite for one in evaluations)),
        "baselines": [name for name, base in bases.items() if base is None],
        "confidence": LEVEL,
        "bootstrap": {"resamples": RESAMPLES, "seed": SEED},
        "tasks": {name: _task_facts(name, task, evaluations) for name, task in suite.tasks.items()},
        "macro_tasks": suite.averaged,
        "checkpoints": [_checkpoint(one, arm, suite) for arm in arms for one in arm.evaluations],
        "arms": facts,
    }
    result["families"] = families(result)
    result["answers"] = answers(result)
    result["remarks"] = remarks(result, arms, bases)
    return result


def _suite(evaluations: Sequence[Evaluation]) -> _Suite:
    tasks: dict[str, Task] = {}
    for one in evaluations:
        for name in one.results.tasks:
            done = one.done(name)
            if done is not None:
                tasks.setdefault(name, done)
    first = evaluations[0]
    averaged = [
        name
        for name in tasks
        if _is_accuracy(name, evaluations) and all(obstacle(first, one, name) is None for one in evaluations)
    ]
    return _Suite(tasks, averaged if len(averaged) > 1 else [])


def _is_accuracy(name: str, evaluations: Sequence[Evaluation]) -> bool:
    """Whether the primary metric is a mean of figures between 0 and 1 of which more is better."""
    for one in evaluations:
        task = one.done(name)
        if task is None:
            continue
        metric, parts_N2 = (task.metrics or {})[task.primary], one.parts(name, task.primary)
        if metric.aggregation != "mean" or not metric.higher_is_better or parts_N2 is None:
            return False
        if not ((parts_N2[:, 0] >= 0) & (parts_N2[:, 0] <= 1)).all():
            return False
    return True


def _task_facts(name: str, task: Task, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    metrics = task.metrics or {}
    return {
        "label": task.label,
        "items": task.items,
        "fewshot": task.fewshot,
        "chance": task.chance,
        "primary": task.primary,
        "higher_is_better": metrics[task.primary].higher_is_better,
        "in_percent": _is_accuracy(name, evaluations),
        "metrics": {
            metric: {"aggregation": found.aggregation, "higher_is_better": found.higher_is_better}
            for metric, found in metrics.items()
        },
    }


def _checkpoint(one: Evaluation, arm: Arm, suite: _Suite) -> dict[str, Any]:
    results = one.results
    return {
        "name": results.name,
        "arm": arm.name,
        "seed": results.seed,
        "folder": str(one.folder),
        "checkpoint": results.checkpoint,
        "run": results.run,
        "step": results.step,
        "training_tokens": results.training_tokens,
        "macro": _score(one, _macro(suite)) if suite.averaged else None,
        "tasks": {name: _checkpoint_task(one, name, task) for name, task in results.tasks.items()},
    }


def _checkpoint_task(one: Evaluation, name: str, task: Task) -> dict[str, Any]:
    if task.status == "failed":
        return {"status": "failed", "error": task.error}
    metrics: dict[str, Any] = {}
    for metric in task.metrics or {}:
        parts_N2 = one.parts(name, metric)
        low, high = (parts_N2 is not None and score_interval(parts_N2)) or (None, None)
        metrics[metric] = {**_score(one, [(name, metric)]), "low": low, "high": high}
    primary = metrics[task.primary]
    return {
        "status": "done",
        "items": task.items,
        "primary": task.primary,
        "metrics": metrics,
        "against_chance": _against_chance(task.chance, primary["low"], primary["high"]),
        "subtasks": json_plain(task.subtasks or {}),
    }


def _score(one: Evaluation, quantity: Quantity) -> dict[str, float | None]:
    value = value_of(one, quantity)
    return {"value": value, "stderr": None if value is None else error_of(one, quantity)}


def _against_chance(chance: float | None, low: float | None, high: float | None) -> str | None:
    if chance is None or low is None or high is None:
        return None
    return "above" if low > chance else "below" if high < chance else "not distinguishable from guessing"


def _macro(suite: _Suite) -> list[tuple[str, str]]:
    return [(name, suite.tasks[name].primary) for name in suite.averaged]


def _arm_facts(arm: Arm, base: Arm | None, suite: _Suite) -> dict[str, Any]:
    results = arm.results
    tasks = {name: _arm_task(arm, base, name, task) for name, task in suite.tasks.items()}
    adjusted = holm({name: (facts["difference"] or {}).get("p") for name, facts in tasks.items()})
    for name, facts in tasks.items():
        if facts["difference"] is not None:
            facts["difference"]["p_holm"] = adjusted[name]
    macro = None
    if suite.averaged:
        pairs = partners(arm, base) if base is not None else []
        macro = {
            **summary(arm, _macro(suite)),
            "difference": contrast(pairs, _macro(suite)),
        }
    labels = {name: task.label for name, task in suite.tasks.items()}
    return {
        "arch": results.arch,
        "model": results.model,
        "corpus": results.corpus,
        "training_tokens": results.training_tokens,
        "seeds": arm.seeds,
        "baseline": base.name if base is not None else None,
        "macro": macro,
        "tasks": tasks,
        "cost": arm_cost(arm, suite.tasks),
        "widths_used": width_answer(arm, labels),
    }


def _arm_task(arm: Arm, base: Arm | None, name: str, task: Task) -> dict[str, Any]:
    """Figures of the primary metric, and of the others under their names; differences where they can be."""
    evaluations = arm.evaluations
    problem = next((why for one in evaluations[1:] if (why := obstacle(evaluations[0], one, name))), None)
    alike, pairs = arm if problem is None else None, []
    if problem is None and base is not None:
        pairs = partners(arm, base)
        problem = next((why for pair in pairs if (why := obstacle(*pair, name))), None)
        pairs = [] if problem else pairs
    figures = {
        metric: {
            **summary(alike, [(name, metric)]),
            "difference": contrast(pairs, [(name, metric)]),
        }
        for metric in task.metrics or {}
    }
    return {
        **figures.pop(task.primary),
        "above_chance": _above_chance(arm, name),
        "not_compared": problem,
        "other_metrics": figures,
    }


def _above_chance(arm: Arm, name: str) -> int | None:
    """Checkpoints whose interval over items is above guessing; None where guessing is not known."""
    verdicts = []
    for one in arm.evaluations:
        task = one.done(name)
        parts_N2 = one.parts(name, task.primary) if task is not None else None
        if task is None or parts_N2 is None:
            return None
        low, high = score_interval(parts_N2) or (None, None)
        verdicts.append(_against_chance(task.chance, low, high))
    return None if None in verdicts else verdicts.count("above")
