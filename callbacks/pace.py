"""How long an optimizer step takes, and how long the rest of a run will."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable


class Pace:
    """Clock of optimizer steps.

    A step lasts from the end of the one before it to its own end, so that waiting for data counts; pauses
    (validation) do not. The median over a window leaves out the odd step that wrote a checkpoint.
    """

    def __init__(self, window: int = 50, clock: Callable[[], float] = time.perf_counter) -> None:
        """Steps in the window, and the clock to read, in seconds."""
        self._clock = clock
        self._durations: deque[float] = deque(maxlen=window)
        self._steps = 0
        self._pauses = 0.0
        self._since = clock()
        self._paused_at: float | None = None

    def step_ended(self) -> None:
        """An optimizer step was done."""
        now = self._clock()
        self._durations.append(now - self._since)
        self._since = now
        self._steps += 1

    def pause(self) -> None:
        """What follows is no part of a step."""
        self._paused_at = self._clock()

    def resume(self) -> None:
        """Steps go on."""
        assert self._paused_at is not None, "resume() follows pause()"
        paused = self._clock() - self._paused_at
        self._since += paused
        self._pauses += paused
        self._paused_at = None

    @property
    def seconds_per_step(self) -> float:
        """Median over the window; NaN before the first step."""
        return statistics.median(self._durations) if self._durations else float("nan")

    def seconds_left(self, steps: int) -> float:
        """Time that `steps` more steps take with their share of the pauses; NaN before the first step."""
        return steps * (self.seconds_per_step + self._pauses / max(self._steps, 1))
