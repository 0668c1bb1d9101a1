"""One task, or group of tasks, of lm-eval on our model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import lm_eval.api.task
from lm_eval.evaluator import evaluate
from tqdm import tqdm

from evaluation.harness.bridge import MohgeLM
from evaluation.harness.results import Found, Item, collect_items, metrics_of, task_entry
from evaluation.harness.scoring import Usage
from evaluation.harness.tasks import Tasks
from evaluation.statistics.scores import mean_of_scores_error
from mohge.config.schema import SuiteConfig

# It draws a bar of its own while it renders prompts, and cannot be told not to.
lm_eval.api.task.tqdm = partial(tqdm, disable=True)


def run_task(
    lm: MohgeLM,
    tasks: Tasks,
    name: str,
    suite: SuiteConfig,
    progress: Callable[[str, int, int], None],
) -> list[Found]:
    """Facts and items of a task or group; of a tag, or a group without a score, those of each of its tasks.

    Args:
        lm: answers.
        tasks: that are known.
        name: of one of them.
        suite: how much of it, and after how many examples.
        progress: called with the label, requests answered and all requests.
    """
    loaded = tasks.load(name)
    if name in loaded["groups"] and loaded["groups"][name].has_aggregation:
        found, usage, cut = _answered(lm, loaded, tasks.label(name), suite, progress)
        items, metrics, subtasks = _pooled(name, loaded, found)
        fewshot = max(found["n-shot"].get(task, 0) for task in loaded["tasks"])
        version, config = found["versions"].get(name), lm.language_model.config
        entry = task_entry(config, tasks.label(name), items, metrics, subtasks, fewshot, version, usage, cut)
        return [Found(name, entry, items)]
    return [
        _alone(lm, task_name, task, tasks.label(task_name), suite, progress)
        for task_name, task in loaded["tasks"].items()
    ]


def _alone(
    lm: MohgeLM,
    name: str,
    task: Any,
    label: str,
    suite: SuiteConfig,
    progress: Callable[[str, int, int], None],
) -> Found:
    """A task by itself, so that what it took is known."""
    found, usage, cut = _answered(lm, {"tasks": {name: task}, "groups": {}}, label, suite, progress)
    samples = found["samples"][name]
    items = collect_items(samples, task)
    metrics = metrics_of(found["results"][name], items, samples, task.aggregation(), task.higher_is_better())
    fewshot, version = found["n-shot"].get(name, 0), found["versions"].get(name)
    config = lm.language_model.config
    entry = task_entry(config, label, items, metrics, {}, fewshot, version, usage, cut)
    return Found(name, entry, items)


def _answered(
    lm: MohgeLM,
    loaded: Any,
    label: str,
    suite: SuiteConfig,
    progress: Callable[[str, int, int], None],
) -> tuple[Any, Usage, int]:
    """What lm-eval finds, what the answers took, and how many contexts were cut."""
    lm.on_progress(lambda done, total: progress(label, done, total))
    found = evaluate(lm, loaded, limit=suite.limit, bootstrap_iters=0, log_samples=True)
    return found, *lm.take_usage()


def _pooled(
    name: str, loaded: Mapping[str, Any], found: Any
) -> tuple[list[Item], dict[str, Any], dict[str, Any]]:
    """Items of all tasks of a group, its metrics, and those of each task."""
    items: list[Item] = []
    samples: list[Mapping[str, Any]] = []
    subtasks: dict[str, Any] = {}
    aggregation: dict[str, Any] = {}
    higher: dict[str, bool | None] = {}
    for task_name, task in loaded["tasks"].items():
        logged: Sequence[Mapping[str, Any]] = found["samples"][task_name]
        own = collect_items(logged, task, prefix=f"{task_name}/")
        aggregation.update(task.aggregation())
        higher.update(task.higher_is_better())
        metrics = metrics_of(found["results"][task_name], own, logged, aggregation, higher)
        subtasks[task_name] = {"items": len(own), "metrics": metrics}
        items += own
        samples += logged
    pooled = metrics_of(found["groups"][name], items, samples, aggregation, higher)
    alike = {one.metric for one in loaded["groups"][name].aggregate_metric_list if not one.weight_by_size}
    for metric, score in pooled.items():
        # Tasks that count alike however many items they have are no mean of items, and a mean of ratios is no
        # ratio of sums.
        by_task = metric.partition("/")[0] in alike
        if by_task or score["aggregation"] == "ratio":
            weights = [1 if by_task else part["items"] for part in subtasks.values()]
            errors = [part["metrics"][metric]["stderr"] for part in subtasks.values()]
            score["stderr"] = None if None in errors else mean_of_scores_error(errors, weights)
            score["aggregation"] = "other"
    return items, pooled, subtasks
