"""Reading a finished evaluation: its results.json and each item's figures, with what is wrong told.

Shapes: N items; parts_N2 holds each item's numerator and denominator (1 for a mean).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from evaluation.statistics.scores import by_cluster, parts_of_mean, score
from mohge.errors import UserError
from mohge.training.run_folder import RESULTS

FORMAT = "mohge-eval-1"
_LOOSE = ConfigDict(extra="ignore", frozen=True)
_NEAR = 1e-6
"""By how much, relatively, a score may differ from that of its items."""


@checked(config=_LOOSE)
class Metric:
    """One figure of a task."""

    value: float
    aggregation: Literal["mean", "ratio", "other"]
    higher_is_better: bool
    stderr: float | None = None


@checked(config=_LOOSE)
class Cost:
    """What a task cost; None or empty where it was not measured."""

    tokens: int | None = None
    requests: int | None = None
    cut_contexts: int = 0
    seconds: float | None = None
    tokens_per_second: float | None = None
    seconds_per_item: float | None = None
    active_parameters: float | None = None
    flops_per_token: float | None = None
    group_shares: tuple[float, ...] = ()


@checked(config=_LOOSE)
class Task:
    """A task as results.json has it; of a failed one, the status, the error and the label alone."""

    status: Literal["done", "failed"]
    label: str
    error: str | None = None
    items: int = 0
    fewshot: int | None = None
    version: float | str | None = None
    chance: float | None = None
    primary: str = ""
    metrics: dict[str, Metric] | None = None
    subtasks: dict[str, Any] | None = None
    cost: Cost | None = None
    samples: str | None = None


@checked(config=_LOOSE)
class Parameters:
    """Numbers of parameters: all, and those a token is expected to pass through."""

    total: int
    active: float


@checked(config=_LOOSE)
class Settings:
    """What decides which items were asked, and how, and how fast answers were."""

    limit: float | None = None
    context: int | None = None
    device: str | None = None
    batch_size: int | None = None
    ranks: int | None = None


@checked(config=_LOOSE)
class Results:
    """The content of results.json."""

    format: Literal["mohge-eval-1"]
    suite: str
    checkpoint: str
    name: str
    arch: str
    model: str | None
    seed: int | None
    corpus: str | None
    step: int | None
    training_tokens: int | None
    parameters: Parameters
    flops_per_token: float
    widths: tuple[int, ...]
    tasks: dict[str, Task]
    settings: Settings
    run: str | None = None
    corpus_fingerprint: str | None = None
    """Of the text and its tokens, if known: two corpora may be of one kind."""
    design: str | None = None
    """Checksum of the training's configuration without seed, folders and hardware, if known."""


@dataclass(frozen=True)
class Items:
    """Figures of each item of a task, in the order of their keys."""

    keys: tuple[tuple[str, str], ...]
    """Name in the task, and hash of the content; sorted."""
    parts: dict[str, np.ndarray]
    """For each metric that is a mean or a ratio of the items: parts_N2."""
    clusters: tuple[str, ...]
    """Which items are alike, as pieces of one text; an item by itself has its own name."""


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation of one checkpoint."""

    folder: Path
    results: Results
    items: dict[str, Items]
    """By task, of those that are done."""

    def done(self, task: str) -> Task | None:
        """A task that was finished, or None."""
        found = self.results.tasks.get(task)
        return found if found is not None and found.status == "done" else None

    def parts(self, task: str, metric: str) -> np.ndarray | None:
        """parts_N2 of a metric, of items or clusters of them; None where there are no figures for items."""
        items = self.items.get(task)
        if items is None or metric not in items.parts:
            return None
        return by_cluster(items.parts[metric], items.clusters)


def read_evaluation(folder: Path) -> Evaluation:
    """Read the folder of an evaluation of mohge-eval.

    Raises:
        UserError: results.json or the figures of a finished task are missing, damaged or of another format.
    """
    path = folder / RESULTS
    if not path.is_file():
        raise UserError(f"{folder} holds no evaluation ({RESULTS} is missing): give a folder of mohge-eval")
    text = _text(path)
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise _damaged(path, "it is not JSON") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else None
        raise UserError(f"{path} has format {found}, not {FORMAT}: give a folder of mohge-eval")
    try:
        results = TypeAdapter(Results).validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise _damaged(path, f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}") from error
    items = {
        name: _items(folder, name, task) for name, task in results.tasks.items() if task.status == "done"
    }
    return Evaluation(folder, results, items)


def _items(folder: Path, name: str, task: Task) -> Items:
    path = folder / (task.samples or f"samples/{name}.jsonl")
    if not task.metrics or task.primary not in task.metrics:
        raise _damaged(folder / RESULTS, f"task {name} lacks its primary metric {task.primary}")
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    clusters: dict[tuple[str, str], str] = {}
    # Not splitlines: a line separator (U+2028) within a text ends no line of JSON.
    for number, line in enumerate(_text(path).removesuffix("\n").split("\n"), start=1):
        try:
            row = json.loads(line)
            key, found = (str(row["item"]), str(row["hash"])), dict(row["metrics"])
        except (ValueError, TypeError, KeyError) as error:
            raise _damaged(path, f"line {number} is no item with a hash and metrics") from error
        if key in rows:
            raise _damaged(path, f"line {number} repeats item {key[0]}")
        rows[key], clusters[key] = found, f"cluster {row['cluster']}" if "cluster" in row else str(key)
    if len(rows) != task.items:
        raise _damaged(path, f"it has {len(rows)} items, and results.json says {task.items}")
    keys = tuple(sorted(rows))
    parts: dict[str, np.ndarray] = {}
    for metric, facts in task.metrics.items():
        if facts.aggregation == "other" or not any(metric in found for found in rows.values()):
            continue
        try:
            found_N = np.array([rows[key][metric] for key in keys], np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, f"an item has no {metric}") from error
        if found_N.shape != ((len(keys), 2) if facts.aggregation == "ratio" else (len(keys),)):
            raise _damaged(path, f"{metric} of an item does not fit a {facts.aggregation}")
        parts_N2 = found_N if facts.aggregation == "ratio" else parts_of_mean(found_N)
        if np.isfinite(parts_N2).all() and math.isfinite(facts.value):
            if not math.isclose(score(parts_N2), facts.value, rel_tol=_NEAR, abs_tol=_NEAR):
                raise _damaged(path, f"its {metric} is {score(parts_N2):.6g}, not the {facts.value:.6g} told")
            parts[metric] = parts_N2
    return Items(keys, parts, tuple(clusters[key] for key in keys))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: evaluate the checkpoint again") from error
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is damaged ({reason}): evaluate the checkpoint again")
