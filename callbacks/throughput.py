"""Speed of training, where its time goes, and its memory, as metrics."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch

from callbacks.machine_peak import matmul_peak, peak_bytes
from callbacks.pace import Pace
from callbacks.step_clock import StepClock, StepProfiler
from mohge.budget import budget
from mohge.config.schema import CallbackConfig, TrainConfig
from mohge.parallel.waits import watching_waits

_MEASURED_AGAIN = 3
"""Times that the peak of a CPU is measured again, at most: each takes as long as a step or two."""


class ThroughputCallback(pl.Callback):
    """Records, at each log step, of all ranks unless it says otherwise:

    - `speed/seconds_per_step`, `speed/tokens_per_second`: median over the newest 50 steps.
    - `speed/flops_per_second`: training FLOPs of a token times tokens per second. The FLOPs are those of the
      experts that the tokens really took (`routing/flops_per_token`), or, where nothing measures them, the
      budget's.
    - `speed/peak_share`: its share of the fastest square product of matrices, in a precision that the run may
      compute in, times the number of ranks.
    - `time/<part>_share`: share of the first rank's time since the last record; the parts sum to 1.
    - `memory/peak_bytes`: of the first rank, so far.

    Validation, benchmarks and the writing of checkpoints are left out. The host's clock is read, without
    waiting for an accelerator: on one, a step's end is where the host reached it, so that single steps are
    blurred while their median is not, and the parts tell what the host waits for.
    """

    def __init__(self, cfg: CallbackConfig, train: TrainConfig) -> None:
        super().__init__()
        # A processor without bfloat16 instructions multiplies faster in float32, and kernels then do.
        bf16 = train.trainer.precision == "bf16"
        self._dtypes = (torch.bfloat16, torch.float32) if bf16 else (torch.float32,)
        self._expected_flops = float(budget(train).flops_per_token.train)
        self._watch = contextlib.ExitStack()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Measure the machine's peak, then start the clocks."""
        on_gpu = pl_module.device.type == "cuda"
        self._peak, self._again = 0.0, 0 if on_gpu else _MEASURED_AGAIN  # a full GPU has no room for it
        self._measure_peak(trainer, pl_module)
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(pl_module.device)  # those matrices are not the run's
        self._step = trainer.global_step
        self._pace, self._clock = Pace(), StepClock()
        if trainer.world_size > 1:
            waiting = partial(self._clock.enter, "communication")
            self._watch.enter_context(watching_waits(waiting, self._clock.leave))
        self._watch.callback(setattr, trainer, "profiler", trainer.profiler)
        trainer.profiler = StepProfiler(self._clock)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the time of a finished optimizer step; micro-batches before it do not count as one."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        self._pace.step_ended()
        if not pl_module.recording:
            return
        record, seconds = pl_module.record, self._pace.seconds_per_step
        tokens_per_second = pl_module.tokens_per_step / seconds
        flops = tokens_per_second * record.get("routing/flops_per_token", self._expected_flops)
        if flops > self._peak and self._again:  # it was measured while the machine had something else to do
            self._again -= 1
            self._measure_peak(trainer, pl_module)
        record["speed/seconds_per_step"] = seconds
        record["speed/tokens_per_second"] = tokens_per_second
        record["speed/flops_per_second"] = flops
        record["speed/peak_share"] = flops / self._peak
        record.update({f"time/{part}_share": share for part, share in self._clock.take_shares().items()})
        record["memory/peak_bytes"] = float(peak_bytes(pl_module.device))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clocks."""
        if not trainer.sanity_checking:
            self.pause()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the clocks go on."""
        if not trainer.sanity_checking:
            self.resume()

    def pause(self) -> None:
        """What follows is no part of training."""
        self._pace.pause()
        self._clock.pause()

    def resume(self) -> None:
        """Training goes on."""
        self._pace.resume()
        self._clock.resume()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Watch no longer."""
        self._watch.close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Watch no longer."""
        self._watch.close()

    def _measure_peak(self, trainer: Any, pl_module: Any) -> None:
        now = matmul_peak(self._dtypes, pl_module.device) * trainer.world_size
        self._peak = max(self._peak, now)
