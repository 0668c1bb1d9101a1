"""The compact form of a study, from which all tables and figures can be made again: three small files.

STEM.csv has a row for each finished cell, STEM.json the plan, what is not finished and the families, and
STEM.curves.csv the validations on the way.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from evaluation.run_data import read_object
from evaluation.sweeps.cells import TEXTS, Cell, CurvePoint, in_order
from evaluation.sweeps.families import Family
from evaluation.sweeps.plan import parse_plan
from evaluation.sweeps.study import Study, Unfinished
from mohge.errors import UserError
from mohge.files import write_json_atomically, write_text_atomically

FORMAT = "mohge-sweep-results-1"
_REMAKE = "mohge-report sweep=DIR"
_KEYS = ("arm", "seed", "id")
_CURVE = ("arm", "seed", "tokens", "bits_per_byte", "active_measured")


def save_study(study: Study, table: Path) -> list[Path]:
    """Writes the three files of a study.

    Args:
        study: to write.
        table: path of the .csv file; the others are beside it.

    Returns:
        The files.

    Raises:
        UserError: the disk refuses.
    """
    texts = {table: cells_csv(study.cells), _curves(table): _curves_csv(study.curves)}
    for path, text in texts.items():
        write_text_atomically(path, text)
    write_json_atomically(
        table.with_suffix(".json"),
        {
            "format": FORMAT,
            "plan": study.plan.as_dict(),
            "unfinished": [asdict(one) for one in study.unfinished],
            "families": [asdict(one) for one in study.families],
        },
    )
    return [table, table.with_suffix(".json"), _curves(table)]


def load_study(table: Path) -> Study:
    """A study from its three files; without the curves if their file is not there.

    Raises:
        UserError: a file is missing, damaged or of another kind.
    """
    if not table.is_file():
        raise UserError(
            f"sweep={table} does not exist: give the folder of mohge-sweep, or a table of its cells"
        )
    beside = table.with_suffix(".json")
    data = read_object(beside) if beside.exists() else {}
    if data.get("format") != FORMAT:
        raise UserError(
            f"{beside} is not the plan of the sweep of {table.name}: make both again with {_REMAKE}"
        )
    plan = parse_plan(data["plan"], beside)
    try:
        unfinished = TypeAdapter(list[Unfinished]).validate_python(data["unfinished"])
        families = TypeAdapter(list[Family]).validate_python(data["families"])
    except (KeyError, ValidationError) as error:
        raise UserError(f"{beside} is damaged: make it again with {_REMAKE}") from error
    cells = [_cell(row, table) for row in _rows(table, (*_KEYS, *TEXTS))]
    for cell in cells:
        if cell.arm not in plan.arms:
            raise UserError(f"{table} has the arm {cell.arm}, which {beside.name} lacks: make both again")
    curves = [_point(row, table) for row in _rows(_curves(table), _CURVE)] if _curves(table).exists() else []
    return Study(plan, cells, unfinished, families, curves)


def cells_csv(cells: Sequence[Cell]) -> str:
    """A row for each cell: arm, seed, id, texts, figures."""
    names = in_order({name for cell in cells for name in cell.figures})
    rows = [
        [
            *(cell.arm, cell.seed, cell.id),
            *(cell.texts[name] for name in TEXTS),
            *(_number(cell.figures.get(name)) for name in names),
        ]
        for cell in cells
    ]
    return _csv([*_KEYS, *TEXTS, *names], rows)


def _curves_csv(curves: Sequence[CurvePoint]) -> str:
    rows = [
        [
            *(point.arm, point.seed),
            *map(_number, (point.tokens, point.bits_per_byte, point.active_measured)),
        ]
        for point in curves
    ]
    return _csv(_CURVE, rows)


def _curves(table: Path) -> Path:
    return table.with_suffix(".curves.csv")


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if value == int(value) else repr(value)


def _rows(path: Path, needs: Sequence[str]) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        lacking = [name for name in needs if name not in (reader.fieldnames or ())]
        if lacking:
            raise UserError(f"{path} has no column {lacking[0]}: make it again with {_REMAKE}")
        return list(reader)


def _cell(row: dict[str, str], path: Path) -> Cell:
    figures = {name: text for name, text in row.items() if name not in (*_KEYS, *TEXTS)}
    try:
        return Cell(
            row["arm"],
            int(row["seed"]),
            row["id"],
            {name: row[name] for name in TEXTS},
            {name: float(text) for name, text in figures.items() if text},
        )
    except (ValueError, TypeError) as error:
        raise _damaged(path, row) from error


def _point(row: dict[str, str], path: Path) -> CurvePoint:
    try:
        active = float(row["active_measured"]) if row["active_measured"] else None
        values = float(row["tokens"]), float(row["bits_per_byte"])
        return CurvePoint(row["arm"], int(row["seed"]), *values, active)
    except (ValueError, TypeError) as error:
        raise _damaged(path, row) from error


def _damaged(path: Path, row: dict[str, str]) -> UserError:
    return UserError(
        f"{path} is damaged (the row of {row['arm']} seed {row['seed']} has no numbers where they belong): "
        f"make it again with {_REMAKE}"
    )
