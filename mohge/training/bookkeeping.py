"""Callbacks that every run has: records (on rank 0), checkpoints, and leaving in good order."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, Checkpoint

from mohge.errors import Interrupted
from mohge.parallel.world import first, maximum_over_ranks
from mohge.training.checkpoint import VerifiedCheckpointIO
from mohge.training.checkpoint_names import checkpoint_name, list_checkpoints
from mohge.training.module import LanguageModule
from mohge.training.run_folder import after_record


class RecordWriter(Callback):
    """Writes the record of a step as one object of metrics.jsonl, to the loggers, and to status.json.

    A record is written when the next step begins, so that a validation after the step is part of it, and
    before the checkpoint of the step is saved, so that a resumed run misses none.
    """

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Writes the record of the step before."""
        self._flush(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Writes the record of the last step."""
        self._flush(trainer, pl_module)

    def _flush(self, trainer: pl.Trainer, module: LanguageModule) -> None:
        if not module.record:
            return
        step, metrics = module.global_step, module.record
        module.record = {}
        record = {"step": step, "tokens": step * module.tokens_per_step, **metrics}
        module.run.append(module.run.metrics_path, record)
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=step)
        module.run.update_status(**after_record(module.run.read_status(), record))


class Checkpoints(Checkpoint):
    """Saves every `trainer.checkpoint_every` steps, at the end, and when a signal asks the run to leave.

    Saving happens as the next step begins: all of the step before, its validation and its record are done,
    and Lightning's counters are at a boundary that it restores exactly.
    """

    def __init__(self) -> None:
        self._signal: int | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Catches SIGTERM and SIGINT, in place of Lightning, whose teardown gives them back."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Saves if it is time, and leaves if a signal asked for it."""
        module: LanguageModule = pl_module
        step, config = module.global_step, module.config.trainer
        if batch_idx % config.accumulate != 0:
            return
        # Ranks hear of it in different steps, and must leave after the same one.
        number = maximum_over_ranks(self._signal or 0)
        if step > 0 and (step % config.checkpoint_every == 0 or number):
            self._save(trainer, module)
        if number:
            name = signal.Signals(number).name
            raise Interrupted(
                f"{name} received: step {step} is saved; continue with mohge-train resume={module.run.path}",
                number,
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Makes Lightning validate after the last step, whatever `trainer.val_every` is."""
        if pl_module.global_step >= pl_module.max_steps:
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Saves the last step."""
        self._save(trainer, pl_module)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None and number == signal.SIGINT:
            raise Interrupted("interrupted twice: the newest steps are not saved", number)
        self._signal = number

    def _save(self, trainer: pl.Trainer, module: LanguageModule) -> None:
        folder = module.run.checkpoints_dir
        path = folder / checkpoint_name(module.global_step)
        if first(lambda: path not in list_checkpoints(folder)):
            trainer.save_checkpoint(path, weights_only=False)  # optimizer and counters too
        if trainer.is_global_zero:
            for old in list_checkpoints(folder)[: -module.config.trainer.keep_checkpoints]:
                VerifiedCheckpointIO().remove_checkpoint(old)
            saved = [str(item.relative_to(module.run.path)) for item in list_checkpoints(folder)]
            module.run.update_status(checkpoints=saved)
