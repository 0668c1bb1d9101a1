"""The table of a sweep: on a terminal a live one, elsewhere a line for each change."""

from __future__ import annotations

import datetime
import math
import statistics
import time
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mohge.sweep.attempts import State
from mohge.sweep.cells import Plan
from mohge.sweep.progress import CellProgress, Progress, look
from mohge.sweep.same_data import different_data

_LINE_EVERY = 30.0  # seconds, where the output is no terminal
_STYLES: dict[State, str] = {
    "finished": "",
    "running": "bold cyan",
    "failed": "bold magenta",
    "stopped": "yellow",
    "waiting": "dim",
}


class Display:
    """Shows how far a sweep is while others work on it; a context.

    Args:
        folder: of the sweep.
        plan: its cells.
        console: where to.
    """

    def __init__(self, folder: Path, plan: Plan, console: Console):
        self._folder = folder
        self._plan = plan
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._states: dict[str, State] = {}
        self._remark: str | None = None
        self._told = time.monotonic()

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        self._states = {id: cell.state for id, cell in look(self._folder, self._plan).cells.items()}
        self._look_at_data()
        return self

    def __exit__(self, *unused: object) -> None:
        if self._live is not None:
            self._live.stop()
        else:
            self._console.print(table(self._plan, look(self._folder, self._plan)))

    def update(self) -> None:
        """Look again."""
        progress = look(self._folder, self._plan)
        changed = [cell for id, cell in progress.cells.items() if cell.state != self._states[id]]
        self._states |= {cell.cell.id: cell.state for cell in changed}
        if changed:
            self._look_at_data()
        if self._live is not None:
            lines = [Text(line) for line in (summary(progress), self._remark) if line is not None]
            self._live.update(Group(table(self._plan, progress), *lines), refresh=True)
            return
        for cell in changed:
            self._print(_change(cell))
        if time.monotonic() > self._told + _LINE_EVERY:
            self._told = time.monotonic()
            self._print(summary(progress))

    def _look_at_data(self) -> None:
        """Only when a cell has changed: it reads a file of each."""
        before, self._remark = self._remark, different_data(self._folder, self._plan)
        if self._remark is not None and self._remark != before and self._live is None:
            self._print(self._remark)

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def table(plan: Plan, progress: Progress) -> RenderableType:
    """A row for each arm: the result of each seed, or how far it is."""
    result = Table(title=f"Sweep {plan.name}", title_justify="left")
    result.add_column("arm", overflow="fold")
    for seed in plan.seeds:
        result.add_column(f"seed {seed}", justify="right", no_wrap=True)
    for title in ("steps", "tokens/s", "bits per byte"):
        result.add_column(title, justify="right", no_wrap=True)
    ids = {(cell.arm, cell.seed): cell.id for cell in plan.cells}
    for arm in plan.arms:
        cells = [progress.cells[ids[arm, seed]] for seed in plan.seeds]
        name = f"{arm} (baseline)" if arm == plan.baseline else arm
        done, total = sum(cell.step for cell in cells), sum(cell.cell.steps for cell in cells)
        found = [cell.bits for cell in cells if cell.state == "finished" and cell.bits is not None]
        speeds = [cell.speed for cell in cells if cell.speed is not None]
        result.add_row(
            Text(name),
            *(_cell(cell) for cell in cells),
            f"{done:,}/{total:,}",
            f"{statistics.fmean(speeds):,.0f}" if speeds else "",
            f"{statistics.fmean(found):.4f}" if found else "",
        )
    return result


def summary(progress: Progress) -> str:
    """One line on the whole."""
    parts = [progress.counts(), f"{math.floor(100 * progress.share)}% of all steps"]
    if progress.speed:
        parts.append(f"{progress.speed:,.0f} tokens/s")
    left = progress.seconds_left
    if progress.of("running") and not math.isnan(left):
        end = datetime.datetime.now() + datetime.timedelta(seconds=left)
        parts.append(f"done at about {end:%a %H:%M}, in {datetime.timedelta(seconds=round(left))}")
    return "; ".join(parts)


def _cell(cell: CellProgress) -> Text:
    if cell.state == "finished":
        words = "done" if cell.bits is None else f"{cell.bits:.4f}"
    elif cell.state == "running":
        words = f"at {math.floor(100 * cell.share)}%"
    else:
        words = cell.state
    return Text(words, style=_STYLES[cell.state])


def _change(cell: CellProgress) -> str:
    name = f"{cell.cell.arm} seed {cell.cell.seed}"
    if cell.state == "finished":
        return f"{name}: finished" + ("" if cell.bits is None else f", {cell.bits:.4f} bits per byte")
    if cell.state == "failed":
        return f"{name}: failed: {cell.reason}"
    return f"{name}: {cell.state} at step {cell.step} of {cell.cell.steps}"
