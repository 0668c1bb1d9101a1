"""What is known of a sweep."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from evaluation.sweeps.cells import QUALITY, Cell, CurvePoint
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

    def lacking(self, arms: Collection[str]) -> str:
        """What their planned seeds lack.

        Returns:
            `UNFINISHED` if one is still to be trained, else `FAILED` if one has no bits per byte, else "".
        """
        known = {(cell.arm, cell.seed) for cell in self.cells if QUALITY in cell.figures}
        planned = {(cell.arm, cell.seed) for cell in self.plan.cells if cell.arm in arms}
        lost = {(one.arm, one.seed) for one in self.unfinished if one.state != UNFINISHED}
        lost |= {(cell.arm, cell.seed) for cell in self.cells}
        if planned - known - lost:
            return UNFINISHED
        return FAILED if planned - known else ""

    @property
    def arms(self) -> list[str]:
        """Names of the arms that have a finished cell, in the plan's order."""
        known = {cell.arm for cell in self.cells}
        return [name for name in self.plan.arms if name in known]
