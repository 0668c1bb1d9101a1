"""How the processes of a sweep are told to stop: by a signal, or by the end of the command they work for."""

from __future__ import annotations

import contextlib
import fcntl
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from mohge.files import still_named
from mohge.sweep.locks import is_locked

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
"""Ctrl-C, the system's request, and SLURM's announcement of the end of a job's time (through submitit)."""


class Signals:
    """Remembers signals instead of dying of them, while it is used as a context."""

    def __init__(self) -> None:
        self.received: list[int] = []

    def __enter__(self) -> Signals:
        self._before = {number: signal.signal(number, self._remember) for number in _SIGNALS}
        return self

    def __exit__(self, *unused: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)


@contextlib.contextmanager
def lifeline(path: Path) -> Iterator[None]:
    """A file that is locked as long as this process wants its workers to work, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(f"*{path.suffix}"):
        _remove_cut(old)
    while True:
        with path.open("w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not still_named(path, file):
                continue  # another command took it for that of a killed one, before it was locked
            try:
                yield
            finally:
                path.unlink()
            return


def _remove_cut(path: Path) -> None:
    """Removes the lifeline of a command that was killed."""
    with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if still_named(path, file):
            path.unlink()


def is_cut(path: Path) -> bool:
    """Whether the process that held a lifeline has let it go."""
    return not is_locked(path)
