"""A worker: runs one cell after another, each in a process of its own, until none is left for it.

`python -m mohge.sweep.worker` reads its job as JSON from standard input.
"""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from pydantic import TypeAdapter

from mohge.errors import UserError, disk_refusal, first_line
from mohge.sweep.attempts import CellFolder, Claim, claimed, may_start
from mohge.sweep.cells import CELL_VARIABLE, CELLS, Cell
from mohge.sweep.stopping import Signals, is_cut
from mohge.training.run_folder import STATUS

TRAIN = (sys.executable, "-m", "mohge.apps.train")
_POLL = 0.2  # seconds between looks at a running cell and at who wants this worker to stop
_WAIT = 1.0  # seconds between looks for a cell, while others run those that are left
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux
_SHARE = Path("/proc/self/autogroup")
"""The niceness of a session as a whole, on Linux: a process's own counts only inside its session."""
_SHARE_TRIES = 25
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Job:
    """What a worker is to do."""

    folder: str
    """Of the sweep."""
    cells: list[Cell]
    """In the order in which they are tried."""
    invocation: str
    """Name of the call of mohge-sweep."""
    retry: bool
    """Whether cells that have failed are tried again."""
    presets: str | None
    """Folder of the user's own presets, --config-dir of the command."""
    lifeline: str | None
    """File whose lock somebody holds as long as the worker is wanted; None for a worker that outlives all."""

    def to_json(self) -> str:
        """As `from_json` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """What `to_json` wrote."""
        return TypeAdapter(cls).validate_json(text)


class _Stop:
    """Whether the worker is to stop."""

    def __init__(self, signals: Signals, lifeline: str | None):
        self._signals = signals
        self._lifeline = Path(lifeline) if lifeline is not None else None

    @property
    def asked(self) -> bool:
        return bool(self._signals.received) or (self._lifeline is not None and is_cut(self._lifeline))

    @property
    def at_once(self) -> bool:
        """Told twice: without saving."""
        return len(self._signals.received) > 1

    @property
    def status(self) -> int:
        """Exit status of a worker that was stopped."""
        return 128 + (self._signals.received[0] if self._signals.received else signal.SIGTERM)


def work(job: Job) -> int:
    """Runs cells until each is finished, has failed, or the worker is told to stop.

    While others run the last ones it waits, to take over if they are killed.

    Returns:
        Exit status: 0, or 128 and the number of the signal that it was stopped by.
    """
    folder = Path(job.folder) / CELLS
    with Signals() as signals:
        stop = _Stop(signals, job.lifeline)
        while not stop.asked:
            tried, others_run = False, False
            for cell in job.cells:
                files = CellFolder(folder, cell.id)
                if files.finished and _is_noted(files):
                    continue
                if not files.finished and not _may_start(files, job):
                    continue
                with claimed(files, job.invocation) as claim:
                    if claim is None:
                        others_run = True
                        continue
                    if files.finished:
                        if not _is_noted(files):
                            began = bool(files.attempts())
                            claim.note("end", 0, "its worker was killed" if began else "finished elsewhere")
                        continue
                    # Somebody else may have tried it since we looked.
                    if not _may_start(files, job):
                        continue
                    _run(job, cell, files, claim, stop)
                    tried = True
                    break  # look from the first again: a killed worker may have left one
            if tried:
                continue
            if not others_run:
                return 0
            _sleep(_WAIT, stop)
        return stop.status


def main() -> None:
    """A worker in a process of its own; 2 is its exit status where it could not go on."""
    job = Job.from_json(sys.stdin.read())
    try:
        status = work(job)
    except (UserError, OSError) as error:
        reason = disk_refusal(error) or first_line(error)
        print(f"error: a worker of {job.folder} stopped: {reason}", file=sys.stderr)
        status = 2
    sys.exit(status)


def _may_start(files: CellFolder, job: Job) -> bool:
    """Whether a cell that is neither finished nor taken is to be run: a damaged one if it is asked for."""
    return (job.retry or not files.damaged) and may_start(files.attempts(), job.invocation, job.retry)


def _is_noted(files: CellFolder) -> bool:
    return any(attempt.event == "end" and attempt.status == 0 for attempt in files.attempts())


def _run(job: Job, cell: Cell, files: CellFolder, claim: Claim, stop: _Stop) -> None:
    """Runs a cell to its end, or until it has saved its state, and notes how that was."""
    if files.damaged:
        (files.run.path / STATUS).unlink()  # the run goes on from its newest checkpoint, and makes it anew
    arguments = _arguments(job, cell, files)
    with files.log_path.open("ab") as log:
        log.write(f"\n$ mohge-train {shlex.join(arguments)}\n".encode())
        log.flush()
        begin = log.tell()
        claim.note("start")
        process = start([*TRAIN, *arguments], log, claim.descriptor, cell.id)
        told = False
        while (status := _poll(process)) is None:
            if stop.asked and not told:
                process.send_signal(signal.SIGTERM)
                told = True
            if stop.at_once:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    if files.finished:
        claim.note("end", 0)
    elif told or status in (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGTERM):
        claim.note("end", None, "interrupted")
    else:
        claim.note("end", status, _reason(files, begin, status))


def _arguments(job: Job, cell: Cell, files: CellFolder) -> list[str]:
    """Of mohge-train, for a cell that begins or continues."""
    run = files.run
    if run.exists and not (run.path / "environment.json").exists():
        # Killed while its first facts were written: nothing was trained, and it is to have all of them.
        (run.path / "config.yaml").unlink()
    if run.exists:
        return [f"resume={quoted(run.path)}"]
    return [
        *(["--config-dir", job.presets] if job.presets is not None else []),
        *cell.overrides,
        f"paths.run_dir={quoted(run.path)}",
        f"logger.group={quoted(job.folder)}",
        f"logger.run_name={quoted(cell.name)}",
    ]


def quoted(value: str | Path) -> str:
    """A text as a value in Hydra's grammar."""
    text = str(value).replace("\\", "\\\\") if str(value).endswith("\\") else str(value)
    return "'" + text.replace("'", "\\'") + "'"


