"""Names of checkpoint folders: step_00000100, by the optimizer steps that were done. Without torch."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"step_[0-9]+")


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders of a run's `checkpoints/`, oldest first; a user's own step_00000100_old is none."""
    found = (path for path in folder.glob("step_*") if _NAME.fullmatch(path.name) and path.is_dir())
    return sorted(found, key=step_of)


def checkpoint_name(step: int) -> str:
    """Folder name of the checkpoint after `step` optimizer steps."""
    return f"step_{step:08d}"


def step_of(path: Path) -> int:
    """Optimizer steps after which the checkpoint was saved."""
    return int(path.name.removeprefix("step_"))
