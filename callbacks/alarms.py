"""Alarms with a remedy: in the log, in alarms.jsonl and as tags of the MLflow run."""

from __future__ import annotations

import json
import logging
from typing import Any

import lightning.pytorch as pl

from callbacks.alarm_rules import Alarm, AlarmRules
from callbacks.tracking import TrackingLogger
from mohge.config.schema import CallbackConfig, TrainConfig
from mohge.errors import NonFiniteError, first_line
from mohge.training.optimizer import whole_steps

log = logging.getLogger(__name__)


class AlarmsCallback(pl.Callback):
    """Feeds each record of the run to the rules, and tells what they find; also why a run failed.

    It looks at what the callbacks before it have recorded: without them, their rules are silent. An alarm is
    a warning in the log, a line of alarms.jsonl, and the tag `alarm.<kind>` of an MLflow run.
    """

    def __init__(self, cfg: CallbackConfig, train: TrainConfig) -> None:
        super().__init__()
        self._train = train

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Show the rules what a continued run has recorded, so that they go on as if it had never stopped."""
        warmup_steps = whole_steps(self._train.optim.warmup_fraction, trainer.max_steps)
        self._rules = AlarmRules(self._train, warmup_steps)
        path = pl_module.run.metrics_path
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._rules.feed(json.loads(line))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the record of a log step."""
        if not pl_module.recording:
            return
        step = trainer.global_step
        place = {"step": step, "tokens": step * pl_module.tokens_per_step}
        for alarm in self._rules.feed({**place, **pl_module.record}):
            log.warning("alarm at step %d: %s", alarm.step, alarm.text)
            _note(trainer, pl_module, alarm)

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Note that the run ends for numbers that are not finite. The command says it: the log need not."""
        if isinstance(exception, NonFiniteError):
            step = trainer.global_step + 1
            text = first_line(exception)
            _note(trainer, pl_module, Alarm(step, step * pl_module.tokens_per_step, "non_finite", text))


def _note(trainer: pl.Trainer, pl_module: Any, alarm: Alarm) -> None:
    pl_module.run.append(pl_module.run.alarms_path, alarm.as_dict())
    for logger in trainer.loggers:
        if isinstance(logger, TrackingLogger):
            logger.set_tag(f"alarm.{alarm.kind}", f"step {alarm.step}: {alarm.text}")
