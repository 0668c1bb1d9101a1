"""The life of a rank that `mohge.parallel.launch` has started, and what it says at its end."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import pkgutil
import re
import shutil
import signal
import sys
import threading
import traceback
from dataclasses import dataclass
from enum import IntEnum
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

from mohge.errors import Interrupted, RunError, UserError

PASSED_ON = (signal.SIGTERM, signal.SIGINT)
SHOW_STACK = signal.SIGUSR2  # SLURM and Lightning announce the end of a job's time with SIGUSR1

# What torch 2.13 raises, as RuntimeError or a subclass, in a rank that did nothing wrong: a peer has gone ...
_LOST_PEER = re.compile(
    "Connection closed by peer|Connection reset|Broken pipe|Remote peer closed the connection"  # gloo
    "|Connection was likely closed|failed to connect"  # TCPStore
    "|ncclRemoteError|remote process exiting"
)
# ... or was waited for in vain.
_WAITED = re.compile(
    "Timed out waiting"  # gloo
    "|[Ww]ait timeout|Timeout waiting for key|Socket Timeout|socket has timed out"  # FileStore, TCPStore
    "|Watchdog caught collective operation timeout"  # NCCL
)


class End(IntEnum):
    """How a rank ended; the lower, the more likely it is the cause of how others did."""

    DIED = 0
    WRONG_INPUT = 1
    RUN_FAILED = 2
    EXCEPTION = 3
    ABORTED = 4  # by native code, as NCCL does with a rank that has waited too long: perhaps no cause
    INTERRUPTED = 5
    WAITED = 6
    LOST_PEER = 7
    FINISHED = 8


@dataclass(frozen=True)
class Report:
    """What a rank says about its end, or the supervisor if it could not."""

    end: End
    sentence: str = ""
    traceback: str = ""
    signal: int = 0


def run_rank(
    target: str, argument: Any, environment: dict[str, str], stack: Path, reports: Connection
) -> None:
    """Calls the target as one rank, reports how that ended, and ends.

    Args:
        target: "module:function".
        argument: for the function.
        environment: all variables of this rank.
        stack: file, in a folder that the supervisor removes, for where the rank is when it gets SHOW_STACK.
        reports: to the supervisor.
    """
    if not stack.parent.exists():
        return  # the supervisor was interrupted while it waited for this process
    os.setsid()  # Ctrl-C in a terminal then reaches only the supervisor
    os.environ.clear()  # the server's may be older than this run
    os.environ.update(environment)
    threading.Thread(target=_follow_supervisor, args=(stack.parent,), daemon=True).start()
    faulthandler.enable()
    with stack.open("w") as file:
        faulthandler.register(SHOW_STACK, file=file, all_threads=False)
        for number in PASSED_ON:
            signal.signal(number, _leave)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        try:
            pkgutil.resolve_name(target)(argument)
            report = Report(End.FINISHED)
        except BaseException as error:
            report = _report(error)
        for number in PASSED_ON:
            signal.signal(number, signal.SIG_IGN)
        reports.send(report)
        if report.end == End.FINISHED:
            return
        # With all it has started, and at once: threads of a failed rank may wait for others for ever.
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os.killpg(0, signal.SIGKILL)


def _follow_supervisor(folder: Path) -> None:
    """Ends this rank and all it has started when the supervisor has ended, however that did."""
    supervisor = multiprocessing.parent_process()
    assert supervisor is not None
    supervisor.join()
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


def _leave(number: int, frame: FrameType | None) -> None:
    """What a signal does in a rank until training handles it."""
    raise Interrupted(f"{signal.Signals(number).name} received outside of training", number)


def _report(error: BaseException) -> Report:
    """What a rank says about an exception that ended it."""
    sentence = str(error)
    if isinstance(error, UserError):
        return Report(End.WRONG_INPUT, sentence)
    if isinstance(error, RunError):
        return Report(End.RUN_FAILED, sentence)
    if isinstance(error, Interrupted):
        return Report(End.INTERRUPTED, sentence, signal=error.signal)
    first_line = sentence.partition("\n")[0]
    summary = f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
    return Report(_echo(error) or End.EXCEPTION, summary, "".join(traceback.format_exception(error)))


def _echo(error: BaseException) -> End | None:
    """Whether an exception only tells that another rank has gone or is late; it says nothing of its own."""
    if not isinstance(error, RuntimeError):
        return None
    if _WAITED.search(str(error)):
        return End.WAITED
    return End.LOST_PEER if _LOST_PEER.search(str(error)) else None
