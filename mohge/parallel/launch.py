"""Starts the ranks of one run on this machine, and ends them together.

The supervisor, which needs no torch, forks the ranks from a server that imports the target's module once.
Each rank says how it ended. Once one has ended badly the others usually fail in its wake, or wait for it for
ever: they get a moment to report, are stopped, and one error names the cause.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

from mohge.errors import Interrupted, LostRankError, RunError, UserError
from mohge.parallel.rank_process import PASSED_ON, SHOW_STACK, End, Report, run_rank

# Seconds. With a timeout of 30 s for collectives, a rank that hangs has ended the job after 45 s.
_GRACE = 5.0  # for the others to report, after a rank has failed
_SAVING = 60.0  # the same after a rank has left on a signal: another may still be writing
_ANSWER = 1.0  # to write a stack
_LEAVING = 5.0  # to end, after a report or SIGTERM, before SIGKILL


@dataclass(frozen=True)
class _Rank:
    index: int
    process: BaseProcess
    reports: Connection

    @property
    def pid(self) -> int:
        assert self.process.pid is not None, "it was started"
        return self.process.pid


def launch(target: str, argument: Any, ranks: int) -> None:
    """Calls a function in several processes of this machine, and returns when it has in all of them.

    In each, RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE are set as by torchrun, and MOHGE_RENDEZVOUS to
    where torch.distributed can meet: a file, since a server would listen. SIGTERM and SIGINT are passed on.

    Args:
        target: "module:function"; importing the module must start no threads and not touch the GPU.
        argument: for the function; picklable.
        ranks: number of processes.

    Raises:
        UserError: as a rank raised it.
        LostRankError: a rank died or hangs.
        RunError: a rank failed; if there is a traceback, it has been printed.
        Interrupted: the ranks left on a signal.
    """
    with tempfile.TemporaryDirectory(prefix="mohge-ranks-", ignore_cleanup_errors=True) as folder:
        job = _Job(Path(folder))
        with job.passing_on_signals():
            try:
                job.start(target, argument, ranks)
                job.watch()
                cause = job.cause()  # before the others are stopped: it asks those that hang where they are
            finally:
                job.stop()
    if cause is not None:
        raise cause


class _Job:
    """The ranks, as their supervisor sees them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ranks: list[_Rank] = []
        self._reports: dict[int, Report] = {}  # in the order of arrival
        self._starting = True
        self._signalled = False
        self._killed = False

    def start(self, target: str, argument: Any, ranks: int) -> None:
        """Starts all ranks."""
        module = target.partition(":")[0]
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([module])
        resource_tracker.ensure_running()  # first: it would unblock the signals
        # Blocked here, they are in the server, which must outlive the ranks, and in a rank that prepares.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
        shared = {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback, **os.environ}
        shared |= {"MOHGE_RENDEZVOUS": f"file://{self._folder}/rendezvous"}
        shared |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
        for index in range(ranks):
            environment = shared | {"RANK": str(index), "LOCAL_RANK": str(index)}
            reader, writer = context.Pipe(duplex=False)
            arguments = (target, argument, environment, _stack_file(self._folder, index), writer)
            process = context.Process(target=run_rank, args=arguments, daemon=False)
            try:
                process.start()
            except (EOFError, ConnectionError) as error:
                raise RunError(f"no rank can start: importing {module} fails, see above") from error
            writer.close()
            self._ranks.append(_Rank(index, process, reader))
        self._starting = False

    @contextlib.contextmanager
    def passing_on_signals(self) -> Iterator[None]:
        """Passes SIGTERM and SIGINT on to the ranks, if this is the thread that can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._pass_on) for number in PASSED_ON}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self._starting:  # the server may import for many seconds
            self._starting = False
            raise Interrupted(f"{signal.Signals(number).name} received before training began", number)
        self._killed |= self._signalled and number == signal.SIGINT
        self._signalled = True
        for rank in self._silent():
            _send(rank, signal.SIGKILL if self._killed else number)

    def watch(self) -> None:
        """Waits until all ranks have ended, or until those left have had their time after a bad end."""
        deadline = math.inf
        while silent := self._silent():
            pipes = [item for rank in silent for item in (rank.reports, rank.process.sentinel)]
            patience = None if deadline == math.inf else max(deadline - time.monotonic(), 0)
            if not wait(pipes, patience):
                return
            for rank in silent:
                report = _report_of(rank)
                if report is None:
                    continue
                self._reports[rank.index] = report
                if report.end != End.FINISHED:
                    grace = _SAVING if report.end == End.INTERRUPTED else _GRACE
                    deadline = min(deadline, time.monotonic() + grace)

    def cause(self) -> Exception | None:
        """The error that explains how the job ended; None if all ranks finished."""
        if self._killed:
            return Interrupted("interrupted twice: the newest steps are not saved", signal.SIGINT)
        index, report = min(self._reports.items(), key=lambda item: item[1].end)  # of equals the first
        name = f"rank {index}"
        match report.end:
            case End.FINISHED:
                return None
            case End.WRONG_INPUT:
                return UserError(report.sentence)
            case End.INTERRUPTED:
                return Interrupted(report.sentence, report.signal)
            case End.RUN_FAILED:
                return RunError(report.sentence if len(self._ranks) == 1 else f"{name}: {report.sentence}")
            case End.ABORTED if self._silent():
                return LostRankError(f"{name} {report.sentence}; {self._who_hangs()}")
            case End.WAITED if self._silent():
                return LostRankError(self._who_hangs())
            case End.DIED | End.ABORTED:
                return LostRankError(f"{name} {report.sentence}")
        print(f"{name}:\n{report.traceback}", end="", file=sys.stderr, flush=True)
        return RunError(f"{name} failed: {report.sentence}")

    def stop(self) -> None:
        """Ends what still lives."""
        live = [rank for rank in self._ranks if rank.process.exitcode is None]
        for rank in live:
            if rank.index not in self._reports:  # the others are leaving
                _send(rank, signal.SIGTERM)
        deadline = time.monotonic() + _LEAVING
        for rank in live:
            rank.process.join(max(deadline - time.monotonic(), 0))
        for rank in live:
            if rank.process.exitcode is None:
                _send(rank, signal.SIGKILL)
                rank.process.join(_LEAVING)

    def _silent(self) -> list[_Rank]:
        return [rank for rank in self._ranks if rank.index not in self._reports]

    def _who_hangs(self) -> str:
        """Says which ranks the others have waited for and where those are; prints their stacks."""
        silent = self._silent()
        for rank in silent:
            _send(rank, SHOW_STACK)
        time.sleep(_ANSWER)
        stacks = {rank: _read_stack(_stack_file(self._folder, rank.index)) for rank in silent}
        # One that itself waits in a collective is not to blame, if there is another.
        busy = {rank: stack for rank, stack in stacks.items() if not _in_collective(stack)}
        sentences = []
        for rank, stack in (busy or stacks).items():
            name = f"rank {rank.index}"
            if stack:
                place = f"was in {stack[-1].filename}:{stack[-1].lineno} {stack[-1].name}"
                lines = "".join(traceback.format_list(stack))
                print(f"{name}, most recent call last:\n{lines}", end="", file=sys.stderr, flush=True)
            else:
                place = f"does not answer{_state(rank.pid)}"
            sentences.append(f"{name} hangs: the others waited for it until the timeout; it {place}")
        return "; ".join(sentences)


def _report_of(rank: _Rank) -> Report | None:
    """How a rank ended; None if it has not."""
    status = rank.process.exitcode  # asked for first: then what it said is all there
    if rank.reports.poll():
        try:
            report: Report = rank.reports.recv()
            return report
        except EOFError:  # its end of the pipe goes a moment before the process
            rank.process.join(_GRACE)
            status = rank.process.exitcode
    if status is None:
        return None
    _kill_group(rank)
    if status >= 0:
        return Report(End.DIED, f"ended with exit status {status} without a word")
    name = next((item.name for item in signal.Signals if item == -status), f"signal {-status}")
    hint = ": perhaps for lack of memory (dmesg tells)" if -status == signal.SIGKILL else ""
    aborted = -status == signal.SIGABRT
    return Report(End.ABORTED if aborted else End.DIED, f"was killed by {name}{hint}")


def _send(rank: _Rank, number: int) -> None:
    """Sends a signal to a rank; SIGKILL also to what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(rank.pid, number)
    if number == signal.SIGKILL:
        _kill_group(rank)


def _kill_group(rank: _Rank) -> None:
    """Kills what a rank has started, and itself."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: if all of the group are dead
        os.killpg(rank.pid, signal.SIGKILL)


def _stack_file(folder: Path, index: int) -> Path:
    return folder / f"stack-{index}"


def _read_stack(path: Path) -> list[traceback.FrameSummary]:
    """What faulthandler has written about one thread, most recent call last; empty if it has not."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    found = re.findall(r'File "(.*)", line (\d+) in (.*)', text)
    return [traceback.FrameSummary(file, int(line), name) for file, line, name in reversed(found)]


def _in_collective(stack: list[traceback.FrameSummary]) -> bool:
    return any("/torch/distributed/" in frame.filename for frame in stack[-3:])


def _state(pid: int) -> str:
    """A remark on the state of a process, where the system shows it."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    state = text.rpartition(")")[2].split()[0]
    return ": it is stopped (state T)" if state == "T" else f" (state {state})"
