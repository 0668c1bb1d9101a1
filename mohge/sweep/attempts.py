"""Who has tried a cell, how that ended, and who may try it now.

A cell's log of attempts is also its lock: a worker holds it while it runs the cell, and hands the open file
to the training process, so that the cell stays taken where the worker is killed and training goes on.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import AwareDatetime, TypeAdapter

from mohge.errors import UserError
from mohge.sweep.locks import is_locked
from mohge.training.run_folder import RunFolder

State = Literal["finished", "running", "failed", "stopped", "waiting"]


@dataclass(frozen=True)
class Attempt:
    """A line of the log."""

    event: Literal["start", "end"]
    time: AwareDatetime
    worker: str
    """Host and process."""
    invocation: str
    """Which call of mohge-sweep the worker belongs to."""
    status: int | None = None
    """At the end: exit status, minus the signal's number if one killed the process; None where the cell was
    interrupted, which says nothing about it."""
    reason: str | None = None
    """At the end: why the cell is not finished."""


_ATTEMPT = TypeAdapter(Attempt)


@dataclass(frozen=True)
class Seen:
    """A cell as its files show it."""

    state: State
    reason: str | None
    """Why it failed, if it has."""
    status: dict[str, Any]
    """What the run notes of itself; empty before it has begun, and where that is damaged."""
    attempts: list[Attempt]


class CellFolder:
    """The files of one cell.

    Args:
        folder: of the sweep's cells.
        cell: id of the cell.
    """

    def __init__(self, folder: Path, cell: str):
        self.run = RunFolder(folder / cell)
        self.attempts_path = folder / f"{cell}.attempts.jsonl"
        self.log_path = folder / f"{cell}.log"

    @property
    def finished(self) -> bool:
        """Whether the run is done."""
        return self.status()[0].get("state") == "finished"

    @property
    def damaged(self) -> bool:
        """Whether what the run notes of itself cannot be read."""
        return self.status()[1] is not None

    @property
    def taken(self) -> bool:
        """Whether a worker, or what a killed one has left running, holds the cell."""
        return is_locked(self.attempts_path)

    def status(self) -> tuple[dict[str, Any], str | None]:
        """What the run notes of itself, empty before it has begun, and why that cannot be read, if so."""
        try:
            return self.run.read_status(), None
        except UserError as error:
            return {}, str(error)

    def attempts(self) -> list[Attempt]:
        """The log so far; a line that cannot be read is none."""
        if not self.attempts_path.exists():
            return []
        found = []
        for line in self.attempts_path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # the last line of a killed worker may be half a line
                found.append(_ATTEMPT.validate_json(line))
        return found

    def look(self) -> Seen:
        """How far the cell is.

        One whose status is damaged, as by a power cut, has failed: nobody can tell how far it is.
        """
        taken = self.taken  # first: what is read of a cell that nobody holds is how it was left
        (status, damage), attempts = self.status(), self.attempts()
        if status.get("state") == "finished":
            return Seen("finished", None, status, attempts)
        if taken:
            return Seen("running", None, status, attempts)
        if damage is not None:
            return Seen("failed", damage, status, attempts)
        if (failed := failure(attempts)) is not None:
            return Seen("failed", failed.reason or f"exit status {failed.status}", status, attempts)
        return Seen("stopped" if attempts else "waiting", None, status, attempts)


def failure(attempts: list[Attempt]) -> Attempt | None:
    """The end of the last attempt, if that has failed; an interrupted or killed worker's has not."""
    last = attempts[-1] if attempts else None
    return last if last is not None and last.event == "end" and last.status not in (None, 0) else None


def may_start(attempts: list[Attempt], invocation: str, retry: bool) -> bool:
    """Whether a cell that is neither finished nor taken is to be run.

    What fails is not tried twice in one invocation, also where another works on the same sweep meanwhile. A
    later one tries it again if it was killed, perhaps for lack of memory, or else when it is asked to.
    """
    failed = failure(attempts)
    if failed is None:
        return True
    assert failed.status is not None
    tried = any(failure([attempt]) and attempt.invocation == invocation for attempt in attempts)
    return not tried and (retry or failed.status < 0)


class Claim:
    """A cell that this process holds.

    Args:
        file: its log, locked.
        invocation: that the worker belongs to.
    """

    def __init__(self, file: IO[str], invocation: str):
        self._file = file
        self._invocation = invocation

    @property
    def descriptor(self) -> int:
        """Of the locked file: a process that inherits it holds the cell too."""
        return self._file.fileno()

    def note(
        self, event: Literal["start", "end"], status: int | None = None, reason: str | None = None
    ) -> None:
        """Adds a line to the log."""
        line = {
            "event": event,
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "worker": f"{socket.gethostname()}:{os.getpid()}",
            "invocation": self._invocation,
            "status": status,
            "reason": reason,
        }
        self._file.seek(0)
        text = self._file.read()
        whole = not text or text.endswith("\n")  # else a worker was killed while it wrote
        self._file.write(("" if whole else "\n") + json.dumps(line) + "\n")
        self._file.flush()


@contextlib.contextmanager
def claimed(cell: CellFolder, invocation: str) -> Iterator[Claim | None]:
    """Holds a cell for this process; None if another has it.

    A run that someone continues by hand is somebody else's too.
    """
    cell.attempts_path.parent.mkdir(parents=True, exist_ok=True)
    with cell.attempts_path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield None if is_locked(cell.run.path / ".lock") else Claim(file, invocation)
