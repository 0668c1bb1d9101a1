"""The arms of a sweep side by side."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from mohge.sweep.cells import CELLS, Plan
from mohge.sweep.progress import Progress


def side_by_side(folder: Path, plan: Plan, progress: Progress) -> dict[str, Any]:
    """What comparison.json holds, for the tracked run of the sweep: the means of each arm's finished runs.

    Args:
        folder: of the sweep.
        plan: its cells.
        progress: their states.

    Returns:
        The baseline, and by arm: how many seeds are done, the mean of the last validation of each in bits
        per byte, parameters, and training tokens per second. Arms of which no run is done are left out.
    """
    ids = {(cell.arm, cell.seed): cell.id for cell in plan.cells}
    runs: dict[str, Any] = {}
    for arm in plan.arms:
        done = [cell for seed in plan.seeds if (cell := progress.cells[ids[arm, seed]]).state == "finished"]
        if not done:
            continue
        found = [cell.bits for cell in done if cell.bits is not None]
        speeds = [cell.speed for cell in done if cell.speed is not None]
        budget = folder / CELLS / done[0].cell.id / "budget.json"
        runs[arm] = {
            "seeds": len(done),
            "validation": {"bits_per_byte": statistics.fmean(found) if found else None},
            "parameters": json.loads(budget.read_text(encoding="utf-8"))["parameters"],
            "tokens_per_second": statistics.fmean(speeds) if speeds else None,
        }
    return {"baseline": plan.baseline, "runs": runs}
