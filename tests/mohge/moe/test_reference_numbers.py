"""The routing and losses of the released recipe, against stored float64 numbers, gradients included."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mohge.moe.decision import RoutingDecision
from mohge.moe.losses import group_wise_loss, intra_group_loss, size_weights
from mohge.moe.placement import all_size_order
from mohge.moe.routers import two_level_route

REFERENCE = json.loads(
    (Path(__file__).parents[2] / "reference" / "mohge_routing.json").read_text(encoding="utf-8")
)
TOLERANCE = 1e-9


def case_name(case: dict[str, Any]) -> str:
    return f"{case['group_score']}-G{len(case['widths'])}-Kg{case['group_top_k']}"


cases = pytest.mark.parametrize("case", REFERENCE["cases"], ids=case_name)


def close(actual: Tensor, expected: Any) -> None:
    assert actual.dtype == torch.float64
    torch.testing.assert_close(
        actual, torch.tensor(expected, dtype=torch.float64), rtol=TOLERANCE, atol=TOLERANCE
    )


def route(case: dict[str, Any]) -> tuple[RoutingDecision, Tensor, Tensor]:
    group_logits = torch.tensor(case["group_logits"], dtype=torch.float64, requires_grad=True)
    expert_logits = torch.tensor(case["expert_logits"], dtype=torch.float64, requires_grad=True)
    decision = two_level_route(
        group_logits,
        expert_logits,
        group_top_k=case["group_top_k"],
        expert_top_k=case["expert_top_k"],
        group_score=case["group_score"],
        expert_weighting="post_softmax",
    )
    return decision, group_logits, expert_logits


@cases
def test_routing(case: dict[str, Any]) -> None:
    decision, _, _ = route(case)
    expected = case["expected"]
    close(decision.group_weights_TG, expected["group_weights"])
    close(decision.joint_probability_TE, expected["joint_probability"])
    close(decision.expert_weights_TE, expected["expert_weights_post_softmax"])
    assert torch.equal(decision.group_mask_TG, torch.tensor(expected["group_mask"], dtype=torch.bool))
    assert torch.equal(decision.expert_mask_TE, torch.tensor(expected["expert_mask"], dtype=torch.bool))


@cases
def test_group_wise_loss(case: dict[str, Any]) -> None:
    decision, group_logits, _ = route(case)
    assert decision.group_logits_TG is not None
    r_G = size_weights(case["widths"], case["width_interval"])
    loss = group_wise_loss(decision.group_logits_TG, decision.group_mask_TG, r_G)
    (gradient,) = torch.autograd.grad(loss, group_logits)
    close(loss, case["expected"]["group_loss"])
    close(gradient, case["expected"]["grad_group_loss_wrt_group_logits"])


@cases
def test_intra_group_loss(case: dict[str, Any]) -> None:
    decision, group_logits, expert_logits = route(case)
    loss = intra_group_loss(
        decision.expert_weights_TE,
        decision.expert_mask_TE,
        num_groups=len(case["widths"]),
        group_top_k=case["group_top_k"],
    )
    by_group, by_expert = torch.autograd.grad(loss, (group_logits, expert_logits))
    close(loss, case["expected"]["intra_group_loss"])
    close(by_group, case["expected"]["grad_intra_loss_wrt_group_logits"])
    close(by_expert, case["expected"]["grad_intra_loss_wrt_expert_logits"])


@pytest.mark.parametrize("placement", REFERENCE["placements"], ids=lambda p: f"G{p['groups']}")
def test_slots(placement: dict[str, Any]) -> None:
    slots = all_size_order(placement["groups"], placement["experts_per_group"])
    assert [list(slot) for slot in slots] == placement["global_slots"]
    one_set = [group for group, _ in slots[: placement["groups"]]]
    assert one_set == placement["order_of_groups_within_one_set"]
