"""Compose configurations as the commands do."""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hydra import compose, initialize_config_module
from omegaconf import DictConfig


def composed(*overrides: str, config_name: str = "train") -> DictConfig:
    """A tree of the caller's own: the same one is composed once, since that takes a fifth of a second."""
    return copy.deepcopy(_composed(config_name, overrides))


@functools.lru_cache(maxsize=512)
def _composed(config_name: str, overrides: tuple[str, ...]) -> DictConfig:
    with initialize_config_module("conf", version_base="1.3"), _untraced():
        return compose(config_name, overrides=list(overrides))


@contextmanager
def _untraced() -> Iterator[None]:
    """Without coverage: Hydra's half a million calls would take twice as long, and none is ours."""
    trace = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(trace)
