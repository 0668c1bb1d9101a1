"""Task files for lm-eval: each includes a stock definition and changes where its items are and its label."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from datamodules.benchmarks.catalogue import Benchmark, Task
from mohge.errors import UserError


@dataclass(frozen=True)
class Stock:
    """The stock definitions of the lm-eval that is installed."""

    folder: Path
    version: str

    def path(self, name: str) -> Path:
        """The file of a definition; raises UserError if this version has none."""
        path = self.folder / name
        if not path.is_file():
            raise UserError(
                f"lm-eval {self.version} has no task definition {name}: install the version of lm-eval that "
                "this package asks for."
            )
        return path


def installed_stock() -> Stock:
    """Found without importing lm-eval, which takes seconds; raises UserError if it is not installed."""
    found = importlib.util.find_spec("lm_eval")
    if found is None or found.origin is None:
        raise UserError("benchmarks need lm-eval, which is not installed: pip install lm-eval.")
    return Stock(Path(found.origin).parent / "tasks", importlib.metadata.version("lm_eval"))


def item_file(task: Task, split: str) -> str:
    """Name of the file with a task's items of one split."""
    return f"{task.name.removesuffix('_local')}_{split}.jsonl"


def task_files(benchmark: Benchmark, items: Path, stock: Stock) -> dict[str, str]:
    """The YAML of a benchmark, by file name.

    Args:
        benchmark: of the catalogue.
        items: folder of the item files.
        stock: definitions to include.

    Raises:
        UserError: lm-eval lacks a definition.
    """
    contents = {f"{task.name}.yaml": _task(task, items, stock) for task in benchmark.tasks}
    if benchmark.group is None:
        (alone,) = contents.values()
        alone["task_alias"] = benchmark.label
    if benchmark.group is not None:
        definition = yaml.safe_load(stock.path(benchmark.group).read_text("utf-8"))
        contents[f"_{benchmark.name}.yaml"] = {
            "group": benchmark.name,
            "group_alias": benchmark.label,
            "task": [task.name for task in benchmark.tasks],
            "aggregate_metric_list": definition["aggregate_metric_list"],
            "metadata": definition["metadata"],
        }
    return {name: yaml.safe_dump(content, sort_keys=False) for name, content in contents.items()}


def _task(task: Task, items: Path, stock: Stock) -> dict[str, Any]:
    content: dict[str, Any] = {
        "include": str(stock.path(task.stock)),
        "task": task.name,
        "tag": [],  # else a stock tag would run this task too
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {
            "data_files": {split: str(items / item_file(task, split)) for split in task.readers}
        },
        "training_split": None,
        "validation_split": None,
        # Also where the stock definition scores its validation split: lm-eval leaves an item out of its own
        # few-shot examples only if they come from the split that is called test here.
        "test_split": task.split,
    }
    if task.fewshot_split is not None:
        content["fewshot_split"] = task.fewshot_split
    return content
