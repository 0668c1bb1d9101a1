"""What tests of speed do to a run: slow data, and ranks that come late."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from composing import composed
from tiny_runs import read_metrics

from datamodules.windows import TrainWindows
from mohge.config.load import typed
from mohge.config.schema import TrainConfig
from mohge.parallel.ranks import this_rank
from mohge.training.run_folder import RunFolder


def slow_windows(seconds: float) -> Callable[[TrainWindows, int], Any]:
    """A `TrainWindows.__getitem__` that takes so much longer."""
    read = TrainWindows.__getitem__

    def slowly(windows: TrainWindows, window: int) -> Any:
        time.sleep(seconds)
        return read(windows, window)

    return slowly


def late_ranks(overrides: list[str], folder: Path, seconds: float) -> list[dict[str, Any]]:
    """Trains on ranks of which all but the first read slowly; the first returns the records."""
    from mohge.training.run import train

    if dist.get_rank():
        TrainWindows.__getitem__ = slow_windows(seconds)  # type: ignore[method-assign]
    ranks = (f"trainer.devices={dist.get_world_size()}", "trainer.accelerator=cpu", "parallel=ddp")
    config = typed(TrainConfig, composed(*overrides, *ranks, f"paths.run_dir={folder}"))
    train(config, RunFolder(folder), [], this_rank())
    return read_metrics(folder) if dist.get_rank() == 0 else []
