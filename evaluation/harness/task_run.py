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
from evaluation.harness.scoring import NOTHING
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
    label = tasks.label(name)
    lm.on_progress(lambda done, total: progress(label, done, total))
    found = evaluate(lm, loaded, limit=suite.limit, bootstrap_iters=0, log_samples=True)
    usage, cut = lm.take_usage()
    config = lm.language_model.config
    if name in loaded["groups"] and loaded["groups"][name].has_aggregation:
        items, metrics, subtasks = _pooled(name, loaded, found)
        fewshot = max(found["n-shot"].get(task, 0) for task in loaded["tasks"])
        version = found["versions"].get(name)
        entry = task_entry(config, label, items, metrics, subtasks, fewshot, version, usage, cut)
        return [Found(name, entry, items)]
    entries = []
    for task_name, task in loaded["tasks"].items():
        samples = found["samples"][task_name]
        items = collect_items(samples, task)
        metrics = metrics_of(
            found["results"][task_name], items, samples, task.aggregation(), task.higher_is_better()
        )
        # A tag's tasks are answered together, so that what one of them took is not known.
        own, own_cut = (usage, cut) if len(loaded["tasks"]) == 1 else (NOTHING, 0)
        fewshot, version = found["n-shot"].get(task_name, 0), found["versions"].get(task_name)
        entry = task_entry(config, tasks.label(task_name), items, metrics, {}, fewshot, version, own, own_cut)
        entries.append(Found(task_name, entry, items))
    return entries


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
        if (
            metric.partition("/")[0] in alike
        ):  # tasks count alike, however many items they have: no mean of items
            errors = [part["metrics"][metric]["stderr"] for part in subtasks.values()]
            score["stderr"] = None if None in errors else mean_of_scores_error(errors)
            score["aggregation"] = "other"
    return items, pooled, subtasks
