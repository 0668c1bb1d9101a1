"""The compact form of a study, from which all tables and figures can be made again: three small files.

STEM.csv has a row for each finished cell, STEM.json the plan, what is not finished and the families, and
STEM.curves.csv the validations on the way.
"""

from __future__ import annotations

import csv
import io
import json
import math
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
from mohge.files import write_text_atomically

FORMAT = "mohge-sweep-results-1"
_REMAKE = "mohge-report sweep=DIR"
_KEYS = ("arm", "seed", "id")
_CURVE = ("arm", "seed", "tokens", "bits_per_byte", "active_measured")


def save_study(study: Study, table: Path) -> list[Path]:
    """Writes the three files of a study, and returns them.

    Args:
        study: to write.
        table: path of the .csv file; the others are beside it.

    Raises:
        UserError: the disk refuses.
    """
    texts = study_texts(study, table)
    for path, text in texts.items():
        write_text_atomically(path, text)
    return list(texts)


def study_texts(study: Study, table: Path) -> dict[Path, str]:
    """What the three files of a study hold; arguments as of `save_study`."""
    about = {
        "format": FORMAT,
        "plan": study.plan.as_dict(),
        "unfinished": [asdict(one) for one in study.unfinished],
        "families": [asdict(one) for one in study.families],
    }
    return {
        table: cells_csv(study.cells),
        table.with_suffix(".json"): json.dumps(about, indent=2) + "\n",
        _curves(table): _curves_csv(study.curves),
    }


def load_study(table: Path) -> Study:
    """A study from its three files.

    Raises:
        UserError: a file is missing, damaged or of another kind.
    """
    if not table.is_file():
        raise UserError(
            f"sweep={table} does not exist: give the folder of mohge-sweep, or a table of its cells"
        )
    beside = table.with_suffix(".json")
    for one in (beside, _curves(table)):  # curves tell which arms begin alike, and so what the noise is
        if not one.exists():
            raise UserError(
                f"{one} is missing: it belongs beside {table.name}; copy it too, or make all again with "
                f"{_REMAKE}"
            )
    data = read_object(beside)
    if data.get("format") != FORMAT:
        raise UserError(
            f"{beside} is not the plan of the sweep of {table.name}: make both again with {_REMAKE}"
        )
    try:
        plan = parse_plan(data["plan"], beside)
        unfinished = TypeAdapter(list[Unfinished]).validate_python(data["unfinished"])
        families = TypeAdapter(list[Family]).validate_python(data["families"])
    except (KeyError, AttributeError, ValidationError) as error:
        raise UserError(f"{beside} is damaged: make it again with {_REMAKE}") from error
    cells = [_cell(row, table) for row in _rows(table, (*_KEYS, *TEXTS))]
    curves = [_point(row, table) for row in _rows(_curves(table), _CURVE)]
    of_families = [arm for family in families for _, arm in family.levels]
    for arm in [*(cell.arm for cell in cells), *(point.arm for point in curves), *of_families]:
        if arm not in plan.arms:
            raise UserError(f"{table} has the arm {arm}, which {beside.name} lacks: make both again")
    seen = set()
    for cell in cells:
        if (cell.arm, cell.seed) in seen:
            raise UserError(f"{table} has {cell.arm} seed {cell.seed} twice: make it again with {_REMAKE}")
        seen.add((cell.arm, cell.seed))
    for arm in of_families:
        if all(cell.arm != arm for cell in cells):
            raise UserError(f"{table} lacks the arm {arm} of a family of {beside.name}: make both again")
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
    return str(int(value)) if float(value).is_integer() else repr(value)


def _rows(path: Path, needs: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            lacking = [name for name in needs if name not in (reader.fieldnames or ())]
            if lacking:
                raise UserError(f"{path} has no column {lacking[0]}: make it again with {_REMAKE}")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path} cannot be read as a table ({error}): make it again with {_REMAKE}"
        ) from error
    for row in rows:
        if None in row or None in row.values():
            raise UserError(
                f"{path} is damaged (the row of {row['arm']} seed {row['seed']} has not as many columns as "
                f"the first line): make it again with {_REMAKE}"
            )
    return rows


def _cell(row: dict[str, str], path: Path) -> Cell:
    figures = {name: text for name, text in row.items() if name not in (*_KEYS, *TEXTS)}
    try:
        return Cell(
            row["arm"],
            int(row["seed"]),
            row["id"],
            {name: row[name] for name in TEXTS},
            {name: _finite(text) for name, text in figures.items() if text},
        )
    except ValueError as error:
        raise _damaged(path, row) from error


def _point(row: dict[str, str], path: Path) -> CurvePoint:
    try:
        active = _finite(row["active_measured"]) if row["active_measured"] else None
        values = _finite(row["tokens"]), _finite(row["bits_per_byte"])
        return CurvePoint(row["arm"], int(row["seed"]), *values, active)
    except ValueError as error:
        raise _damaged(path, row) from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _damaged(path: Path, row: dict[str, str]) -> UserError:
    return UserError(
        f"{path} is damaged (the row of {row['arm']} seed {row['seed']} has no numbers where they belong): "
        f"make it again with {_REMAKE}"
    )
