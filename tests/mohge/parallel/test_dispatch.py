"""Experts spread over ranks compute what they compute in one process, whatever the routing."""

from __future__ import annotations

import pytest
import torch
from dispatch_targets import routings, spread, together
from kernels_here import KERNELS_HERE
from ranks_here import run_ranks


@pytest.mark.parametrize(
    ("kernel", "ranks"),
    [("loop", 4), ("fused", 4), *((kernel, 2) for kernel in KERNELS_HERE if kernel in ("grouped", "native"))],
)
def test_twenty_routings(kernel, ranks):
    assert len(routings(ranks)) == 20
    expected, results = together(kernel, ranks), run_ranks(spread, ranks, kernel, ranks)
    for name in routings(ranks):
        for rank in range(ranks):
            ours, theirs = results[rank][name], expected[name][rank]
            assert ours.keys() == theirs.keys(), "every expert has a gradient, with rows or without"
            for key in ours:
                torch.testing.assert_close(ours[key], theirs[key], rtol=1e-5, atol=1e-6, msg=f"{name}: {key}")
