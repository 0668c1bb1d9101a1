"""Evaluators that stand in for lm-eval, and ranks that train with one."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from composing import composed
from tiny_runs import read_metrics
from torch import nn

from mohge.config.load import typed
from mohge.config.schema import BenchmarksCallbackConfig, TrainConfig
from mohge.errors import Interrupted
from mohge.files import write_json_atomically, write_text_atomically
from mohge.parallel.ranks import this_rank
from mohge.training.run_folder import RunFolder

Evaluate = Callable[[nn.Module, Any, RunFolder, int, Path], Mapping[str, Any]]
TASK = {"status": "done", "error": None, "primary": "acc"}
SLEEP = 0.4


def careless(cfg: BenchmarksCallbackConfig, train: TrainConfig) -> Evaluate:
    """Scores a text, and leaves every generator in another state than it was in."""

    @torch.inference_mode()
    def evaluate(model: nn.Module, data: Any, run: RunFolder, step: int, folder: Path) -> Mapping[str, Any]:
        assert not any(module.training for module in model.modules())
        random.seed(step)
        np.random.seed(step)
        torch.manual_seed(step)
        ids = torch.tensor([[data.end_token_id, *data.encode("a text of some words")]])
        output = model(ids[:, :-1], ids[:, 1:], reduction="score")
        loss = float(output.loss.mean())
        metrics = {"loss": {"value": loss}, "acc": {"value": 0.5}, "endless": {"value": float("inf")}}
        failed = {"status": "failed", "error": "it has no items", "label": "Failing"}
        results = {"suite": cfg.suite.name, "step": step, "tasks": {"text": TASK | {"metrics": metrics}}}
        if cfg.suite.name == "half":
            results["tasks"]["failing"] = failed
        if this_rank().is_first:
            write_json_atomically(folder / "results.json", results)
        return results

    return evaluate


def slow(cfg: BenchmarksCallbackConfig, train: TrainConfig) -> Evaluate:
    """The same, and takes its time."""
    evaluate = careless(cfg, train)

    def slowly(*arguments: Any) -> Mapping[str, Any]:
        time.sleep(SLEEP)
        return evaluate(*arguments)

    return slowly


def broken(cfg: BenchmarksCallbackConfig, train: TrainConfig) -> Evaluate:
    """Fails: on the first rank alone for suite=first."""

    def fail(*arguments: Any) -> Mapping[str, Any]:
        random.seed(0)
        if cfg.suite.name == "interrupted":
            raise Interrupted("SIGINT received", 2)
        if cfg.suite.name == "first" and not this_rank().is_first:
            return {"tasks": {}}
        raise OSError("the samples are gone\nand more")

    return fail


def find_made_up_tasks(cache_dir: str) -> Path:
    """Writes a task of forty questions, with two answers each, for lm-eval."""
    folder = Path(cache_dir) / "made_up_tasks"
    folder.mkdir(parents=True, exist_ok=True)
    items = [
        {"question": f"Which one is {n}?", "choices": [f"it is {n}", f"it is {n + 1}"], "answer": 0}
        for n in range(40)
    ]
    write_text_atomically(folder / "items.jsonl", "".join(json.dumps(item) + "\n" for item in items))
    task = {
        "task": "numbers_local",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "items.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}],
        "metadata": {"version": 1.0},
    }
    write_text_atomically(folder / "numbers_local.yaml", json.dumps(task))
    return folder


def train_on_ranks(folder: Path, overrides: list[str]) -> list[dict[str, Any]]:
    """Trains on all ranks; the first returns the records."""
    from mohge.training.run import train

    ranks = (f"trainer.devices={dist.get_world_size()}", "trainer.accelerator=cpu")
    config = typed(TrainConfig, composed(*overrides, *ranks, f"paths.run_dir={folder}"))
    train(config, RunFolder(folder), [], this_rank())
    return read_metrics(folder) if dist.get_rank() == 0 else []
