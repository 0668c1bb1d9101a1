"""Checkpoints: written whole or not at all, verified before they are read, plain data only.

A checkpoint is a folder `step_00000100/` with
    shard-*.safetensors  weights and optimizer moments, one file for each rank that saved
    state.ckpt           counters, schedules, position in the data, configuration: what torch saves
    manifest.json        step, and size and SHA-256 of the files above
It is written under a temporary name and renamed, so a killed run leaves no half of one. Tensors are keyed by
the parameter's name and stored with their place in the whole (torch's distributed checkpoint, in
safetensors: its own format is pickled), so that any number of ranks in any mesh can read them.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from mohge.errors import UserError, first_line
from mohge.files import sha256_of, write_json_atomically
from mohge.parallel.world import barrier, first, gather, is_connected
from mohge.training.checkpoint_names import list_checkpoints, step_of

STATE = "state.ckpt"
MANIFEST = "manifest.json"


TENSORS = "tensors"
"""Key of a checkpoint under which a module hands over the tensors to save, by name."""


class VerifiedCheckpointIO(CheckpointIO):
    """Lightning's way to disk, with checksums, an atomic rename and no pickled code."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Writes the folder `path`. Collective: each rank writes the tensors that it holds.

        Raises:
            UserError: the disk refuses; on every rank.
        """
        target = Path(path)
        # The same name on every rank. It is of one run, whose folder is locked.
        temporary = target.with_name(f".{target.name}.tmp")
        tensors = checkpoint.pop(TENSORS)
        try:
            first(lambda: _begin(temporary, checkpoint))
            _write_tensors(tensors, temporary)
            files = _digests(temporary)
            first(lambda: _commit(temporary, target, checkpoint["global_step"], files))
        except (OSError, CheckpointException) as error:
            reason = _refusal(error)
            if reason is None:
                raise RuntimeError(f"checkpoint {target} cannot be written: {error}") from error
            raise UserError(
                f"cannot write checkpoint {target}: {reason}; free space, or continue with more "
                f"of it by resume={target.parent.parent}"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads all but the tensors (`load_tensors`); never unpickles code.

        Raises:
            UserError: the checkpoint is damaged.
        """
        return _read_state(Path(path))  # its checksums were looked at when it was chosen

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Deletes the folder."""
        shutil.rmtree(path, ignore_errors=True)


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what the checkpoint in folder `path` says beside its tensors, after looking at all checksums.

    Raises:
        UserError: it is damaged, or no checkpoint.
    """
    damage = find_damage(path)
    if damage is not None:
        raise UserError(f"checkpoint {path} is damaged ({damage}): use another, or start the run anew")
    return _read_state(Path(path))


def _read_state(folder: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    except Exception as error:  # of another kind or version
        raise UserError(
            f"{folder} is not a checkpoint of this program ({first_line(error)}): use another, or the "
            "version that wrote it"
        ) from error
    return state


def load_tensors(path: str | os.PathLike[str], tensors: dict[str, Tensor]) -> None:
    """Fills `tensors` in place with those that a checkpoint has under the same names. Collective.

    Args:
        path: the checkpoint's folder.
        tensors: plain or distributed, in any layout.

    Raises:
        UserError: the checkpoint lacks one of them, or has it in another shape.
    """
    reader = dcp.HuggingFaceStorageReader(str(path))
    try:
        with _alone_is_fine():
            dcp.load(tensors, storage_reader=reader, no_dist=not is_connected())
    except CheckpointException as error:
        reasons = {first_line(failure) for failure, _ in error.failures.values()}
        raise UserError(
            f"{path} does not hold the tensors of this model ({'; '.join(reasons)}): continue with the code "
            "that wrote it, or start a new run without resume"
        ) from error


def read_tensors(path: str | os.PathLike[str], prefix: str) -> dict[str, Tensor]:
    """The whole tensors of a checkpoint whose names begin with `prefix`, which is cut off."""
    metadata = dcp.HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in metadata.items()
        if name.startswith(prefix) and isinstance(entry, TensorStorageMetadata)
    }
    with _alone_is_fine():
        dcp.load(dict(tensors), storage_reader=dcp.HuggingFaceStorageReader(str(path)), no_dist=True)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def find_damage(path: str | os.PathLike[str], *, checksums: bool = True) -> str | None:
    """What is wrong with a checkpoint folder, or None when it is intact.

    Args:
        path: of the folder.
        checksums: whether every file is read; else its size has to do.
    """
    folder = Path(path)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is unreadable"
    for name, (size, sha256) in {STATE: (0, ""), **files}.items():
        file = folder / name
        if name not in files or not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes instead of {size}"
        if checksums and sha256_of(file) != sha256:
            return f"{name} does not match its checksum"
    return None


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


def _begin(temporary: Path, checkpoint: dict[str, Any]) -> None:
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed run
    temporary.mkdir(parents=True)
    with open(temporary / STATE, "wb") as file:
        try:
            torch.save(checkpoint, file)
        except RuntimeError as error:  # how torch reports a refused write
            raise OSError(errno.ENOSPC, "the disk takes no more") from error
        file.flush()
        os.fsync(file.fileno())


def _write_tensors(tensors: dict[str, Tensor], folder: Path) -> None:
    writer = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with _alone_is_fine():
        dcp.save(tensors, storage_writer=writer, no_dist=not is_connected())


@contextmanager
def _alone_is_fine() -> Iterator[None]:
    """Keeps torch from remarking that a process has no others to save or load with."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield


def _digests(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and checksum of each file, each computed by one of the ranks."""
    barrier()
    names = sorted(path.name for path in folder.iterdir())
    index, ranks = (dist.get_rank(), dist.get_world_size()) if is_connected() else (0, 1)
    mine = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)}
        for name in names[index::ranks]
    }
    return {name: entry for part in gather(mine) for name, entry in part.items()}


def _commit(temporary: Path, target: Path, step: int, files: dict[str, dict[str, Any]]) -> None:
    manifest = {"step": step, "files": dict(sorted(files.items()))}
    write_json_atomically(temporary / MANIFEST, manifest)
    if target.exists():
        shutil.rmtree(target)
    os.rename(temporary, target)


def _refusal(error: BaseException) -> str | None:
    """Why the disk refused, if that is what the error says, on this rank or another."""
    if isinstance(error, CheckpointException):
        reasons = (_refusal(failure) for failure, _ in error.failures.values())
        return next((reason for reason in reasons if reason is not None), None)
    return (error.strerror or str(error)) if isinstance(error, OSError) else None
