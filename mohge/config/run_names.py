"""Names and groups of runs for loggers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mohge.config.schema import TrainConfig

_IN_NAME = ("model", "arch", "seed", "experiment")  # keys that the default name or the group tells already
_NOT_ABOUT = ("paths", "logger", "callbacks", "resume")  # groups that do not change what is trained
_LONGEST = 100  # characters


def run_name(config: TrainConfig) -> str:
    """`logger.run_name`, else size, architecture and seed."""
    return config.logger.run_name or f"{config.model.name}-{config.arch_name}-seed{config.seed}"


def as_arm(config: TrainConfig, name: str, folder: Path) -> TrainConfig:
    """A run as one of a comparison's, in the group of its folder, named by its arm instead of its arch."""
    given = config.logger.run_name
    named = f"{given}-{name}" if given else f"{config.model.name}-{name}-seed{config.seed}"
    return _in_group(config, named, folder)


def as_job(config: TrainConfig, overrides: Sequence[str], folder: Path) -> TrainConfig:
    """A run as one of a multirun's, in the group of its folder, with its overrides in its name."""
    telling = [item for item in overrides if _tells(item.lstrip("+~").partition("=")[0])]
    name = " ".join([run_name(config), *telling])
    return _in_group(config, name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…", folder)


def _tells(key: str) -> bool:
    return key not in _IN_NAME and key.partition(".")[0] not in _NOT_ABOUT


def _in_group(config: TrainConfig, name: str, folder: Path) -> TrainConfig:
    logger = dataclasses.replace(config.logger, run_name=name, group=str(folder.absolute()))
    return dataclasses.replace(config, logger=logger)
