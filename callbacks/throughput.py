"""Speed of training, as a metric."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from callbacks.pace import Pace
from mohge.config.schema import CallbackConfig, TrainConfig


class ThroughputCallback(pl.Callback):
    """Records `speed/seconds_per_step` and `speed/tokens_per_second`: the median over the newest 50 steps.

    Validation is left out. The host's clock is read, without waiting for an accelerator: on one, a step's end
    is where the host reached it, so that single steps are blurred while their median is not.
    """

    def __init__(self, cfg: CallbackConfig, train: TrainConfig) -> None:
        super().__init__()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._pace = Pace()
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the time of a finished optimizer step; micro-batches before it do not count as one."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        self._pace.step_ended()
        if pl_module.recording:
            seconds = self._pace.seconds_per_step
            pl_module.record["speed/seconds_per_step"] = seconds
            pl_module.record["speed/tokens_per_second"] = pl_module.tokens_per_step / seconds

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        if not trainer.sanity_checking:
            self._pace.pause()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the clock go on."""
        if not trainer.sanity_checking:
            self._pace.resume()
