"""Pictures of a run, when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger

from callbacks.tracking import TrackingLogger
from mohge.config.schema import CallbackConfig, TrainConfig
from mohge.training.run_folder import RunFolder


class PlotsCallback(pl.Callback):
    """Draws the run's files into its plots folder, and logs the pictures to MLflow."""

    def __init__(self, cfg: CallbackConfig, train: TrainConfig) -> None:
        super().__init__()
        self._title = f"{train.model.name} {train.arch_name}"

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Draw once everything was recorded."""
        draw_run(self._title, pl_module.run, trainer.loggers)


def draw_run(title: str, run: RunFolder, loggers: Sequence[Logger]) -> None:
    """Draw what a run has recorded into its plots folder, and log the pictures to MLflow."""
    # Here, since matplotlib takes half a second that the start of a run need not wait for; from evaluation,
    # so that a run's pictures and a comparison's look and mean the same.
    from evaluation.plots import draw_all
    from evaluation.run_data import read_run

    draw_all([read_run(title, run.path)], run.plots_dir)
    for logger in loggers:
        if isinstance(logger, TrackingLogger):
            logger.log_folder(run.plots_dir, "plots")
