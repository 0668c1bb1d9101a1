"""The cells of a sweep: what each is called, and the file that lists them."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mohge.config.paths import absolute_paths
from mohge.config.schema import TrainConfig
from mohge.errors import UserError
from mohge.files import write_json_atomically, write_text_atomically
from mohge.sweep.attempts import CellFolder

FORMAT = "mohge-sweep-1"
SWEEP = "sweep.json"
BEFORE = "sweep.before.json"
"""The plan that was replaced last by one without some of its runs."""
CELLS = "cells"
CELL_VARIABLE = "MOHGE_SWEEP_CELL"
"""Environment variable that tells a training which cell it is to be."""
_ID_DIGITS = 16
_SAME_RUN = ("arch_name", "comparison", "logger", "match", "paths", "resume")
"""Keys that name a run, place it, or have led to others."""


@dataclass(frozen=True)
class Cell:
    """One run of a sweep."""

    id: str
    """Hash of its configuration, and name of its folder in cells/."""
    arm: str
    """Name of its arm."""
    seed: int
    """Seed of weights and of the order of data."""
    name: str
    """For loggers."""
    steps: int
    """Optimizer steps."""
    overrides: list[str]
    """What mohge-train is called with."""


@dataclass(frozen=True)
class Plan:
    """What a sweep consists of: sweep.json without its format."""

    name: str
    baseline: str
    seeds: list[int]
    overrides: list[str]
    """Of every cell."""
    arms: dict[str, dict[str, Any]]
    """Overrides and factors of each arm; those of a grid also tell the arm that they are made of."""
    contrasts: dict[str, list[list[str]]]
    cells: list[Cell]
    """Of every arm and seed; two whose configurations are equal have the same id."""

    @property
    def runs(self) -> list[Cell]:
        """Cells of different ids, the first of each."""
        found: dict[str, Cell] = {}
        for cell in self.cells:
            found.setdefault(cell.id, cell)
        return list(found.values())


def cell_id(config: TrainConfig) -> str:
    """Hash of `identity`."""
    text = json.dumps(identity(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]


def check_cell(config: TrainConfig) -> None:
    """Refuses what is not the cell that a sweep has started this process for.

    A sweep is planned when it begins, and each cell composed when its turn comes, maybe days later.

    Raises:
        UserError: the presets have changed since, or somebody has given the run other keys.
    """
    planned = os.environ.get(CELL_VARIABLE)
    if planned is None or cell_id(config) == planned:
        return
    if config.resume is not None:
        raise UserError(
            f"{config.resume} holds a run of another configuration than the sweep has planned: move it away, "
            "and the sweep trains the cell anew"
        )
    raise UserError(
        "the presets have changed since the sweep was planned, so that this would be another run: give the "
        "command of the sweep again, which plans what they are now"
    )


def identity(config: TrainConfig) -> dict[str, Any]:
    """All that decides what a run does and records; equal for equal runs.

    Keys at the default of their class are left out, so that a key which a later version adds, with a default
    that changes nothing, does not make other cells of those that are done.

    Args:
        config: resolved, with widths matched.
    """
    config = absolute_paths(config)
    plain: dict[str, Any] = TypeAdapter(type(config)).dump_python(
        config, by_alias=True, mode="json", exclude_defaults=True, exclude=set(_SAME_RUN)
    )
    plain["data"].pop("cache_dir", None)
    plain["callbacks"].pop("progress", None)
    return plain


def write_plan(folder: Path, plan: Plan) -> None:
    """Writes sweep.json; a plan that was there, and has runs that this one lacks, becomes sweep.before.json.

    Raises:
        UserError: the folder holds something else, or the disk refuses.
    """
    if (folder / "config.yaml").exists():
        raise UserError(f"{folder} holds a run: give the sweep another folder with paths.run_dir=DIR")
    path = folder / SWEEP
    if path.exists():
        before = read_plan(folder)
        if before.name != plan.name:
            raise UserError(
                f"{folder} holds the sweep {before.name}, and this one is sweep.name={plan.name}: give "
                "another folder with paths.run_dir=DIR"
            )
        if _places(before) - _places(plan):
            write_text_atomically(folder / BEFORE, path.read_text(encoding="utf-8"))
    write_json_atomically(path, {"format": FORMAT, **asdict(plan)})


def _places(plan: Plan) -> set[tuple[str, int, str]]:
    return {(cell.arm, cell.seed, cell.id) for cell in plan.cells}


def read_plan(folder: Path, name: str = SWEEP) -> Plan:
    """What sweep.json holds, or another file of the folder.

    Raises:
        UserError: it is missing, damaged, or of another format.
    """
    path = folder / name
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(plain, dict):
            raise ValueError("it holds no object")
        if plain.pop("format") != FORMAT:
            raise UserError(f"{path} is not of format {FORMAT}: give the sweep another folder")
        return TypeAdapter(Plan).validate_python(plain)
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no sweep ({name} is missing): give another folder") from error
    except (KeyError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged: delete it, and give the command of the sweep again") from error


def beside_the_plan(folder: Path, plan: Plan) -> str:
    """Tells which runs in the sweep's folder the plan does not have; empty if there are none.

    By arm and seed, as sweep.before.json calls them, or else by id.

    Raises:
        UserError: sweep.before.json is damaged.
    """
    kept = {cell.id for cell in plan.cells}
    found = {path.name for path in (folder / CELLS).glob("*") if path.is_dir()} - kept
    if not found:
        return ""
    before = read_plan(folder, BEFORE).runs if (folder / BEFORE).exists() else []
    known = {cell.id: cell for cell in before if cell.id in found}
    seeds: dict[str, list[str]] = {}
    for cell in known.values():
        seeds.setdefault(cell.arm, []).append(str(cell.seed))
    names = [f"{arm} seed{'s' * (len(of_arm) > 1)} {', '.join(of_arm)}" for arm, of_arm in seeds.items()]
    done = sum(CellFolder(folder / CELLS, id).finished for id in found)
    return (
        f"{len(found)} more runs in {folder / CELLS} are not in this plan, {done} of them finished: they "
        f"stay as they are ({'; '.join([*names, *sorted(found - known.keys())])})"
    )
