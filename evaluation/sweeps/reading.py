"""A sweep's folder as a study: its plan, the figures of its finished cells, and what is not finished."""

from __future__ import annotations

import re
from pathlib import Path

from evaluation.run_data import RunData, read_object, spread
from evaluation.sweeps.cells import Cell, CurvePoint, curve, read_cell
from evaluation.sweeps.families import families_of
from evaluation.sweeps.plan import parse_plan
from evaluation.sweeps.storing import load_study
from evaluation.sweeps.study import DAMAGED, FAILED, UNFINISHED, Study, Unfinished
from mohge.errors import UserError
from mohge.sweep.attempts import CellFolder
from mohge.sweep.cells import CELLS, SWEEP

_POINTS = 40
"""Validations of a cell, at most, that curves show."""
_ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:[\w.@+~=-]+/)+([\w.@+~=-]+)")


def read_study(path: str, *, begun: bool = True) -> Study:
    """A study from the folder of a sweep, or from the table that a report has made of it.

    Args:
        path: as the user wrote it: a folder with sweep.json, or a .csv file.
        begun: whether a cell has to be finished.

    Raises:
        UserError: there is no sweep, it is damaged, or no cell of it is finished though one has to be.
    """
    place = Path(path).expanduser()
    if place.suffix == ".csv":
        study = load_study(place)
    elif place.is_dir() and (place / SWEEP).is_file():
        study = _read_folder(place)
    else:
        raise UserError(
            f"sweep={path} is no sweep: give the folder of mohge-sweep (it holds {SWEEP}), or a table of "
            "cells (.csv) of an earlier report"
        )
    if begun and not study.cells:
        first = study.unfinished[0] if study.unfinished else None
        why = f" ({first.arm} seed {first.seed}: {first.state})" if first else ""
        raise UserError(f"sweep={path} has no finished cell{why}: run mohge-sweep first")
    return study


def _read_folder(folder: Path) -> Study:
    plan = parse_plan(read_object(folder / SWEEP), folder / SWEEP)
    cells: list[Cell] = []
    curves: list[CurvePoint] = []
    unfinished: list[Unfinished] = []
    runs: dict[str, RunData] = {}
    for planned in plan.cells:
        state, reason = _state(folder, planned.id)
        if state == "finished":
            try:
                cell, run = read_cell(planned.arm, planned.seed, planned.id, folder / CELLS / planned.id)
            except UserError as error:
                state, reason = DAMAGED, str(error)
            else:
                cells.append(cell)
                curves += spread(curve(planned.arm, planned.seed, run), _POINTS)
                runs.setdefault(planned.arm, run)
                continue
        unfinished.append(Unfinished(planned.arm, planned.seed, state, _portable(reason, folder)))
    ordered = {name: runs[name] for name in plan.arms if name in runs}
    return Study(plan, cells, unfinished, families_of(ordered), curves)


def _portable(reason: str, folder: Path) -> str:
    """A reason in one line, which may be published: of paths outside the sweep's folder it has the names."""
    for place in {str(folder.resolve()), str(folder.absolute()), str(folder)} - {"."}:
        reason = reason.replace(f"{place}/", "")
    return _ABSOLUTE.sub(r"\1", " ".join(reason.split()))


def _state(folder: Path, id: str) -> tuple[str, str]:
    """`finished` or a state of `Unfinished`, and why a cell has failed if it has: as mohge-sweep sees it."""
    seen = CellFolder(folder / CELLS, id).look()
    if seen.state == "failed":
        return FAILED, seen.reason or ""
    return (seen.state if seen.state == "finished" else UNFINISHED), ""
