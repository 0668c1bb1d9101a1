"""One thread that writes to MLflow, so that training never waits for it."""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from callbacks.tracking.store import may_pass
from mohge.errors import first_line

if TYPE_CHECKING:
    from mlflow.entities import Metric

log = logging.getLogger(__name__)

_EVERY = 2.0  # seconds between two batches: one transaction for many steps
_AGAIN = 0.5  # seconds before another attempt, when only the end of the run waits for it
_PATIENCE = 60.0  # seconds at the end of a run in which nothing was taken, after which the rest is given up
_TELL_AFTER = 5.0  # seconds of waiting at the end before the user is told why
_MOST_METRICS = 100_000  # values that wait, about 20 MB
_MOST_CALLS = 1000
_BATCH = 1000  # values that MLflow takes in one request


class _Call(NamedTuple):
    what: str
    make: Callable[[], object]


class Writer:
    """Sends metrics in batches, and makes other calls one after another, until MLflow has taken them.

    What MLflow refuses is told once and left out; what it cannot take now is tried again, in order, until
    the run ends. MLflow knows equal values of the same instant, so that sending them again is harmless.
    Of what waits, the oldest is dropped before memory grows without bound: metrics.jsonl has all.

    Args:
        send: gives MLflow a batch of metrics.
    """

    def __init__(self, send: Callable[[list[Metric]], None]) -> None:
        self._send = send
        self._wake = threading.Condition()
        self._steps: deque[list[Metric]] = deque()
        self._waiting = 0  # values in `_steps`
        self._calls: deque[_Call] = deque()
        self._lost = 0
        self._told: set[str] = set()
        self._draining = False
        self._taken_at = 0.0
        self._patience = _PATIENCE
        self._thread: threading.Thread | None = None

    def add_metrics(self, metrics: list[Metric]) -> None:
        """Metrics of one step, which reach MLflow together."""
        with self._wake:
            self._steps.append(metrics)
            self._waiting += len(metrics)
            while self._waiting > _MOST_METRICS and len(self._steps) > 1:
                dropped = len(self._steps.popleft())
                self._waiting -= dropped
                self._lost += dropped
            self._start()

    def add_call(self, what: str, make: Callable[[], object]) -> None:
        """Something else to do: `what` names it in a warning."""
        with self._wake:
            self._calls.append(_Call(what, make))
            if len(self._calls) > _MOST_CALLS:
                self._lost += 1
                self._calls.popleft()
            self._start()

    def drain(self, at_most: float = math.inf) -> None:
        """Waits until everything is written, or MLflow has taken nothing for a minute.

        Args:
            at_most: seconds after which it goes on in the background, until it is waited for again.
        """
        begun = time.monotonic()
        self._taken_at = begun
        told = False
        while thread := self._at_work():
            pause = at_most if told else min(_TELL_AFTER, at_most)
            thread.join(None if pause == math.inf else max(0.0, begun + pause - time.monotonic()))
            if thread.is_alive() and time.monotonic() - begun >= at_most:
                return
            if thread.is_alive() and not told:
                log.info("waiting for MLflow to take the last of this run …")
                told = True
        self._thread, self._draining = None, False
        if self._lost:
            rank_zero_warn(f"MLflow misses {self._lost} values of this run; metrics.jsonl has all metrics")
            self._lost = 0

    def _at_work(self) -> threading.Thread | None:
        """The thread, told to end when all is written; None if all is."""
        with self._wake:
            self._draining = True
            self._wake.notify()
            if self._steps or self._calls:
                self._start()
            return self._thread if self._thread is not None and self._thread.is_alive() else None

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            # A daemon: whoever ends a run drains, and a process that dies otherwise must not hang here.
            self._thread = threading.Thread(target=self._work, name="mlflow-writer", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        every = _EVERY
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._draining, timeout=every)
            done = self._flush()
            if not self._draining:
                continue
            if done:
                return
            if time.monotonic() - self._taken_at > self._patience:
                self._give_up()
                return
            time.sleep(_AGAIN)

    def _flush(self) -> bool:
        """Sends what is there; False if MLflow cannot take it now."""
        while steps := self._next_steps():
            batch = list(itertools.chain.from_iterable(steps))
            for start in range(0, len(batch), _BATCH):  # more than one only for a step of very many values
                part = batch[start : start + _BATCH]
                if not self._attempt("metrics", lambda part=part: self._send(part)):  # type: ignore[misc]
                    return False
            with self._wake:
                for step in steps:
                    if self._steps and self._steps[0] is step:  # not dropped meanwhile
                        self._waiting -= len(self._steps.popleft())
        while self._calls:
            call = self._calls[0]
            if not self._attempt(call.what, call.make):
                return False
            with self._wake:
                if self._calls and self._calls[0] is call:
                    self._calls.popleft()
        with self._wake:
            return not self._steps and not self._calls

    def _next_steps(self) -> list[list[Metric]]:
        with self._wake:
            return next(whole_steps(self._steps), [])

    def _attempt(self, what: str, make: Callable[[], object]) -> bool:
        """Whether that is done with: taken, or refused for good."""
        try:
            make()
        except Exception as error:  # whatever it is, it must end neither the run nor this thread
            passing = may_pass(error)
            self._tell(what, error, passing)
            if passing:
                return False
        self._taken_at = time.monotonic()
        return True

    def _tell(self, what: str, error: Exception, passing: bool) -> None:
        topic = "passing" if passing else what
        if topic in self._told:
            return
        self._told.add(topic)
        fate = "it is tried again until the run ends" if passing else "metrics.jsonl has all metrics"
        rank_zero_warn(f"MLflow did not take {what}: {first_line(error)}; {fate}")

    def _give_up(self) -> None:
        with self._wake:
            self._lost += self._waiting + len(self._calls)
            self._steps.clear()
            self._calls.clear()
            self._waiting = 0
            self._patience = 0.0  # whoever ends the run once more need not wait again


def whole_steps(steps: Iterable[list[Metric]]) -> Iterator[list[list[Metric]]]:
    """Steps in groups of at most a request's values: a step is in MLflow as a whole or not at all.

    A step of more values than that is a group of its own.
    """
    group: list[list[Metric]] = []
    size = 0
    for step in steps:
        if group and size + len(step) > _BATCH:
            yield group
            group, size = [], 0
        group.append(step)
        size += len(step)
    if group:
        yield group
