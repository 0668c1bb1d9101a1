"""Evaluation of checkpoints by one process, or by one of the ranks that share the work."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from evaluation.harness.ranks import Ranks, connected_ranks
from evaluation.harness.suite import run_suite
from evaluation.language_model import LanguageModel, load_language_model
from mohge.config.eval_schema import EvalConfig
from mohge.errors import UserError, disk_refusal
from mohge.moe.layer import MoELayer
from mohge.parallel.mesh import build_mesh
from mohge.parallel.ranks import this_rank
from mohge.parallel.sharding import spread_experts
from mohge.parallel.sizes import MeshSizes
from mohge.parallel.world import connect, disconnect


@dataclass(frozen=True)
class Job:
    """What each rank is told."""

    config: EvalConfig
    checkpoints: tuple[str, ...]
    """Each names one model."""
    folders: tuple[Path, ...]
    """For the results of each."""
    benchmarks: Path | None
    """Folder of local tasks."""


def evaluate_rank(job: Job) -> None:
    """Evaluate as a rank that our own launcher has started."""
    rank = this_rank()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if not rank.is_first:
        logging.getLogger().setLevel(logging.ERROR)
    try:
        evaluate_all(job)
    except OSError as error:
        raise disk_refusal(error) or error from error


def evaluate_all(job: Job) -> None:
    """Evaluate each checkpoint, and write its results. Collective over the ranks that were started.

    Raises:
        UserError: a model that cannot be loaded, or a setting that does not fit it.
    """
    config, rank = job.config, this_rank()
    device = _device(config)
    if rank.world > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // rank.local_world))
        connect(rank, device.type)
    ranks = connected_ranks(lockstep=config.expert_parallel > 1)
    with _bars(enabled=rank.is_first and config.format == "table") as bars:
        for named, folder in zip(job.checkpoints, job.folders, strict=True):
            model = _load(named, config, device, ranks)
            bars.model(model.name)
            run_suite(
                model,
                config.eval,
                folder,
                batch_size=config.batch_size,
                benchmarks=job.benchmarks,
                ranks=ranks,
                progress=bars,
            )
            del model  # before the next one is loaded
    if rank.world > 1:
        disconnect()


def _device(config: EvalConfig) -> torch.device:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda, and this machine has no usable GPU: use cpu or auto")
    if config.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", this_rank().local_index)


def _load(named: str, config: EvalConfig, device: torch.device, ranks: Ranks) -> LanguageModel:
    """The model, or this rank's part of it, on the device; whole it is in the CPU's memory alone."""
    model = load_language_model(named)
    if len(set(ranks.gather(model.digest))) > 1:
        raise UserError(f"checkpoint={named} is not the same on all machines: copy it to all")
    if config.expert_parallel > 1:
        spread(model, config.expert_parallel, ranks.world, device.type)
    model.model.to(device)
    return model


def spread(model: LanguageModel, ranks: int, world: int, device_type: str) -> None:
    """Leave this rank its part of the experts of each layer."""
    assert model.digest, "of all experts: it is computed while they are here"
    per_group = model.config.experts.per_group
    if model.config.router.kind == "none" or per_group % ranks:
        raise UserError(
            f"expert_parallel={ranks} does not divide the {per_group} experts of each group of "
            f"{model.source}: choose a divisor, or evaluate it alone with expert_parallel=1"
        )
    mesh = build_mesh(MeshSizes(dp_replicate=world // ranks, expert_parallel=ranks), device_type)
    for block in model.model.blocks:
        layer = block.get_submodule("ffn")
        assert isinstance(layer, MoELayer)
        spread_experts(layer, mesh)


class _Bars:
    """A line per task of the model that is being evaluated.

    Args:
        progress: that draws, or None.
    """

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._name = ""
        self._lines: dict[str, TaskID] = {}

    def model(self, name: str) -> None:
        """The next model begins."""
        self._name, self._lines = name, {}

    def __call__(self, task: str, done: int, total: int) -> None:
        """So many of a task's requests have been answered."""
        if self._progress is None:
            return
        if task not in self._lines:
            self._lines[task] = self._progress.add_task(f"{self._name} {task}", total=total)
        self._progress.update(self._lines[task], completed=done, total=total)


@contextmanager
def _bars(enabled: bool) -> Iterator[_Bars]:
    if not enabled:
        yield _Bars(None)
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _Bars(progress)
