from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mohge.config.schema import ExpertsConfig, ExpertWeighting, GroupScore, RouterConfig
from mohge.moe.decision import RoutingDecision
from mohge.moe.losses import auxiliary_losses
from mohge.moe.routers import TopKRouter, TwoLevelRouter, build_router, top_k_route, two_level_route


@dataclass(frozen=True)
class Case:
    """Random logits and settings; the scale goes to where float32 scores underflow."""

    tokens: int
    groups: int
    per_group: int
    group_top_k: int
    expert_top_k: int
    scale: float
    dtype: torch.dtype
    seed: int

    def logits(self, columns: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + columns)
        logits = torch.randn(self.tokens, columns, generator=generator, dtype=torch.float64)
        return (self.scale * logits).to(self.dtype).requires_grad_()


@st.composite
def case_strategy(draw: st.DrawFn) -> Case:
    groups, per_group = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    group_top_k = draw(st.integers(1, groups))
    return Case(
        tokens=draw(st.integers(1, 17)),
        groups=groups,
        per_group=per_group,
        group_top_k=group_top_k,
        expert_top_k=draw(st.integers(1, group_top_k * per_group)),
        scale=draw(st.sampled_from([0.0, 1.0, 20.0, 1000.0])),
        dtype=draw(st.sampled_from([torch.float32, torch.float64])),
        seed=draw(st.integers(0, 1000)),
    )


def ones(rows: int, dtype: torch.dtype) -> Tensor:
    return torch.ones(rows, dtype=dtype)


