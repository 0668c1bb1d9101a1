"""The plan of a sweep: its arms, seeds, baseline and contrasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mohge.errors import UserError
from mohge.sweep.cells import FORMAT


@dataclass(frozen=True)
class Arm:
    """One design of a sweep, trained with each seed."""

    overrides: list[str]
    factors: dict[str, str]
    """Of a grid, the value of each key; empty otherwise."""
    of: str | None = None
    """The arm that the grid has multiplied."""


@dataclass(frozen=True)
class PlannedCell:
    """One training of a sweep; arms whose configurations are equal share its id."""

    id: str
    arm: str
    seed: int


@dataclass(frozen=True)
class Plan:
    """What was to be trained, and what is to be compared."""

    name: str
    baseline: str
    seeds: list[int]
    overrides: list[str]
    """Of every cell, but for paths, which say where and not what."""
    arms: dict[str, Arm]
    contrasts: dict[str, list[tuple[str, str]]]
    """By factor, pairs of the arm with it and the arm without it."""
    cells: list[PlannedCell]

    def ids(self, arm: str) -> list[str]:
        """Of the cells of an arm, seed by seed: arms with the same ones are one design."""
        return [cell.id for cell in self.cells if cell.arm == arm]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"format": FORMAT, **asdict(self)}


def parse_plan(data: Mapping[str, Any], path: Path) -> Plan:
    """The plan that a file holds.

    Args:
        data: its content.
        path: of the file, for messages.

    Raises:
        UserError: it is of another format, a name in it is unknown, or an arm has a seed twice.
    """
    if data.get("format") != FORMAT:
        raise UserError(f"{path} has format {data.get('format')}, not {FORMAT}: give a folder of mohge-sweep")
    try:
        plan = TypeAdapter(Plan).validate_python({k: v for k, v in data.items() if k != "format"})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{path} is damaged ({place}: {first['msg']}): run mohge-sweep again") from error
    plan.overrides[:] = [one for one in plan.overrides if not one.lstrip("+").startswith("paths.")]
    named = [plan.baseline, *(cell.arm for cell in plan.cells)]
    named += [arm for pairs in plan.contrasts.values() for pair in pairs for arm in pair]
    for name in named:
        if name not in plan.arms:
            raise UserError(
                f"{path} names the arm {name}, which it does not have: choose of {', '.join(plan.arms)}"
            )
    seen = set()
    for cell in plan.cells:
        if (cell.arm, cell.seed) in seen:
            raise UserError(f"{path} has {cell.arm} seed {cell.seed} twice: run mohge-sweep again")
        seen.add((cell.arm, cell.seed))
    return plan
