"""What is known of a sweep."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.sweeps.cells import Cell, CurvePoint
from evaluation.sweeps.families import Family
from evaluation.sweeps.plan import Plan

UNFINISHED, FAILED, DAMAGED = "not finished", "failed", "damaged"


@dataclass(frozen=True)
class Unfinished:
    """A cell without figures."""

    arm: str
    seed: int
    state: str
    """One of the three above: whether a cell waits or runs is soon out of date."""
    reason: str
    """Of a failure or a damage, without paths of the machine; may be empty."""


@dataclass(frozen=True)
class Study:
    """What is known of a sweep."""

    plan: Plan
    cells: list[Cell]
    unfinished: list[Unfinished]
    families: list[Family]
    """Arms that differ in one number."""
    curves: list[CurvePoint]

    def of(self, arm: str) -> dict[int, Cell]:
        """The finished cells of an arm by seed."""
        return {cell.seed: cell for cell in self.cells if cell.arm == arm}

    @property
    def arms(self) -> list[str]:
        """Names of the arms that have a finished cell, in the plan's order."""
        known = {cell.arm for cell in self.cells}
        return [name for name in self.plan.arms if name in known]
