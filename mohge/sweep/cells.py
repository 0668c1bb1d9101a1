"""The cells of a sweep: what each is called, and the file that lists them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mohge.config.paths import absolute_paths
from mohge.config.schema import TrainConfig
from mohge.errors import UserError
from mohge.files import write_json_atomically

FORMAT = "mohge-sweep-1"
SWEEP = "sweep.json"
CELLS = "cells"
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
    """Writes sweep.json.

    Raises:
        UserError: the folder holds something else, or the disk refuses.
    """
    if (folder / "config.yaml").exists():
        raise UserError(f"{folder} holds a run: give the sweep another folder with paths.run_dir=DIR")
    path = folder / SWEEP
    if path.exists() and (other := read_plan(folder).name) != plan.name:
        raise UserError(
            f"{folder} holds the sweep {other}, and this one is sweep.name={plan.name}: give another folder "
            "with paths.run_dir=DIR"
        )
    write_json_atomically(path, {"format": FORMAT, **asdict(plan)})


def read_plan(folder: Path) -> Plan:
    """What sweep.json holds.

    Raises:
        UserError: it is missing, damaged, or of another format.
    """
    path = folder / SWEEP
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain.pop("format") != FORMAT:
            raise UserError(f"{path} is not of format {FORMAT}: give the sweep another folder")
        return TypeAdapter(Plan).validate_python(plain)
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no sweep ({SWEEP} is missing): give another folder") from error
    except (KeyError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged: delete it, and give the command of the sweep again") from error


def beside_the_plan(folder: Path, plan: Plan) -> int:
    """How many runs are in the sweep's folder that the plan does not have."""
    known = {cell.id for cell in plan.cells}
    return sum(path.is_dir() and path.name not in known for path in (folder / CELLS).glob("*"))
