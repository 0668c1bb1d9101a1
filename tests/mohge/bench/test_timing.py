"""Rounds are interleaved, and warm-up does not count."""

from __future__ import annotations

import gc

import pytest
import torch

from mohge.bench.timing import Timing, Variant, interleave

CPU = torch.device("cpu")


def test_every_round_runs_every_variant_in_another_order():
    log: list[str] = []
    variants = {
        name: Variant(lambda name=name: log.append(name), lambda name=name: log.append(f"reset-{name}"))
        for name in "abc"
    }
    timings = interleave(variants, rounds=3, warmup=1, device=CPU, new_round=lambda: log.append("new"))
    orders = ("cab", "abc", "bca", "cab")
    assert log == [
        word for order in orders for word in ("new", *(w for name in order for w in (f"reset-{name}", name)))
    ]
    assert {name: len(timing.seconds) for name, timing in timings.items()} == {"a": 3, "b": 3, "c": 3}


def test_nothing_is_collected_while_the_clock_runs():
    seen: list[bool] = []
    interleave({"only": Variant(lambda: seen.append(gc.isenabled()))}, rounds=2, warmup=0, device=CPU)
    assert seen == [False, False]
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        interleave({"only": Variant(lambda: 1 / 0)}, rounds=1, warmup=0, device=CPU)
    assert gc.isenabled()


def test_median_and_quartiles():
    found = Timing([5.0, 1.0, 2.0, 4.0, 3.0]).as_dict()
    assert found == {"median_seconds": 3.0, "low_seconds": 2.0, "high_seconds": 4.0, "rounds": 5}
