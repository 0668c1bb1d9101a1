"""The configuration of a continued run: what its folder stores, with the few keys that may change."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from mohge.config.load import as_dict, typed
from mohge.config.schema import TrainConfig
from mohge.errors import UserError
from mohge.sweep.cells import SWEEP
from mohge.training.run_folder import RunFolder

# What may differ in a continued run: how long, how often, how it is watched and computed, where its data are
# kept and how many processes read them. All else makes another run.
_CHANGEABLE = (
    "callbacks",
    "data.cache_dir",
    "data.workers",
    "experts.kernel",  # of another machine; sums are then rounded in another order
    "logger",
    "parallel",
    "paths.cache_dir",
    "trainer.accelerator",
    "trainer.checkpoint_every",
    "trainer.devices",
    "trainer.keep_checkpoints",
    "trainer.log_every",
    "trainer.max_steps",
    "trainer.max_tokens",
    "trainer.nodes",
    "trainer.val_every",
    "trainer.val_sequences",
)
_LENGTHS = {"trainer.max_steps", "trainer.max_tokens"}  # a new length in one unit replaces that in the other


def override_key(override: str) -> str:
    """The key that an override of the command line sets, adds or deletes."""
    return override.lstrip("+~").partition("=")[0]


def continued_config(config: TrainConfig, overrides: list[str]) -> TrainConfig:
    """The stored configuration of the run folder `config.resume`, with this command line's changes.

    Args:
        config: composed from the command line; supplies the values of the keys that `overrides` name.
        overrides: the command line's.

    Raises:
        UserError: the folder holds no run, or an override would make it another run.
    """
    assert config.resume is not None
    folder = Path(config.resume).expanduser()
    if (folder / SWEEP).is_file():
        raise UserError(f"resume={folder} is a sweep: the command of mohge-sweep that made it continues it")
    changed = with_changes(RunFolder(folder).read_config(), as_dict(config), overrides)
    return in_folder(dataclasses.replace(changed, resume=str(folder)), folder)


def with_changes(stored: dict[str, Any], wanted: dict[str, Any], overrides: list[str]) -> TrainConfig:
    """A stored configuration with the keys that overrides name; its `resume` is unset.

    Args:
        stored: plain; it is changed too.
        wanted: plain; supplies the values of these keys.
        overrides: of the command line.

    Raises:
        UserError: an override would make it another run.
    """
    for override in overrides:
        key = override_key(override)
        if key == "resume":
            continue
        if key not in _CHANGEABLE and key.partition(".")[0] not in _CHANGEABLE:
            raise UserError(
                f"{override} cannot change when a run continues: leave it out, or start a new run "
                "without resume "
                f"(these may change: {', '.join(_CHANGEABLE)})"
            )
        *parents, leaf = key.split(".")
        target, source = stored, wanted
        for parent in parents:
            if not isinstance(target.get(parent), dict):  # it was off, or not known yet: all of it is new
                leaf = parent
                break
            target, source = target[parent], source[parent]
        target[leaf] = source[leaf]
        if key == "parallel":  # another mesh: how many processes it had no longer counts
            stored["trainer"].update(devices=wanted["trainer"]["devices"], nodes=wanted["trainer"]["nodes"])
        if key == "paths.cache_dir":  # where data are, unless data.cache_dir is given too
            stored["data"]["cache_dir"] = wanted["data"]["cache_dir"]
        if key in _LENGTHS:
            stored["trainer"].update({other.partition(".")[2]: None for other in _LENGTHS - {key}})
    stored["resume"] = None  # so that its mesh is checked: that of a command line that continues a run is not
    return typed(TrainConfig, stored)


def in_folder(config: TrainConfig, folder: Path) -> TrainConfig:
    """The configuration with `paths.run_dir` set."""
    return dataclasses.replace(
        config, paths=dataclasses.replace(config.paths, run_dir=str(folder.absolute()))
    )
