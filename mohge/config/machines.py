"""What of a configuration is of the machine that trained with it."""

from __future__ import annotations

from dataclasses import replace

from mohge.config.schema import TrainConfig


def for_any_machine(config: TrainConfig) -> TrainConfig:
    """With a kernel for the experts that any machine has, which is that of training where it can be had."""
    if config.experts.kernel != "native":
        return config
    return replace(config, experts=replace(config.experts, kernel="auto"))