def check_common_invariants(decision: RoutingDecision, case: Case) -> None:
    T, K, E, G, N = (
        case.tokens,
        case.expert_top_k,
        case.groups * case.per_group,
        case.groups,
        case.per_group,
    )
    assert decision.num_tokens == T
    assert decision.expert_top_k == K
    assert (decision.num_experts, decision.num_groups, decision.experts_per_group) == (E, G, N)
    assert decision.weights_TK.dtype == decision.joint_probability_TE.dtype == case.dtype

    # Counts, masks and dense weights tell the same story as the ids.
    assert decision.expert_counts_E.sum() == T * K
    assert torch.equal(decision.expert_mask_TE.sum(1), torch.full((T,), K))
    assert torch.equal(decision.expert_mask_TE.sum(0), decision.expert_counts_E)
    assert torch.equal(decision.group_mask_TG.sum(0), decision.group_counts_G)
    dense_TE = decision.expert_weights_TE
    assert torch.equal(dense_TE.gather(1, decision.expert_ids_TK), decision.weights_TK)
    assert (dense_TE[~decision.expert_mask_TE] == 0).all()

    # The post-softmax passes through float32, see two_level_route.
    torch.testing.assert_close(decision.weights_TK.sum(1), ones(T, case.dtype), rtol=0, atol=1e-6)
    torch.testing.assert_close(decision.joint_probability_TE.sum(1), ones(T, case.dtype))

    # The chosen experts are the most probable ones, best first.
    chosen = decision.joint_probability_TE.gather(1, decision.expert_ids_TK)
    assert torch.equal(chosen, decision.joint_probability_TE.topk(K).values)

    # A chosen expert lies in a group of the mask.
    assert decision.group_mask_TG.gather(1, decision.expert_ids_TK // N).all()


@settings(deadline=None)
@given(
    case=case_strategy(),
    group_score=st.sampled_from(["softmax", "sigmoid"]),
    expert_weighting=st.sampled_from(["renormalize", "post_softmax"]),
)
def test_two_level_invariants(case: Case, group_score: GroupScore, expert_weighting: ExpertWeighting) -> None:
    group_logits, expert_logits = case.logits(case.groups), case.logits(case.groups * case.per_group)
    decision = two_level_route(
        group_logits,
        expert_logits,
        group_top_k=case.group_top_k,
        expert_top_k=case.expert_top_k,
        group_score=group_score,
        expert_weighting=expert_weighting,
    )
    check_common_invariants(decision, case)
    mask = decision.group_mask_TG
    assert torch.equal(mask.sum(1), torch.full((case.tokens,), case.group_top_k))
    floor_T = group_logits.masked_fill(~mask, torch.inf).amin(1)
    assert (group_logits.masked_fill(mask, -torch.inf).amax(1) <= floor_T).all()
    assert (decision.group_weights_TG[~mask] == 0).all()
    probability_TG = decision.joint_probability_TE.view(case.tokens, case.groups, case.per_group).sum(2)
    assert (probability_TG[~mask] == 0).all()

    gradients = torch.autograd.grad(decision.weights_TK.square().sum(), (group_logits, expert_logits))
    assert all(gradient.isfinite().all() for gradient in gradients)


@settings(deadline=None)
@given(case=case_strategy(), expert_weighting=st.sampled_from(["renormalize", "post_softmax"]))
def test_flat_invariants(case: Case, expert_weighting: ExpertWeighting) -> None:
    logits = case.logits(case.groups * case.per_group)
    decision = top_k_route(
        logits, num_groups=case.groups, expert_top_k=case.expert_top_k, expert_weighting=expert_weighting
    )
    check_common_invariants(decision, case)
    assert decision.group_logits_TG is None
    assert torch.equal(decision.joint_probability_TE, logits.softmax(1))
    torch.testing.assert_close(decision.group_weights_TG.sum(1), ones(case.tokens, case.dtype))
    rows_TG = decision.expert_mask_TE.view(case.tokens, case.groups, case.per_group).any(2)
    assert torch.equal(decision.group_mask_TG, rows_TG)


def test_two_level_by_hand() -> None:
    """Two groups of two, both selected: group scores 3/4 and 1/4, experts split 2/3 : 1/3 and 1/2 : 1/2."""
    decision = two_level_route(
        torch.tensor([[3.0, 1.0]]).log(),
        torch.tensor([[1.0, 2.0, 5.0, 5.0]]).log(),
        group_top_k=2,
        expert_top_k=2,
    )
    torch.testing.assert_close(decision.joint_probability_TE, torch.tensor([[1 / 4, 1 / 2, 1 / 8, 1 / 8]]))
    assert decision.expert_ids_TK.tolist() == [[1, 0]]
    torch.testing.assert_close(decision.weights_TK, torch.tensor([[2 / 3, 1 / 3]]))


def test_top_k_is_taken_over_all_selected_groups_together() -> None:
    """Group 0 is selected, yet all chosen experts may lie in group 1; group 2 has the best expert logit."""
    decision = two_level_route(
        torch.tensor([[-3.0, 3.0, -9.0]]),
        torch.tensor([[0.0, 0.0, 0.1, 0.0, 50.0, 0.0]]),
        group_top_k=2,
        expert_top_k=2,
    )
    assert decision.group_mask_TG.tolist() == [[True, True, False]]
    assert decision.expert_ids_TK.tolist() == [[2, 3]]


def test_gradcheck_renormalize() -> None:
    # A wide step: the group scores pass through float32, see two_level_route.
    case = Case(5, 3, 4, 2, 3, 1.0, torch.float64, 3)

    def weights(group_logits: Tensor, expert_logits: Tensor) -> Tensor:
        return two_level_route(group_logits, expert_logits, group_top_k=2, expert_top_k=3).weights_TK

    assert torch.autograd.gradcheck(
        weights, (case.logits(3), case.logits(12)), eps=1e-3, atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group_top_k": 0}, "group_top_k=0 is not between 1 and the 3 groups"),
        ({"group_top_k": 4}, "group_top_k=4 is not between 1 and the 3 groups"),
        ({"expert_top_k": 0}, "expert_top_k=0"),
        ({"expert_top_k": 5}, "expert_top_k=5 is not between 1 and the 4 experts of a token's groups"),
        ({"group_score": "relu"}, "group_score='relu'"),
        ({"expert_weighting": "max"}, "expert_weighting='max'"),
    ],
)
def test_two_level_refuses(settings: dict[str, object], message: str) -> None:
    arguments = {"group_top_k": 2, "expert_top_k": 2} | settings
    with pytest.raises(ValueError, match=message):
        two_level_route(torch.zeros(2, 3), torch.zeros(2, 6), **arguments)  # type: ignore[arg-type]


