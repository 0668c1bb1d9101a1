"""A routing small enough to be counted by hand, and every metric of it, on any number of ranks.

Two layers, two groups (widths 4 and 8) of two experts, D = 10; eight tokens choose two experts each.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from composing import composed

from mohge.config.load import typed
from mohge.config.schema import TrainConfig
from mohge.metrics import (
    ActiveParameters,
    AuxiliaryLosses,
    Churn,
    CoActivation,
    DeadExperts,
    DomainLoad,
    ExpertEntropy,
    FlopsPerToken,
    GroupEntropy,
    GroupShare,
    LoadShare,
    LoadVariation,
    MaxViolation,
    RankBalance,
    RoutingCounts,
)
from mohge.moe.decision import RoutingDecision

FIRST = [(0, 1), (0, 1), (0, 2), (0, 2), (0, 3), (0, 1), (0, 1), (0, 1)]
SECOND = [(0, 1), (2, 1)] * 4
# Later: the third token keeps its experts in another order, the fourth has others, two move in layer 1.
FIRST_LATER = [(0, 1), (0, 1), (2, 0), (0, 3), (0, 3), (0, 1), (0, 1), (0, 1)]
SECOND_LATER = [(0, 1), (2, 1), (0, 1), (2, 1), (0, 1), (3, 1), (0, 1), (0, 1)]
DOMAINS = [0, 0, 0, 0, 1, 1, 1, 1]
# Of each of four micro-batches: losses of both layers. Means 3 and 5.
AUXILIARY = [(0.0, 2.0), (2.0, 4.0), (4.0, 6.0), (6.0, 8.0)]
RANK_ROWS, RANK_FLOPS = [1, 2, 3, 6], [10, 20, 10, 20]


def decision(chosen: list[tuple[int, int]]) -> RoutingDecision:
    """A flat router's, with what metrics do not read left plain."""
    ids_TK = torch.tensor(chosen)
    plain_TE = torch.zeros(len(chosen), 4)
    mask_TG = torch.stack([(ids_TK // 2 == group).any(dim=1) for group in range(2)], dim=1)
    return RoutingDecision(
        expert_ids_TK=ids_TK,
        weights_TK=torch.full(ids_TK.shape, 0.5),
        expert_logits_TE=plain_TE,
        joint_probability_TE=plain_TE,
        group_weights_TG=mask_TG / 2,
        group_mask_TG=mask_TG,
        group_logits_TG=None,
        group_top_k=None,
    )


def config() -> TrainConfig:
    """A model of these layers."""
    model = ("model.d_model=10", "model.layers=2", "model.heads=1", "model.kv_heads=1")
    experts = ("experts.widths=[4,8]", "experts.per_group=2", "router.group_top_k=2", "router.expert_top_k=2")
    return typed(TrainConfig, composed(*model, *experts))


def measure(shown: TrainConfig) -> dict[str, Any]:
    """Every metric, of the tokens that this rank has, in two updates; plain numbers."""
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    part = slice(rank * 8 // ranks, (rank + 1) * 8 // ranks)
    tokens = range(8)[part]
    halves = [tokens[: len(tokens) // 2], tokens[len(tokens) // 2 :]]
    shape = (2, 2, 2)
    metrics: dict[str, Any] = {
        "load_share": LoadShare(*shape),
        "group_share": GroupShare(*shape),
        "max_violation": MaxViolation(*shape),
        "max_violation_in_groups": MaxViolation(*shape, within_groups=True),
        "load_variation": LoadVariation(*shape),
        "dead_experts": DeadExperts(*shape),
        "expert_entropy": ExpertEntropy(*shape),
        "group_entropy": GroupEntropy(*shape),
        "active_parameters": ActiveParameters(shown),
        "flops_per_token": FlopsPerToken(shown),
    }
    domains, together = DomainLoad(2, 2, 4), CoActivation(2, 4)
    for half in halves:
        decisions = [decision([layer[t] for t in half]) for layer in (FIRST, SECOND)]
        counts = RoutingCounts(2, 2, 2)
        counts.add(decisions)
        for metric in metrics.values():
            metric.update(counts)
        domains.update(decisions, torch.tensor([DOMAINS[t] for t in half]))
        together.update(decisions)

    churn = Churn(2)
    looks = []
    for first, second in ((FIRST, SECOND), (FIRST_LATER, SECOND_LATER), (FIRST_LATER, SECOND_LATER)):
        churn.reset()
        churn.update([decision(first[part]), decision(second[part])])
        looks.append(churn.compute())

    auxiliary = AuxiliaryLosses(["balance"], 2)
    for losses in AUXILIARY[rank * 4 // ranks : (rank + 1) * 4 // ranks]:
        auxiliary.update({"balance": [torch.tensor(loss) for loss in losses]}, {"balance": 0.5})

    balance = RankBalance(4)
    for owner in range(rank * 4 // ranks, (rank + 1) * 4 // ranks):
        balance.update(owner, RANK_ROWS[owner], RANK_FLOPS[owner])

    found = {name: metric.compute() for name, metric in metrics.items()} | auxiliary.compute()
    plain = {name: (value.layers.tolist(), value.overall.tolist()) for name, value in found.items()}
    loads = balance.compute()
    ratios = (loads.rows_max_over_mean, loads.expert_flops_max_over_mean)
    return plain | {
        "domains": domains.compute().tolist(),
        "together": together.compute().tolist(),
        "churn": [(look.layers.tolist(), look.overall.tolist()) for look in looks],
        "ranks": [value.tolist() for value in (loads.rows_R, loads.expert_flops_R, *ratios)],
    }