def start(command: list[str], log: IO[bytes], held: int, cell: str) -> subprocess.Popen[bytes]:
    """Starts a process in a session of its own, that holds a file, and is told to stop if this one dies.

    It is told which cell it is to train too.
    """
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=[held],
        env=os.environ | {CELL_VARIABLE: cell},
        preexec_fn=follow(os.getpid()),
    )


def follow(parent: int) -> Callable[[], None]:
    """What a new process calls to be as nice as its parent, and to get SIGTERM if that dies.

    Upon SIGTERM training saves and leaves.
    """

    def follow_parent() -> None:
        niceness = os.getpriority(os.PRIO_PROCESS, 0)
        if niceness:
            _share(niceness)
        if _LIBC is None:
            return
        _LIBC.prctl(_DIE_WITH_PARENT, signal.SIGTERM)
        if os.getppid() != parent:  # it has died in between
            os.kill(os.getpid(), signal.SIGKILL)

    return follow_parent


def _share(niceness: int) -> None:
    """Makes this session, which has begun by now, as nice as its process: a courtesy, never a reason to fail.

    Linux lets others than root do so ten times a second, all sessions of the machine together.
    """
    for _ in range(_SHARE_TRIES):
        try:
            _SHARE.write_text(str(niceness))
        except BlockingIOError:
            time.sleep(_POLL)
        except OSError:  # no such groups here, or not ours to change
            return
        else:
            return


def _poll(process: subprocess.Popen[bytes]) -> int | None:
    """The exit status of a process, as soon as it has ended; None if it has not for a while."""
    try:
        return process.wait(_POLL)
    except subprocess.TimeoutExpired:
        return None


def _sleep(seconds: float, stop: _Stop) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stop.asked:
        time.sleep(_POLL)


def _reason(files: CellFolder, begin: int, status: int) -> str:
    """Why a cell failed, in one line: its error sentence, or what there is instead."""
    if status < 0:
        name = next((item.name for item in signal.Signals if item == -status), f"signal {-status}")
        hint = ", perhaps for lack of memory (dmesg tells)" if -status == signal.SIGKILL else ""
        return f"killed by {name}{hint}"
    with files.log_path.open("rb") as log:
        log.seek(begin)
        lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    told = [*lines[-1:], *errors[-1:]]
    return told[-1] if told else f"exit status {status} without a word"


if __name__ == "__main__":
    main()
