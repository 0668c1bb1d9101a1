"""Runs for the walk-throughs to look at."""

from __future__ import annotations

import os
from pathlib import Path

from mohge.errors import UserError
from mohge.sweep.cells import SWEEP
from mohge.training.run_folder import STATUS, RunFolder

MULTIRUN = "multirun"
"""Folder, below that of all runs, where those of `-m` are."""


def latest_runs(*archs: str) -> list[Path]:
    """Folders of the latest finished runs of these architectures that were trained side by side.

    They are looked for below $MOHGE_RUNS, or else below the first `outputs` in the current folder or one
    above it. Side by side is in one folder, where a comparison puts its arms. Runs of a multirun or of
    mohge-sweep do not count: they are often short, and many.

    Args:
        archs: as `arch_name` of their configuration, in the order of the result.

    Raises:
        UserError: there are none.
    """
    root = runs_root()
    statuses = [path for path in root.rglob(STATUS) if not _is_one_of_many(path.parent, root)]
    for status in sorted(statuses, key=lambda path: path.stat().st_mtime, reverse=True):
        beside = {_arch(path): path for path in sorted(status.parent.parent.iterdir()) if _finished(path)}
        if _arch(status.parent) in archs and set(archs) <= beside.keys():
            return [beside[arch] for arch in archs]
    raise UserError(
        f"{root} holds no finished run of {' beside '.join(archs)}: make some with `make train` (minutes), "
        "or set MOHGE_RUNS to a folder of runs"
    )


def runs_root() -> Path:
    """The folder that `latest_runs` looks in, which need not exist."""
    given = os.environ.get("MOHGE_RUNS")
    if given:
        return Path(given).expanduser().resolve()
    here = Path.cwd()
    found = [folder / "outputs" for folder in (here, *here.parents) if (folder / "outputs").is_dir()]
    return (found or [here / "outputs"])[0]


def _is_one_of_many(folder: Path, root: Path) -> bool:
    """Whether a run is of a multirun, or SWEEP_DIR/cells/ID of a sweep."""
    return MULTIRUN in folder.relative_to(root).parts or (folder.parent.parent / SWEEP).is_file()


def _finished(folder: Path) -> bool:
    run = RunFolder(folder)
    return run.checkpoints_dir.is_dir() and run.read_status().get("state") == "finished"


def _arch(folder: Path) -> str | None:
    run = RunFolder(folder)
    return run.read_config()["arch_name"] if run.exists else None
