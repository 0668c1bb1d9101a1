"""Compose configurations as the commands do."""

from __future__ import annotations

from hydra import compose, initialize_config_module
from omegaconf import DictConfig


def composed(*overrides: str, config_name: str = "train") -> DictConfig:
    with initialize_config_module("conf", version_base="1.3"):
        return compose(config_name, overrides=list(overrides))
