"""Which runs a user means: a run's folder, a comparison's, or any folder above runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mohge.errors import UserError
from mohge.sweep.cells import CELLS, SWEEP, read_plan
from mohge.training.run_folder import CONFIG, STATUS, RunFolder

_LONGEST = 34
"""Characters of a name that labels of charts have room for."""
_REMEDY = "give the folder of a run of mohge-train, or one above it"


def find_runs(given: Sequence[str]) -> dict[str, Path]:
    """All runs in the folders and below them, by a name that tells them apart, in the order given.

    A name is what a run's path does not share with the others: `mohge` and `moe` of a comparison,
    `nano-mohge/2026-01-31_12-00-00` of a folder of runs; of long ones the end, if that tells them apart. A
    run of a sweep is named by its arm and seed instead of its folder: `sweeps/smoke/moe-seed1`.

    Args:
        given: paths as the user wrote them; ~ is the home folder.

    Raises:
        UserError: a folder does not exist, or holds no run.
    """
    found: list[Path] = []
    for name in given:
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise UserError(f"runs={name} is no folder: {_REMEDY}")
        below = [path for path in _below(folder.resolve()) if path not in found]
        if not below and not any(path.is_relative_to(folder.resolve()) for path in found):
            raise UserError(f"runs={name} holds no run: {_REMEDY}")
        found += below
    if not found:
        raise UserError(f"runs=[] names no folder: {_REMEDY}")
    return dict(zip(_names(found), found, strict=True))


def _below(folder: Path) -> list[Path]:
    """Run folders, sorted; a comparison's folder is no run, those of its arms are."""
    runs = []
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        # MLflow keeps copies of configurations among its artifacts, without a status.
        is_run = CONFIG in files and (STATUS in files or Path(path) == folder)
        if is_run and not _is_comparison(Path(path)):
            runs.append(Path(path))
            folders.clear()
    return runs


def _is_comparison(folder: Path) -> bool:
    try:
        return bool(RunFolder(folder).read_config().get("comparison"))
    except UserError:
        return False  # a damaged run: whoever reads it says so


def _names(folders: Sequence[Path]) -> list[str]:
    paths = [_called(folder) for folder in folders]
    if len(paths) == 1:
        return ["/".join(paths[0].parts[-2:])]
    shared = Path(os.path.commonpath(paths))
    names = [path.relative_to(shared).as_posix() for path in paths]
    short = [_end(name) for name in names]
    return short if len(set(short)) == len(short) else names


def _called(folder: Path) -> Path:
    """The path that a run is named by: where it is, but SWEEP/ARM-seedN for SWEEP/cells/ID of a sweep."""
    sweep = folder.parent.parent
    if folder.parent.name != CELLS or not (sweep / SWEEP).is_file():
        return folder
    try:
        cells = read_plan(sweep).cells
    except UserError:
        return folder  # its runs can be reported without it
    found = (f"{cell.arm}-seed{cell.seed}" for cell in cells if cell.id == folder.name)
    return sweep / next(found, f"{CELLS}/{folder.name}")


def _end(name: str) -> str:
    """The last parts of a long name, which tell runs apart where labels have no room for all."""
    if len(name) <= _LONGEST:
        return name
    *parts, end = name.split("/")
    for part in reversed(parts):
        if len(f"…/{part}/{end}") > _LONGEST:
            break
        end = f"{part}/{end}"
    return f"…/{end}"
