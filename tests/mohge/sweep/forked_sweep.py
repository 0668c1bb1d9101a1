"""mohge-sweep with everything real but the start of Python: workers and training are forked, imports done.

A sweep, its workers and their cells are still processes of their own, in sessions of their own, which can be
killed one by one.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import psutil
from commands import Finished  # which says what the forks have imported
from hydra.core.global_hydra import GlobalHydra

from mohge.sweep import launchers, worker
from mohge.sweep.cells import CELL_VARIABLE

_FORKS = multiprocessing.get_context("forkserver")


class Sweep:
    """A running mohge-sweep.

    Args:
        arguments: of its command line.
        cwd: folder to run it in.
    """

    def __init__(self, arguments: Sequence[str], cwd: Path) -> None:
        # Made here: a sweep that is killed at once has made nothing.
        descriptor, output = tempfile.mkstemp(prefix="output-", dir=cwd)
        os.close(descriptor)
        self._output = Path(output)
        self._process = _FORKS.Process(target=_sweep, args=(list(arguments), cwd, self._output))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.is_alive()

    def workers(self) -> list[psutil.Process]:
        """Its workers that live."""
        return psutil.Process(self.pid).children()

    def family(self) -> list[psutil.Process]:
        """All of its processes, itself first."""
        parent = psutil.Process(self.pid)
        return [parent, *parent.children(recursive=True)]

    def wait(self) -> Finished:
        """Wait until it ends."""
        self._process.join(300)
        assert self._process.exitcode is not None, "the sweep hangs"
        return Finished(self._process.exitcode, self._output.read_text(encoding="utf-8"), "")


class _Forked:
    """A child with the part of subprocess.Popen that is needed."""

    def __init__(self, call: Callable[[], Any], output: IO[bytes] | None, held: int | None) -> None:
        parent = os.getpid()
        self._status: int | None = None
        self.stdin = io.StringIO()
        self.pid = os.fork()
        if self.pid:
            return
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            if output is not None:
                for stream in (1, 2):
                    os.dup2(output.fileno(), stream)
            for low, high in (
                (3, held or 3),
                ((held or 2) + 1, 1024),
            ):  # as in a new program: else locks live on
                os.closerange(low, high)
            os._exit(_status_of(lambda: (worker.follow(parent)() if held else None, call())[1]))
        finally:
            os._exit(70)

    def send_signal(self, number: int) -> None:
        """As Popen's."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def poll(self) -> int | None:
        """As Popen's."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def wait(self, timeout: float) -> int:
        """As Popen's."""
        end = time.monotonic() + timeout
        while self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                raise subprocess.TimeoutExpired("fork", timeout)
            else:
                time.sleep(0.005)
        return self._status


def _status_of(call: Callable[[], Any]) -> int:
    """Calls a program; returns its exit status."""
    try:
        status = call()
    except SystemExit as left:
        status = left.code
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status if isinstance(status, int) else 0 if status is None else 1


def _sweep(arguments: list[str], cwd: Path, output: Path) -> None:
    import torch

    torch.set_num_threads(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    os.chdir(cwd)
    with output.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    from mohge.apps import sweep

    launchers._start_worker = lambda job, threads: _Forked(lambda: worker.work(job), None, None)  # type: ignore
    worker.start = (
        lambda command, log, held, cell: _Forked(  # type: ignore[assignment]
            lambda: _train(command[3:], cell), log, held
        )
    )
    sweep._LOOK_EVERY = 0.05
    worker._POLL = 0.02
    worker._WAIT = 0.1
    sys.argv = ["mohge-sweep", *arguments]
    sys.exit(_status_of(sweep.main))


def _train(arguments: list[str], cell: str) -> None:
    from mohge.apps import train

    os.environ[CELL_VARIABLE] = cell
    GlobalHydra.instance().clear()
    os.environ.pop("HYDRA_FULL_ERROR", None)
    sys.argv = ["mohge-train", *arguments]
    train.main()
