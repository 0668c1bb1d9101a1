"""Experts that get fewer rows than a vector has lanes, as when text is generated."""

from __future__ import annotations

import pytest
import torch
from kernels_here import KERNELS_HERE

from mohge.moe.dispatch import sort_rows
from mohge.moe.experts import Experts
from mohge.moe.routers import top_k_route


@pytest.mark.skipif("native" not in KERNELS_HERE, reason="there is no native kernel here")
@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, 7, 8, 9, 17, 40])
def test_inference_gives_what_the_loop_gives(tokens: int):
    """All tokens pick expert 5, so that one expert has each of these numbers of rows."""
    reference = Experts(32, [16, 48], 3, "loop")
    ours = Experts(32, [16, 48], 3, "native")
    ours.load_state_dict(reference.state_dict())
    generator = torch.Generator().manual_seed(tokens)
    logits_TE = torch.randn(tokens, 6, generator=generator)
    logits_TE[:, 5] = 9.0
    rows = sort_rows(top_k_route(logits_TE, num_groups=2, expert_top_k=2))
    x_TD = torch.randn(tokens, 32, generator=generator)
    assert rows.counts_E[5] == tokens
    with torch.inference_mode():
        torch.testing.assert_close(ours(x_TD, rows), reference(x_TD, rows), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours(x_TD, rows), reference(x_TD, rows), rtol=1e-5, atol=1e-5)
