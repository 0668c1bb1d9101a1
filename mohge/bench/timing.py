"""Timing in interleaved rounds, so that whatever slows a machine for a while slows every variant."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Variant:
    """Something to time."""

    run: Callable[[], object]
    """What is timed."""
    reset: Callable[[], None] = _nothing
    """What comes before, untimed, such as dropping old gradients."""


@dataclass
class Timing:
    """Seconds of each timed round."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median of the rounds."""
        return self._percentile(50)

    @property
    def low(self) -> float:
        """First quartile."""
        return self._percentile(25)

    @property
    def high(self) -> float:
        """Third quartile."""
        return self._percentile(75)

    def as_dict(self) -> dict[str, float | int]:
        """Median, quartiles and number of rounds."""
        return {
            "median_seconds": self.median,
            "low_seconds": self.low,
            "high_seconds": self.high,
            "rounds": len(self.seconds),
        }

    def _percentile(self, percent: float) -> float:
        return float(np.percentile(self.seconds, percent))


def interleave(
    variants: Mapping[str, Variant],
    *,
    rounds: int,
    warmup: int,
    device: torch.device,
    new_round: Callable[[], None] = _nothing,
) -> dict[str, Timing]:
    """Time every variant once per round, each round in another order.

    Args:
        variants: by name.
        rounds: that count.
        warmup: rounds before those.
        device: to wait for, around each variant.
        new_round: called, untimed, at the start of each round, for instance to draw new input.

    Returns:
        Timings by the variants' names.
    """
    timings = {name: Timing() for name in variants}
    names = list(variants)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(-warmup, rounds):
            gc.collect()
            new_round()
            first = number % len(names) if names else 0
            for name in names[first:] + names[:first]:
                variants[name].reset()
                seconds = _time(variants[name].run, device)
                if number >= 0:
                    timings[name].seconds.append(seconds)
    finally:
        if collecting:
            gc.enable()
    return timings


def _time(run: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
