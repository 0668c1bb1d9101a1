"""Waits of this process for other ranks, noticed where they happen."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch.distributed as dist


@contextlib.contextmanager
def watching_waits(begins: Callable[[], object], ended: Callable[[], object]) -> Iterator[None]:
    """Calls `begins` and `ended` around every wait for a collective in the context.

    All collectives of training end in `Work.wait`, called from Python: those of FSDP2, of our exchange of
    rows, and the reductions of counts and of the norm. On a CPU it blocks, with no core in use, until the
    operation is done; on a GPU it only tells the device to wait. Each wait costs half a microsecond more, of
    tens to hundreds of them in a step.
    """
    work_class: Any = dist.Work
    wait = work_class.wait

    def watched_wait(work: dist.Work, *arguments: Any, **named: Any) -> Any:
        begins()
        try:
            return wait(work, *arguments, **named)
        finally:
            ended()

    work_class.wait = watched_wait
    try:
        yield
    finally:
        work_class.wait = wait


@contextlib.contextmanager
def counting_waits() -> Iterator[list[float]]:
    """Notes the seconds of every wait for a collective in the context."""
    seconds: list[float] = []
    started = 0.0

    def begins() -> None:
        nonlocal started
        started = time.perf_counter()

    with watching_waits(begins, lambda: seconds.append(time.perf_counter() - started)):
        yield seconds
