"""Metrics of a routing that was counted by hand, in one process and on four ranks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hand_made import FIRST, SECOND, config, decision, measure
from hypothesis import given
from hypothesis import strategies as st
from ranks_here import run_ranks

from mohge.budget import budget
from mohge.metrics import (
    Churn,
    CoActivation,
    DeadExperts,
    ExpertEntropy,
    FlopsPerToken,
    GroupEntropy,
    LoadVariation,
    MaxViolation,
    RankBalance,
    RoutingCounts,
)

# Loads, by hand: layer 0 has 8, 5, 2, 1 rows; layer 1 has 4, 8, 4, 0. Tokens of groups: 8, 3 and 8, 4.
EXPECTED: dict[str, tuple[Any, Any]] = {
    "load_share": (
        [[8 / 16, 5 / 16, 2 / 16, 1 / 16], [4 / 16, 8 / 16, 4 / 16, 0]],
        [12 / 32, 13 / 32, 6 / 32, 1 / 32],
    ),
    "group_share": ([[13 / 16, 3 / 16], [12 / 16, 4 / 16]], [25 / 32, 7 / 32]),
    "max_violation": ([8 / 4 - 1, 8 / 4 - 1], 1.0),
    "max_violation_in_groups": ([2 / 1.5 - 1, 4 / 2 - 1], 1.0),
    "load_variation": (
        [math.sqrt(7.5) / 4, math.sqrt(8) / 4],
        (math.sqrt(7.5) + math.sqrt(8)) / 8,
    ),
    "dead_experts": ([0, 1], 1),
    "expert_entropy": (
        [(0.5 + 5 / 16 * math.log2(16 / 5) + 3 / 8 + 4 / 16) / 2, 0.75],
        ((0.5 + 5 / 16 * math.log2(16 / 5) + 3 / 8 + 4 / 16) / 2 + 0.75) / 2,
    ),
    "group_entropy": (
        [
            8 / 11 * math.log2(11 / 8) + 3 / 11 * math.log2(11 / 3),
            2 / 3 * math.log2(3 / 2) + math.log2(3) / 3,
        ],
        (
            8 / 11 * math.log2(11 / 8)
            + 3 / 11 * math.log2(11 / 3)
            + 2 / 3 * math.log2(3 / 2)
            + math.log2(3) / 3
        )
        / 2,
    ),
    "aux/balance": ([3.0, 5.0], 8.0),
    "aux_weighted/balance": ([1.5, 2.5], 4.0),
}
DOMAINS = [[[4, 2, 2, 0], [2, 4, 2, 0]], [[4, 3, 0, 1], [2, 4, 2, 0]]]
TOGETHER = [
    [[8, 5, 2, 1], [5, 5, 0, 0], [2, 0, 2, 0], [1, 0, 0, 1]],
    [[4, 4, 0, 0], [4, 8, 4, 0], [0, 4, 4, 0], [0, 0, 0, 0]],
]


def check(found: dict[str, Any]) -> None:
    for name, (layers, overall) in EXPECTED.items():
        for ours, by_hand in zip(found[name], (layers, overall), strict=True):
            assert torch.allclose(torch.tensor(ours).double(), torch.tensor(by_hand).double(), atol=1e-12), (
                name
            )
    # Rows of widths 4 and 8: 13 and 3, 12 and 4; three matrices of D = 10; eight tokens.
    routed = [30 * (13 * 4 + 3 * 8) / 8, 30 * (12 * 4 + 4 * 8) / 8]
    cost = budget(config())
    dense = cost.parameters.total - cost.parameters.routed_experts
    assert found["active_parameters"] == (routed, sum(routed) + dense)
    layers, overall = found["flops_per_token"]
    assert layers == [6 * routed[0], 6 * routed[1]]
    even = 2 * 2 * 30 * 6  # two layers, two experts each, of mean width 6
    assert overall == cost.flops_per_token.train + 6 * (sum(routed) - even)
    assert found["domains"] == DOMAINS
    assert found["together"] == TOGETHER
    first, second, third = found["churn"]
    assert all(math.isnan(value) for value in [*first[0], first[1]])
    assert second == ([1 / 8, 2 / 8], 3 / 16)
    assert third == ([0, 0], 0)
    rows, flops, rows_ratio, flops_ratio = found["ranks"]
    assert (rows, flops) == ([1, 2, 3, 6], [10, 20, 10, 20])
    assert (rows_ratio, flops_ratio) == (6 / 3, pytest.approx(20 / 15))


def test_one_process_measures_what_was_counted_by_hand():
    check(measure(config()))


def test_each_of_four_ranks_measures_what_was_counted_by_hand():
    for found in run_ranks(measure, 4, config()):
        check(found)


def counts_of(loads_LE: list[list[int]], per_group: int) -> RoutingCounts:
    layers, experts = len(loads_LE), len(loads_LE[0])
    counts = RoutingCounts(layers, experts // per_group, per_group)
    counts.expert_LE += torch.tensor(loads_LE)
    counts.group_LG += counts.expert_LE.view(layers, -1, per_group).amax(dim=2)
    counts.tokens = counts.rows = sum(loads_LE[0])
    return counts


@given(
    st.integers(1, 3).flatmap(
        lambda per_group: st.tuples(
            st.just(per_group),
            st.lists(
                st.lists(st.integers(0, 50), min_size=4 * per_group, max_size=4 * per_group).filter(any),
                min_size=1,
                max_size=3,
            ),
        )
    )
)
def test_bounds_and_slow_definitions(case):
    """Any loads: within bounds, and equal to definitions written as loops."""
    per_group, loads = case
    layers, experts = len(loads), len(loads[0])
    counts, shape = counts_of(loads, per_group), (layers, experts // per_group, per_group)

    def layers_of(metric):
        metric.update(counts)
        return metric.compute().layers.tolist()

    violation, inside = layers_of(MaxViolation(*shape)), layers_of(MaxViolation(*shape, within_groups=True))
    variation, entropy = layers_of(LoadVariation(*shape)), layers_of(ExpertEntropy(*shape))
    for layer, load in enumerate(loads):
        mean = sum(load) / experts
        assert violation[layer] == pytest.approx(max(load) / mean - 1)
        groups = [load[start : start + per_group] for start in range(0, experts, per_group)]
        slow = max(max(group) * per_group / sum(group) - 1 if any(group) else 0 for group in groups)
        assert inside[layer] == pytest.approx(slow)
        squares = sum((rows - mean) ** 2 for rows in load) / experts
        assert variation[layer] == pytest.approx(math.sqrt(squares) / mean)
        shares = [rows / sum(load) for rows in load if rows]
        assert entropy[layer] == pytest.approx(-sum(p * math.log(p) for p in shares) / math.log(experts))
    assert layers_of(DeadExperts(*shape)) == [load.count(0) for load in loads]
    assert all(0 <= value <= experts - 1 + 1e-9 for value in violation)
    assert all(-1e-12 <= value <= 1 + 1e-12 for value in entropy)


def test_one_group_is_spread_as_widely_as_can_be():
    entropy = GroupEntropy(1, 1, 4)
    entropy.update(counts_of([[1, 2, 3, 4]], 4))
    assert entropy.compute().overall == 1


def test_equal_loads_cost_what_the_plan_expects():
    plain = config()
    recomputing = replace(plain, model=replace(plain.model, activation_checkpointing=True))
    counts = RoutingCounts(2, 2, 2)
    counts.add([decision([(0, 2), (1, 3)])] * 2)
    for shown, passes in ((plain, 3), (recomputing, 4)):
        metric = FlopsPerToken(shown)
        metric.update(counts)
        found = metric.compute()
        assert found.overall == budget(shown).flops_per_token.train
        assert found.layers.tolist() == [2 * passes * 30 * (4 + 8)] * 2


def test_what_was_never_updated_is_not_a_number():
    metric = MaxViolation(1, 2, 2, within_groups=True)
    metric.update(RoutingCounts(1, 2, 2))
    assert math.isnan(metric.compute().overall)


def test_no_work_is_shared_evenly():
    balance = RankBalance(3)
    balance.update(0, 0, 0)
    assert balance.compute().rows_max_over_mean == 1


def test_a_wrong_number_of_selected_groups_is_noticed():
    counts = RoutingCounts(2, 2, 2)
    counts.add([decision(FIRST), decision(SECOND)])
    counts.check()
    with pytest.raises(AssertionError, match="16 groups"):
        counts.check(group_top_k=2)


def test_pairs_are_counted_exactly_where_products_are_of_bfloat16():
    together = CoActivation(1, 4)
    with torch.autocast("cpu", torch.bfloat16):
        together.update([decision([(0, 1)] * 3001)])
    assert together.compute()[0, 0, 1] == 3001


def test_a_probe_follows_its_first_tokens_alone(monkeypatch):
    monkeypatch.setattr("mohge.metrics.tokens.PROBED", 4)
    churn = Churn(1)
    churn.update([decision([(0, 1)] * 8)])
    churn.update([decision([(0, 1)] * 3 + [(0, 2)] * 5)])
    assert churn.seen_LTK.shape == (1, 4, 2)
    assert churn.compute().overall == 1 / 4
