"""Names and groups of runs for loggers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import yaml

from mohge.config.schema import TrainConfig

_IN_NAME = ("model", "arch", "seed", "logger.run_name")  # keys that the default name tells already
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
    """A run as one of a multirun's, in the group of its folder, named by what tells it from the others.

    Args:
        config: of the job.
        overrides: of the job.
        folder: of the multirun, in which Hydra keeps the command line's overrides.
    """
    kept = folder / "multirun.yaml"
    shared: list[str] = []
    if kept.exists():
        shared = yaml.safe_load(kept.read_text(encoding="utf-8"))["hydra"]["overrides"]["task"]
    varied = [item for item in overrides if item not in shared]
    telling = [item for item in varied if item.lstrip("+~").partition("=")[0] not in _IN_NAME]
    name = " ".join([run_name(config), *telling])
    return _in_group(config, name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…", folder)


def _in_group(config: TrainConfig, name: str, folder: Path) -> TrainConfig:
    logger = dataclasses.replace(config.logger, run_name=name, group=str(folder.absolute()))
    return dataclasses.replace(config, logger=logger)