def test_flat_refuses() -> None:
    with pytest.raises(ValueError, match="expert_top_k=7 is not between 1 and the 6 experts"):
        top_k_route(torch.zeros(2, 6), num_groups=3, expert_top_k=7)
    with pytest.raises(ValueError, match="6 experts do not divide into 4 groups"):
        top_k_route(torch.zeros(2, 6), num_groups=4, expert_top_k=1)


EXPERTS = ExpertsConfig(widths=(8, 16, 24), per_group=2)
TWO_LEVEL = RouterConfig(kind="two_level", group_top_k=2, expert_top_k=3, group_score="sigmoid")
FLAT = RouterConfig(kind="top_k", expert_top_k=3)


@pytest.mark.parametrize("cfg", [TWO_LEVEL, FLAT], ids=lambda cfg: cfg.kind)
def test_module_routes_its_logits_in_float32_under_autocast(cfg: RouterConfig) -> None:
    torch.manual_seed(0)
    router = build_router(cfg, EXPERTS, 16)
    x_TD = torch.randn(10, 16)
    plain = router(x_TD)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = router(x_TD)
    assert torch.equal(plain.expert_logits_TE, F.linear(x_TD, router.expert_weight))
    assert torch.equal(autocast.expert_logits_TE, plain.expert_logits_TE)
    assert torch.equal(autocast.weights_TK, plain.weights_TK)
    assert router(x_TD.bfloat16()).weights_TK.dtype == torch.float32

    plain.weights_TK[:, 0].sum().backward()
    for parameter in router.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_build_router() -> None:
    two_level = build_router(TWO_LEVEL, EXPERTS, 16)
    assert isinstance(two_level, TwoLevelRouter)
    assert {name: tuple(p.shape) for name, p in two_level.named_parameters()} == {
        "group_weight": (3, 16),
        "expert_weight": (6, 16),
    }
    flat = build_router(FLAT, EXPERTS, 16)
    assert isinstance(flat, TopKRouter)
    assert {name: tuple(p.shape) for name, p in flat.named_parameters()} == {"expert_weight": (6, 16)}
    with pytest.raises(ValueError, match=r"router\.kind=none"):
        build_router(RouterConfig(kind="none"), EXPERTS, 16)
    with pytest.raises(ValueError, match=r"router\.group_top_k is not set"):
        build_router(RouterConfig(kind="two_level", expert_top_k=1), EXPERTS, 16)


@pytest.mark.parametrize("expert_weighting", ["renormalize", "post_softmax"])
@pytest.mark.parametrize(
    ("group_top_k", "expert_top_k", "groups_learn", "experts_learn"),
    [(2, 2, True, True), (2, 1, False, False), (1, 2, False, True), (1, 1, False, False)],
)
def test_what_the_outputs_of_experts_teach(
    group_top_k: int,
    expert_top_k: int,
    groups_learn: bool,
    experts_learn: bool,
    expert_weighting: ExpertWeighting,
) -> None:
    """Nothing, where the weight of one expert is 1, or that of one group cancels out: `checks.remarks`."""
    generator = torch.Generator().manual_seed(0)
    group_TG, expert_TE, value_TK = (
        torch.randn(64, columns, generator=generator, dtype=torch.float64)
        for columns in (4, 12, expert_top_k)
    )
    decision = two_level_route(
        group_TG.requires_grad_(),
        expert_TE.requires_grad_(),
        group_top_k=group_top_k,
        expert_top_k=expert_top_k,
        expert_weighting=expert_weighting,
    )
    losses = auxiliary_losses(decision, widths=(1, 2, 3, 4))
    for blind in ((decision.weights_TK * value_TK).sum(), losses["intra"]):
        gradients = torch.autograd.grad(blind, (group_TG, expert_TE), retain_graph=True)
        learn = [bool(gradient.abs().max() > 1e-6) for gradient in gradients]
        assert learn == [groups_learn, experts_learn]
    (of_balance_TG,) = torch.autograd.grad(losses["balance"], group_TG, retain_graph=True)
    assert bool(of_balance_TG.abs().max() > 1e-6) == (group_top_k > 1)
    for seeing in (losses["group"], losses["z"]):
        (gradient_TG,) = torch.autograd.grad(seeing, group_TG, retain_graph=True)
        assert gradient_TG.abs().max() > 1e-6
