"""Writing files so that a reader never sees half of one, and one process at a time."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from mohge.errors import UserError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary name beside `path`; on success it becomes `path`, on failure it is removed.

    The content is on the disk before it has the name, so that no power cut leaves half a file either.

    Raises:
        UserError: the disk refuses (full, read-only, file too large).
    """
    target = Path(path)
    temporary = _temporary(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {target}: {reason}; free space or give another folder") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; on success it becomes `path`, on failure it is removed.

    Raises:
        UserError: `path` is taken (`refuse_taken`), or the disk refuses.
    """
    refuse_taken(path)
    target = Path(path).resolve()
    temporary = _temporary(target)
    missing = list(itertools.takewhile(lambda parent: not parent.exists(), target.parents))
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.rename(temporary, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path}: {reason}; free space or give another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):  # not empty: all went well
            for parent in missing:
                parent.rmdir()


def _temporary(target: Path) -> Path:
    """A name beside `target` that no other process uses, of this host or of one that shares the folder."""
    host = re.sub(r"[^\w-]", "_", socket.gethostname())
    return target.with_name(f".{target.name}.{host}.{os.getpid()}.tmp")


def _flush(path: Path) -> None:
    """Sees to it that a file's content is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_taken(path: str | os.PathLike[str]) -> None:
    """Sees to it that a folder can be written as a whole.

    Raises:
        UserError: it exists and is no empty folder.
    """
    folder = Path(path)
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise UserError(f"{path} exists and is not an empty folder: delete it, or give another output=DIR")


@contextmanager
def locked(path: Path, purpose: str) -> Iterator[None]:
    """Holds an exclusive lock on `path`, waiting for other processes; the file is gone afterwards.

    Args:
        path: of the lock's own file.
        purpose: what the other process is doing, for the message while waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for another process that is {purpose} …", file=sys.stderr)
                fcntl.flock(file, fcntl.LOCK_EX)
            if not still_named(path, file):
                continue  # the process that held the lock has removed this file: lock its successor
            try:
                yield
            finally:
                path.unlink()
            return


def still_named(path: Path, file: IO[str]) -> bool:
    """Whether `path` is still the open file: its holder may have removed it before we got the lock."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Writes a whole text file, or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_atomically(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a whole JSON file, or nothing."""
    write_text_atomically(path, json.dumps(value, indent=2, allow_nan=True) + "\n")


def json_plain(value: Any) -> Any:
    """What JSON can hold: keys are texts, sequences lists, and NaN and infinities None."""
    if isinstance(value, Mapping):
        return {str(key): json_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
