"""The device that a configuration asks for."""

from __future__ import annotations

import torch

from mohge.config.schema import TrainerConfig
from mohge.errors import UserError


def device_of(config: TrainerConfig) -> torch.device:
    """The GPU if there is one and `trainer.accelerator` does not say cpu.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if config.accelerator == "cuda" and not torch.cuda.is_available():
        raise UserError("trainer.accelerator=cuda, and this machine has no usable GPU: use cpu or auto")
    return torch.device("cuda" if config.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
