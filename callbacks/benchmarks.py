"""A small suite of benchmarks on the model in training, which leaves no trace in the training itself."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as pl
import torch
from torch import nn

from callbacks.tracking import TrackingLogger
from mohge.config.schema import BenchmarksCallbackConfig, TrainConfig
from mohge.config.targets import build
from mohge.errors import Interrupted, RunError, first_line
from mohge.parallel.sharding import drop_gathered
from mohge.parallel.world import gather
from mohge.training.checkpoint_names import checkpoint_name
from mohge.training.random_state import get_random_state, set_random_state
from mohge.training.run_folder import RESULTS, RunFolder

log = logging.getLogger(__name__)


class Evaluator(Protocol):
    """What `callbacks.benchmarks.evaluator` makes of (the callback's configuration, the run's)."""

    def __call__(
        self, model: nn.Module, data: Any, run: RunFolder, step: int, folder: Path
    ) -> Mapping[str, Any]:
        """Scores the model on the suite.

        All ranks call it at the same time, each with its part of a sharded model.

        Args:
            model: of the run, as it is after `step`, in evaluation mode and without gradients.
            data: module of the run's corpus, whose tokenizer must stay as it is.
            run: folder of the run.
            step: optimizer steps done.
            folder: where the first rank writes results.json and samples, in place of older ones.

        Returns:
            The content of results.json, on the first rank at least.
        """


@runtime_checkable
class Pausing(Protocol):
    """A callback with clocks that an evaluation must not run into."""

    def pause(self) -> None:
        """What follows is no part of training."""

    def resume(self) -> None:
        """Training goes on."""


class BenchmarksCallback(pl.Callback):
    """Runs the suite at the first recorded step from each multiple of `every` on, and after the last step.

    The scores are part of that step's record, as `eval/TASK/METRIC`, and results.json with one line per item
    is in eval/CHECKPOINT/SUITE of the run's folder. Losses are those of a run without it, bit for bit: the
    state of all random generators and the mode of the model are put back, and clocks stand still.

    It belongs on every rank, before what writes records. A task that fails is a warning, and so is a suite
    that fails as a whole: the run goes on.
    """

    def __init__(self, cfg: BenchmarksCallbackConfig, train: TrainConfig) -> None:
        """Makes the evaluator, unless `every` is unset.

        Raises:
            UserError: the evaluator cannot be had, or refuses its configuration.
        """
        super().__init__()
        self._cfg = cfg
        self._train = train
        self._evaluator: Evaluator | None = None
        if cfg.every is not None:
            self._evaluator = build("callbacks.benchmarks", cfg.evaluator, cfg, train, field="evaluator")

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """A continued run has evaluated the step that it begins at, before its checkpoint was saved."""
        self._last = trainer.global_step

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Look at the step that has ended: its record is complete but for this, and not yet written."""
        step = trainer.global_step
        if step != self._last and self._is_due(step) and batch_idx % self._train.trainer.accumulate == 0:
            self._evaluate(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Look at the finished model."""
        if self._evaluator is not None and trainer.global_step != self._last:
            self._evaluate(trainer, pl_module)

    def _is_due(self, step: int) -> bool:
        """Whether a step is the first one with a record since a multiple of `every`.

        It depends on the step alone, so that a continued run evaluates where it would have without a stop.
        """
        every, rhythms = self._cfg.every, (self._train.trainer.log_every, self._train.trainer.val_every)
        if every is None or all(step % rhythm for rhythm in rhythms):
            return False
        recorded_before = max((step - 1) // rhythm * rhythm for rhythm in rhythms)
        return step // every > recorded_before // every

    def _evaluate(self, trainer: pl.Trainer, module: Any) -> None:
        step, begun = trainer.global_step, time.monotonic()
        self._last = step
        place = f"{checkpoint_name(step)}/{self._cfg.suite.folder}"
        folder = module.run.eval_dir / place
        with _paused(trainer), undisturbed(module.model):
            results = self._results(trainer, module, folder)
        if results is None or not trainer.is_global_zero:
            return
        scores = task_scores(results)
        module.record.update({f"eval/{name}": value for name, value in scores.items()})
        for name, task in results["tasks"].items():
            if task["status"] == "failed":
                log.warning("benchmark %s failed at step %d: %s; the run goes on", name, step, task["error"])
        told = ", ".join(f"{name} {value:.3f}" for name, value in _primary_scores(results).items())
        log.info("benchmarks at step %d: %s (%.0f s)", step, told or "none", time.monotonic() - begun)
        for logger in trainer.loggers:
            if isinstance(logger, TrackingLogger):
                logger.log_file(folder / RESULTS, f"evaluations/{place}")

    def _results(self, trainer: Any, module: Any, folder: Path) -> Mapping[str, Any] | None:
        """What the evaluator finds; None where it fails, on all ranks alike."""
        assert self._evaluator is not None
        results, step = None, trainer.global_step
        try:
            results = self._evaluator(module.model, trainer.datamodule, module.run, step, folder)
        except (Interrupted, RunError):  # it leaves, or the ranks have lost each other
            raise
        except Exception as error:  # whatever it is, a run of days is worth more
            log.warning("benchmarks failed at step %d: %s; the run goes on", step, first_line(error))
        if len(set(gather(results is None))) > 1:  # the others' forward passes have lacked this rank
            raise RunError(
                f"benchmarks failed on some ranks at step {step}, and not on all: see their warnings"
            )
        return results


def task_scores(results: Mapping[str, Any]) -> dict[str, float]:
    """The finite values of all metrics, as TASK/METRIC; results.json has the others too."""
    return {
        f"{name}/{metric}": float(score["value"])
        for name, task in results["tasks"].items()
        if task["status"] == "done"
        for metric, score in task["metrics"].items()
        if math.isfinite(score["value"])
    }


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; after it, model and random generators are as they were before."""
    random_state = get_random_state()
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in training.items():
            module.training = mode
        drop_gathered(model)
        set_random_state(random_state)


@contextlib.contextmanager
def _paused(trainer: Any) -> Iterator[None]:
    """The clocks of other callbacks stand still."""
    with contextlib.ExitStack() as stack:
        for callback in trainer.callbacks:
            if isinstance(callback, Pausing):
                callback.pause()
                stack.callback(callback.resume)
        yield


def _primary_scores(results: Mapping[str, Any]) -> dict[str, float]:
    done = {name: task for name, task in results["tasks"].items() if task["status"] == "done"}
    return {
        f"{name} {task['primary']}": task["metrics"][task["primary"]]["value"] for name, task in done.items()
    }
