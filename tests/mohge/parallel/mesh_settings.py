"""Configurations whose mesh is asked for, and the launchers that they may run under."""

from __future__ import annotations

import dataclasses

from composing import composed

from mohge.config.load import typed
from mohge.config.schema import TrainConfig
from mohge.parallel.remedies import PRESETS

SIZES = ("dp_replicate", "dp_shard", "expert_parallel")
SINGLE = typed(TrainConfig, composed())  # 4 widths with 4 experts each, 16 sequences
DENSE = typed(TrainConfig, composed("arch=dense"))


def launched(ranks: int, nodes: int = 1) -> dict[str, str]:
    """What torchrun says to the first of its ranks."""
    numbers = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks // nodes}
    return {name: str(number) for name, number in numbers.items()}


def changed(config: TrainConfig, **keys: object) -> TrainConfig:
    """The configuration with keys of its groups replaced: `trainer_devices=2`."""
    for key, value in keys.items():
        group, _, name = key.partition("_")
        part = dataclasses.replace(getattr(config, group), **{name: value})
        config = dataclasses.replace(config, **{group: part})
    return config


def preset(config: TrainConfig, name: str) -> TrainConfig:
    parallel = dataclasses.replace(config.parallel, name=name, **PRESETS[name])  # type: ignore[arg-type]
    return dataclasses.replace(config, parallel=parallel)
