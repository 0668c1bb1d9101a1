"""The device that a configuration asks for."""

from __future__ import annotations

import torch

from mohge.config.schema import TrainerConfig
from mohge.errors import UserError


def device_of(config: TrainerConfig, ranks: int = 1) -> torch.device:
    """The GPU if there is one and `trainer.accelerator` does not say cpu.

    Args:
        config: what is asked for.
        ranks: processes on this machine, each of which needs a GPU of its own.

    Raises:
        UserError: a GPU is asked for and there is none, or there are fewer than ranks.
    """
    if config.accelerator == "cuda" and not torch.cuda.is_available():
        raise UserError("trainer.accelerator=cuda, and this machine has no usable GPU: use cpu or auto")
    if config.accelerator != "cpu" and 0 < torch.cuda.device_count() < ranks:
        raise UserError(
            f"trainer.devices={ranks} and this machine has {torch.cuda.device_count()} GPUs: use as many, or "
            "trainer.accelerator=cpu"
        )
    return torch.device("cuda" if config.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
