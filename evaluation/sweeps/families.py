"""Arms that differ in one number: what a figure against that number is drawn of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.run_data import RunData
from mohge.config.load import as_dict

_IGNORED = ("seed", "arch_name", "resume", "comparison", "data.cache_dir")
_IGNORED_GROUPS = ("paths.", "logger.", "callbacks.")
_FEWEST = 3
"""Levels that make a family."""


@dataclass(frozen=True)
class Family:
    """Arms whose configurations are equal but for one key, by rising value."""

    name: str
    """The key; of several families of one key, `KEY of ARM` with the first arm of each."""
    key: str
    levels: list[tuple[float, str]]
    """Value and arm."""


def families_of(runs: Mapping[str, RunData]) -> list[Family]:
    """All families of at least three levels.

    Names of presets and folders do not count: `mohge_no_group_loss` is `mohge` with loss.group_weight=0. Of
    arms with the same configuration the first is taken.

    Args:
        runs: a run of each arm, in order.
    """
    settings = {arm: _flat(as_dict(run.config)) for arm, run in runs.items()}
    every = list(dict.fromkeys(key for flat in settings.values() for key in flat))
    found = []
    for key in every:
        if len({json.dumps(flat.get(key)) for flat in settings.values()}) < _FEWEST:
            continue
        members: dict[str, dict[float, str]] = {}
        for arm, flat in settings.items():
            value = flat.get(key)
            if isinstance(value, int | float) and not isinstance(value, bool):
                rest = json.dumps({name: other for name, other in flat.items() if name != key})
                members.setdefault(rest, {}).setdefault(float(value), arm)
        several = [sorted(levels.items()) for levels in members.values() if len(levels) >= _FEWEST]
        found += [
            Family(f"{key} of {levels[0][1]}" if len(several) > 1 else key, key, levels) for levels in several
        ]
    return found


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys that make a design, with their values."""
    flat: dict[str, Any] = {}
    for name, value in sorted(tree.items()):
        key = f"{prefix}{name}"
        if key in _IGNORED or key.startswith(_IGNORED_GROUPS):
            continue
        flat |= _flat(value, f"{key}.") if isinstance(value, Mapping) else {key: value}
    return flat
