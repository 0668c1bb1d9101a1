"""The end of a run that no longer learns."""

from __future__ import annotations

import logging
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping

from mohge.config.schema import EarlyStoppingCallbackConfig, TrainConfig

log = logging.getLogger(__name__)

_MONITOR = "val/bits_per_byte"


class EarlyStoppingCallback(EarlyStopping):
    """Ends a run when `patience` validations in a row have not fallen below the best by over `min_change`.

    The rule is Lightning's, on bits per byte of all held-out text. The run ends as it would at its last step:
    validated, saved and finished; status.json says so in `stopped_early`. The best score and the validations
    since are part of a checkpoint, so that a continued run ends where it would have without a stop, and one
    that has ended stays so, unless it is given more patience.

    It belongs on every rank. Without `patience` it does nothing.
    """

    def __init__(self, cfg: EarlyStoppingCallbackConfig, train: TrainConfig) -> None:
        super().__init__(
            _MONITOR,
            min_delta=cfg.min_change,
            patience=cfg.patience or 0,
            check_finite=False,  # a run whose loss is not finite fails, and says where
            check_on_train_epoch_end=False,
        )
        self._cfg = cfg

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Compare with the best validation so far."""
        if self._cfg.patience is None:
            return
        score = torch.tensor(pl_module.record[_MONITOR], dtype=torch.float64)
        trainer.callback_metrics[_MONITOR] = score  # where Lightning looks
        super().on_validation_end(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Say that the run has ended early, if it has."""
        step = trainer.global_step
        if not (trainer.is_global_zero and self._is_over(step, trainer)):
            return
        sentence = (
            f"{self.wait_count} validations in a row found no better than {float(self.best_score):.4f} "
            "bits per byte"
        )
        log.info("stopped early at step %d: %s", step, sentence)
        pl_module.run.update_status(stopped_early={"step": step, "reason": sentence})

    def state_dict(self) -> dict[str, Any]:
        """The best score, and how many validations have passed since; nothing while it is off."""
        return {} if self._cfg.patience is None else super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a checkpoint's scores, and with this run's own patience, which may have changed."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Let no further step be trained if the run had ended early."""
        state = checkpoint["callbacks"].get(self.state_key)
        if state is not None:
            self.load_state_dict(state)
            trainer.should_stop = self._is_over(checkpoint["global_step"], trainer)

    def _is_over(self, step: int, trainer: pl.Trainer) -> bool:
        """Whether the patience has run out before the last step."""
        patience = self._cfg.patience
        return patience is not None and self.wait_count >= patience and step < trainer.max_steps
