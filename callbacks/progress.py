"""The progress bar: loss, speed and time left."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from callbacks.pace import Pace
from mohge.config.schema import CallbackConfig, TrainConfig

_PLAIN_LINES = 10


class ProgressCallback(pl.Callback):
    """A bar on a terminal; elsewhere (a file, a scheduler's log) about ten plain lines for the whole run."""

    def __init__(self, cfg: CallbackConfig, train: TrainConfig, console: Console | None = None) -> None:
        """`console` is standard output unless a test gives another."""
        super().__init__()
        self._title = f"{train.model.name} {train.arch_name}"
        self._console = console or Console()
        self._bar: Progress | None = None
        self._loss = float("nan")

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Show the bar."""
        self._pace = Pace()
        self._step = trainer.global_step
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}"),
                console=self._console,
            )
            self._bar.start()
            self._task = self._bar.add_task(
                self._title, total=trainer.max_steps, completed=self._step, figures="starting"
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move on by a finished optimizer step."""
        if trainer.global_step == self._step:
            return
        before, self._step = self._step, trainer.global_step
        self._pace.step_ended()
        self._loss = pl_module.record.get("train/loss", self._loss)
        if self._bar:
            self._bar.update(self._task, completed=self._step, figures=self._figures(trainer, pl_module))
            return
        tenth = trainer.max_steps / _PLAIN_LINES
        if self._step // tenth > before // tenth or self._step == trainer.max_steps:
            self._print(f"{self._share(trainer)}  {self._figures(trainer, pl_module)}")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Stop the clock."""
        if not trainer.sanity_checking:
            self.pause()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Say what validation found, on a line of its own that stays."""
        if trainer.sanity_checking:
            return
        self.resume()
        bits = pl_module.record.get("val/bits_per_byte")
        if bits is not None:
            self._print(f"{self._share(trainer)}  validation {bits:.4f} bits per byte")

    def pause(self) -> None:
        """What follows is no part of training."""
        self._pace.pause()

    def resume(self) -> None:
        """Training goes on."""
        self._pace.resume()

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Take the bar away."""
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Take the bar away before the failure is told."""
        self._stop()

    def _stop(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)

    def _share(self, trainer: pl.Trainer) -> str:
        percent = math.floor(100 * trainer.global_step / trainer.max_steps)
        return f"{self._title}  step {trainer.global_step}/{trainer.max_steps} ({percent}%)"

    def _figures(self, trainer: pl.Trainer, pl_module: Any) -> str:
        speed = pl_module.tokens_per_step / self._pace.seconds_per_step
        left = timedelta(seconds=round(self._pace.seconds_left(trainer.max_steps - self._step)))
        loss = "" if math.isnan(self._loss) else f"loss {self._loss:.3f}  "
        return f"{loss}{speed:,.0f} tokens/s  {left} left"
