"""How far a sweep is: the state and figures of each cell, and how long the rest will take."""

from __future__ import annotations

import datetime
import itertools
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mohge.sweep.attempts import Attempt, CellFolder, State
from mohge.sweep.cells import CELLS, Cell, Plan

BITS = "val/bits_per_byte"


@dataclass(frozen=True)
class CellProgress:
    """A cell as its folder shows it."""

    cell: Cell
    state: State
    step: int
    """Steps that are recorded."""
    speed: float | None
    """Training tokens per second, recorded last."""
    bits: float | None
    """Bits per byte of the last validation."""
    pace: float | None
    """Seconds per step, as far as is known."""
    reason: str | None
    """Why it failed."""

    @property
    def share(self) -> float:
        """Of its steps; a finished run may have stopped early."""
        return 1.0 if self.state == "finished" else min(self.step / self.cell.steps, 1.0)


@dataclass(frozen=True)
class Progress:
    """A sweep as its folder shows it."""

    cells: dict[str, CellProgress]
    """By id."""

    def of(self, state: State) -> list[CellProgress]:
        """Cells in a state."""
        return [cell for cell in self.cells.values() if cell.state == state]

    @property
    def share(self) -> float:
        """Of all steps."""
        steps = sum(cell.cell.steps for cell in self.cells.values())
        return sum(cell.share * cell.cell.steps for cell in self.cells.values()) / steps

    @property
    def speed(self) -> float:
        """Training tokens per second of all running cells."""
        return sum(cell.speed or 0.0 for cell in self.of("running"))

    @property
    def seconds_left(self) -> float:
        """Until all running and waiting cells are done; NaN before anything is known.

        A step takes as long as those of its arm took, or those of all arms.
        """
        paces: dict[str, list[float]] = {}
        for cell in self.cells.values():
            if cell.pace is not None:
                paces.setdefault(cell.cell.arm, []).append(cell.pace)
        if not paces:
            return math.nan
        everywhere = statistics.fmean(itertools.chain(*paces.values()))
        work = sum(
            (1 - cell.share) * cell.cell.steps * statistics.fmean(paces.get(cell.cell.arm, [everywhere]))
            for state in ("running", "waiting", "stopped")
            for cell in self.of(state)
        )
        return work / max(len(self.of("running")), 1)

    def counts(self) -> str:
        """Such as `3 finished, 2 running, 7 waiting`."""
        number = Counter(cell.state for cell in self.cells.values())
        order: Sequence[State] = ("finished", "running", "failed", "stopped", "waiting")
        return ", ".join(f"{number[state]} {state}" for state in order if number[state])


def look(folder: Path, plan: Plan) -> Progress:
    """Reads the states of a plan's cells."""
    return Progress({cell.id: _look_at(folder / CELLS, cell) for cell in plan.runs})


def _look_at(cells: Path, cell: Cell) -> CellProgress:
    seen = CellFolder(cells, cell.id).look()
    return CellProgress(
        cell=cell,
        state=seen.state,
        step=seen.status.get("step", 0),
        speed=seen.status.get("last", {}).get("speed/tokens_per_second"),
        bits=seen.status.get("last", {}).get(BITS),
        pace=_pace(seen.status, seen.attempts, seen.state == "running"),
        reason=seen.reason,
    )


def _pace(status: dict[str, Any], attempts: list[Attempt], running: bool) -> float | None:
    """Seconds per step: of all attempts or, where not all of them are known, as the run recorded it.

    One that was killed has no end of its own, and a run that was copied here has left its attempts behind.
    """
    if not status.get("step"):
        return None
    recorded: float | None = status.get("last", {}).get("speed/seconds_per_step")
    if not any(attempt.event == "start" for attempt in attempts):
        return recorded
    seconds = 0.0
    for attempt, following in itertools.zip_longest(attempts, attempts[1:]):
        if attempt.event == "end":
            continue
        if following is not None and following.event == "end" and following.worker == attempt.worker:
            end = following.time
        elif following is None and running:
            end = datetime.datetime.now(datetime.UTC)
        else:
            return recorded
        seconds += max((end - attempt.time).total_seconds(), 0.0)  # clocks of hosts that share a sweep differ
    return seconds / float(status["step"])
