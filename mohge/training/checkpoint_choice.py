"""Which checkpoint a user means: a run's folder stands for its newest intact one.

Nothing here imports torch before it is known that the name leads to a checkpoint.
"""

from __future__ import annotations

import logging
from pathlib import Path

from mohge.errors import UserError
from mohge.training.run_folder import RunFolder

log = logging.getLogger(__name__)

# Constants of mohge.training.checkpoint, which takes seconds to import.
_FILES = ("manifest.json", "state.ckpt")
# A constant of mohge.sweep.cells, which builds on this package.
_SWEEP = "sweep.json"

_REMEDY = "give a run's folder, one of its checkpoints/step_… folders, or a file in one"


def choose_checkpoint(named: str) -> Path:
    """The folder of the checkpoint that `checkpoint=named` means, with all its checksums looked at.

    Damaged checkpoints of a run that are newer than the one chosen are told in the log.

    Args:
        named: a run's folder, a checkpoint's folder, or a file in one; ~ is the home folder.

    Raises:
        UserError: there is none, it is damaged, or the folder is that of a comparison, which has several.
    """
    path = Path(named).expanduser()
    if not path.exists():
        raise UserError(f"checkpoint={named} does not exist: {_REMEDY}")
    folder = path.parent if path.is_file() else path
    single = run_of(folder) is not None or any((folder / name).is_file() for name in _FILES)
    if not single:
        _check_run(path)

    from mohge.training.checkpoint import find_damage, newest_intact

    if single:
        damage = find_damage(folder)
        if damage is not None:
            raise UserError(f"checkpoint={named} is damaged ({damage}): use another of its run")
        return folder
    newest, damaged = newest_intact(RunFolder(path).checkpoints_dir)
    if newest is None:
        raise UserError(
            f"checkpoint={named} is a run that has saved nothing: continue it with resume={named}"
        )
    for sentence in damaged:
        log.warning("%s; using %s", sentence, newest)
    return newest


def run_of(checkpoint: Path) -> RunFolder | None:
    """The run that a checkpoint's folder is in; None for one that is elsewhere, as a copy may be."""
    folder = checkpoint.resolve()
    run = RunFolder(folder.parent.parent)
    return run if run.checkpoints_dir == folder.parent else None


def _check_run(path: Path) -> None:
    """Refuses what is not the folder of one run."""
    run = RunFolder(path)
    if run.checkpoints_dir.is_dir():
        return
    if (path / _SWEEP).is_file():
        raise UserError(
            f"checkpoint={path} is a sweep of several runs: give one of them, {path}/cells/ID (mohge-report "
            f"sweep={path} shows all)"
        )
    if not run.exists:
        raise UserError(f"checkpoint={path} is neither a run nor a checkpoint: {_REMEDY}")
    comparison = run.read_config().get("comparison")
    if comparison:
        arms = ", ".join(str(path / name) for name in comparison["arms"])
        raise UserError(f"checkpoint={path} is a comparison of several runs: give one of {arms}")
