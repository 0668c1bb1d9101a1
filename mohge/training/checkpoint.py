"""Checkpoints: written whole or not at all, verified before they are read, plain data only.

A checkpoint is a folder `step_00000100/` with `state.ckpt`, what torch saves, and `manifest.json`, its
size and SHA-256. It is written under a temporary name and renamed, so a killed run leaves no half of one.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from mohge.errors import UserError
from mohge.files import sha256_of, write_json_atomically

STATE = "state.ckpt"
MANIFEST = "manifest.json"


class VerifiedCheckpointIO(CheckpointIO):
    """Lightning's way to disk, with a checksum, an atomic rename and `weights_only` loading."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Writes the folder `path`.

        Raises:
            UserError: the disk refuses.
        """
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            shutil.rmtree(temporary, ignore_errors=True)  # of a killed process that had this number
            temporary.mkdir(parents=True)
            with open(temporary / STATE, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            manifest = {
                "step": checkpoint["global_step"],
                "bytes": (temporary / STATE).stat().st_size,
                "sha256": sha256_of(temporary / STATE),
            }
            write_json_atomically(temporary / MANIFEST, manifest)
            if target.exists():
                shutil.rmtree(target)
            os.rename(temporary, target)
        except (OSError, RuntimeError) as error:  # torch reports a refused write as RuntimeError
            reason = error.strerror if isinstance(error, OSError) else "the disk takes no more"
            raise UserError(
                f"cannot write checkpoint {target}: {reason}; free space, or continue with more "
                f"of it by resume={target.parent.parent}"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads a checkpoint after checking its checksum; never unpickles code.

        Raises:
            UserError: the checkpoint is damaged.
        """
        return load_checkpoint(path, map_location or "cpu")

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Deletes the folder."""
        shutil.rmtree(path, ignore_errors=True)


def load_checkpoint(path: str | os.PathLike[str], map_location: Any = "cpu") -> dict[str, Any]:
    """Reads the checkpoint in folder `path`.

    Raises:
        UserError: it is damaged, or no checkpoint.
    """
    damage = find_damage(path)
    if damage is not None:
        raise UserError(f"checkpoint {path} is damaged ({damage}): use another, or start the run anew")
    try:
        state: dict[str, Any] = torch.load(Path(path) / STATE, map_location=map_location, weights_only=True)
    except Exception as error:  # the checksum holds, so it is a file of another kind or version
        raise UserError(f"{path} is not a checkpoint of this program ({_first_line(error)})") from error
    return state


def find_damage(path: str | os.PathLike[str]) -> str | None:
    """What is wrong with a checkpoint folder, or None when it is intact."""
    folder = Path(path)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        expected_bytes, expected_sha256 = manifest["bytes"], manifest["sha256"]
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} is unreadable"
    state = folder / STATE
    if not state.is_file():
        return f"{STATE} is missing"
    if state.stat().st_size != expected_bytes:
        return f"{STATE} has {state.stat().st_size} bytes instead of {expected_bytes}"
    if sha256_of(state) != expected_sha256:
        return f"{STATE} does not match its checksum"
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders of a run's `checkpoints/`, oldest first."""
    return sorted(path for path in folder.glob("step_*") if path.is_dir())


def checkpoint_name(step: int) -> str:
    """Folder name of the checkpoint after `step` optimizer steps."""
    return f"step_{step:08d}"


def step_of(path: Path) -> int:
    """Optimizer steps after which the checkpoint was saved."""
    return int(path.name.removeprefix("step_"))


def newest_intact(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest intact checkpoint of a run's `checkpoints/`, and a sentence for each damaged newer one.

    Returns:
        None and no sentences when there is no checkpoint at all.

    Raises:
        UserError: there are checkpoints, and all are damaged.
    """
    damaged: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        damage = find_damage(path)
        if damage is None:
            return path, damaged
        damaged.append(f"checkpoint {path} is damaged ({damage})")
    if damaged:
        raise UserError(f"{'; '.join(damaged)}; no intact one is left: start the run anew")
    return None, []


def discard_after(folder: Path, checkpoint: Path | None) -> None:
    """Deletes the checkpoints that a continued run will write again: newer ones, which are damaged.

    Args:
        folder: a run's `checkpoints/`.
        checkpoint: where the run continues; None from the start.
    """
    step = step_of(checkpoint) if checkpoint else 0
    for path in list_checkpoints(folder):
        if step_of(path) > step:
            shutil.rmtree(path, ignore_errors=True)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
