"""In what the configurations and environments of runs differ, and what they share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.run_data import RunData
from mohge.config.load import as_dict

_OF_THE_FOLDER = ("paths.", "logger.", "comparison.", "resume", "data.cache_dir")
"""Keys that say where a run is or was watched, not what it is."""


ABSENT = "-"


@dataclass(frozen=True)
class Differences:
    """Keys that do not have one value in all runs, and those that have."""

    keys: list[str]
    values: dict[str, list[str]]
    """By run, the value of each key, as text; a dash where a run does not have it."""
    shared: dict[str, str]


def settings_of(run: RunData) -> str:
    """What a run was set to, as a short text that is equal for runs that differ in seed and folders alone."""
    kept = {key: value for key, value in _settings(run).items() if key != "seed"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def config_differences(runs: Sequence[RunData]) -> Differences:
    """Of the resolved configurations, but for folders and loggers."""
    return _compare({run.name: _settings(run) for run in runs})


def environment_differences(environments: Mapping[str, Mapping[str, Any]]) -> Differences:
    """Of what environment.json of each run holds: git revision, versions, platform."""
    return _compare({name: _flat(environment) for name, environment in environments.items()})


def _compare(flat: dict[str, dict[str, str]]) -> Differences:
    every = list(dict.fromkeys(key for values in flat.values() for key in values))
    seen = {key: [values.get(key, ABSENT) for values in flat.values()] for key in every}
    keys = [key for key in every if len(set(seen[key])) > 1]
    return Differences(
        keys=keys,
        values={name: [values.get(key, ABSENT) for key in keys] for name, values in flat.items()},
        shared={key: values[0] for key, values in seen.items() if len(set(values)) == 1},
    )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys with their values as a user would write them."""
    flat: dict[str, str] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _settings(run: RunData) -> dict[str, str]:
    flat = _flat(as_dict(run.config))
    return {key: value for key, value in flat.items() if not key.startswith(_OF_THE_FOLDER)}
