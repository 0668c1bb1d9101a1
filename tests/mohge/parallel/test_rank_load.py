"""What ranks report of their work is what they did."""

from __future__ import annotations

import pytest
import torch
from ranks_here import run_ranks
from training_targets import MOHGE, config_of, loads, mesh_overrides

from mohge.parallel.rank_plan import rank_plan

RECOMPUTE = "model.activation_checkpointing=true"


@pytest.mark.parametrize(
    ("mesh", "changes"),
    [((1, 1, 2), ()), ((1, 2, 2), (RECOMPUTE,)), ((2, 1, 2), ("trainer.precision=bf16",))],
    ids=str,
)
def test_loads_are_what_the_ranks_did(mesh, changes):
    overrides = (*MOHGE, *changes)
    config = config_of(*overrides, *mesh_overrides(mesh))
    ranks = run_ranks(loads, mesh[0] * mesh[1] * mesh[2], overrides, mesh)
    reported = ranks[0]["loads"]
    assert all(rank["loads"] == reported for rank in ranks)
    assert len(reported) == 2
    world, ep = len(ranks), mesh[2]
    tokens = config.tokens_per_step // world
    per_rank = config.experts.per_group // ep
    for step, load in enumerate(reported):
        assert load["tokens"] == [tokens] * world
        for rank in range(world):
            # An expert of this rank computes rows of all ranks of its ep group.
            group = range(rank - rank % ep, rank - rank % ep + ep)
            rows_LE = sum(ranks[other]["counts"][step] for other in group)
            rows_LGN = rows_LE.view(config.model.layers, config.experts.num_groups, -1)
            first = rank % ep * per_rank
            rows_G = rows_LGN[:, :, first : first + per_rank].sum(dim=(0, 2))
            widths_G = torch.tensor(config.experts.widths)
            assert load["rows"][rank] == rows_G.sum()
            assert load["expert_flops"][rank] == 3 * 6 * config.model.d_model * (rows_G * widths_G).sum()
        routed = config.router.expert_top_k * config.model.layers
        assert sum(load["rows"]) == sum(load["tokens"]) * routed, "every token is accounted for"
    for rank in range(world):
        sent = sum(load["all_to_all_bytes"][rank] for load in reported)
        assert sent == ranks[rank]["sent"], "byte for byte what went out"
    # What the plan expects of even routing is what a rank sends on average.
    planned = rank_plan(config).all_to_all_per_token.train
    mean = sum(sum(load["all_to_all_bytes"]) for load in reported) / 2 / config.tokens_per_step
    assert mean == pytest.approx(planned, rel=0.1)
