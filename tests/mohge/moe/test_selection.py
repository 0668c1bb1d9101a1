"""Choices other than the most probable of all: equally many of each group, and by a bias.

Shapes: T tokens, D model width, K experts per token, E experts, G groups, N experts per group, S groups
selected per token, W width.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mohge.config.schema import RouterConfig
from mohge.moe.losses import parameter_penalty, switch_balance_loss
from mohge.moe.routers import TopKRouter, top_k_route, two_level_route

SCALES = st.sampled_from([0.0, 1.0, 20.0, 1000.0])
"""Of logits: ties, and probabilities that underflow, too."""


def logits_of(seed: int, tokens: int, columns: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(tokens, columns, generator=generator, dtype=torch.float64)


@settings(deadline=None, max_examples=50)
@given(
    groups=st.integers(1, 5),
    per_group=st.integers(1, 5),
    tokens=st.integers(1, 9),
    scale=SCALES,
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_every_group_gets_as_many_rows_whatever_the_logits(
    groups: int, per_group: int, tokens: int, scale: float, seed: int, data: st.DataObject
) -> None:
    """MoGE: a group computes T * K / G rows, and its experts are the best of it."""
    share = data.draw(st.integers(1, per_group))
    logits_TE = logits_of(seed, tokens, groups * per_group, scale)
    decision = top_k_route(logits_TE, num_groups=groups, expert_top_k=share * groups, selection="per_group")
    rows_G = decision.expert_counts_E.view(groups, per_group).sum(dim=1)
    assert rows_G.tolist() == [tokens * share] * groups

    probability_TE = logits_TE.softmax(dim=1)
    for token in range(tokens):
        expected = []
        for group in range(groups):
            of_group = probability_TE[token, group * per_group : (group + 1) * per_group]
            expected += of_group.sort(descending=True).values[:share].tolist()
        chosen = probability_TE[token, decision.expert_ids_TK[token]].tolist()
        assert chosen == sorted(expected, reverse=True)
        weights = torch.tensor(chosen, dtype=torch.float64) / sum(chosen)
        torch.testing.assert_close(decision.weights_TK[token], weights)


@settings(deadline=None, max_examples=50)
@given(
    groups=st.integers(1, 5),
    per_group=st.integers(1, 4),
    tokens=st.integers(1, 9),
    scale=SCALES,
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_every_selected_group_gives_as_many_experts(
    groups: int, per_group: int, tokens: int, scale: float, seed: int, data: st.DataObject
) -> None:
    """Two levels with a fixed number of experts of each selected group."""
    selected, share = data.draw(st.integers(1, groups)), data.draw(st.integers(1, per_group))
    group_logits_TG = logits_of(seed, tokens, groups, scale)
    expert_logits_TE = logits_of(seed + 1, tokens, groups * per_group, scale)
    decision = two_level_route(
        group_logits_TG,
        expert_logits_TE,
        group_top_k=selected,
        expert_top_k=share * selected,
        selection="per_group",
    )
    rows_TG = decision.expert_mask_TE.view(tokens, groups, per_group).sum(dim=2)
    assert torch.equal(rows_TG, share * decision.group_mask_TG)

    for token in range(tokens):
        expected = []
        for group in range(groups):
            if decision.group_mask_TG[token, group]:
                of_group = decision.joint_probability_TE[token].view(groups, per_group)[group]
                expected += of_group.sort(descending=True).values[:share].tolist()
        chosen = decision.joint_probability_TE[token, decision.expert_ids_TK[token]].tolist()
        assert chosen == sorted(expected, reverse=True)
    # The groups and the probabilities are those that a choice over all of them together has.
    joint = two_level_route(
        group_logits_TG, expert_logits_TE, group_top_k=selected, expert_top_k=share * selected
    )
    assert torch.equal(decision.group_mask_TG, joint.group_mask_TG)
    assert torch.equal(decision.joint_probability_TE, joint.joint_probability_TE)


def test_experts_of_each_group_by_hand() -> None:
    """Group 0 has the three most probable experts, and group 1 gives one all the same."""
    logits_TE = torch.tensor([[8.0, 4.0, 2.0, 1.0, 0.5, 0.5]]).log()
    together = top_k_route(logits_TE, num_groups=2, expert_top_k=2)
    each = top_k_route(logits_TE, num_groups=2, expert_top_k=2, selection="per_group")
    assert together.expert_ids_TK.tolist() == [[0, 1]]
    assert each.expert_ids_TK.tolist() == [[0, 3]]
    torch.testing.assert_close(each.weights_TK, torch.tensor([[8 / 9, 1 / 9]]))


def test_shares_that_are_not_equal_are_refused() -> None:
    with pytest.raises(ValueError, match="expert_top_k=3 is not equally many experts of each of 2 groups"):
        top_k_route(torch.zeros(1, 6), num_groups=2, expert_top_k=3, selection="per_group")
    with pytest.raises(ValueError, match="expert_top_k=3 is not equally many experts of each of 2 groups"):
        two_level_route(
            torch.zeros(1, 3), torch.zeros(1, 9), group_top_k=2, expert_top_k=3, selection="per_group"
        )
    for selection in ("best", ""):
        with pytest.raises(ValueError, match=f"selection='{selection}' is neither"):
            top_k_route(torch.zeros(1, 6), num_groups=2, expert_top_k=2, selection=selection)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=50)
@given(tokens=st.integers(1, 9), top_k=st.integers(1, 8), seed=st.integers(0, 1000), scale=SCALES)
def test_the_bias_moves_the_choice_and_not_the_weights(
    tokens: int, top_k: int, seed: int, scale: float
) -> None:
    logits_TE = logits_of(seed, tokens, 8).requires_grad_()
    bias_E = logits_of(seed + 1, 1, 8, scale)[0]
    decision = top_k_route(logits_TE, num_groups=2, expert_top_k=top_k, bias_E=bias_E)
    probability_TE = logits_TE.softmax(dim=1)
    ids_TK = (probability_TE + bias_E).topk(top_k, dim=1).indices
    assert torch.equal(decision.expert_mask_TE, torch.zeros(tokens, 8).scatter(1, ids_TK, 1.0).bool())
    chosen_TK = probability_TE.gather(1, decision.expert_ids_TK)
    torch.testing.assert_close(decision.weights_TK, chosen_TK / chosen_TK.sum(dim=1, keepdim=True))
    assert torch.equal(decision.joint_probability_TE, probability_TE), "what losses see has no bias"


def test_a_bias_large_enough_decides_alone() -> None:
    logits_TE = torch.tensor([[4.0, 2.0, 1.0, 1.0]]).log()
    bias_E = torch.tensor([0.0, 0.0, 1.0, 2.0])
    decision = top_k_route(logits_TE, num_groups=1, expert_top_k=2, bias_E=bias_E)
    assert decision.expert_ids_TK.tolist() == [[3, 2]]
    assert decision.weights_TK.tolist() == [[0.5, 0.5]]
    none = top_k_route(logits_TE, num_groups=1, expert_top_k=2, bias_E=torch.zeros(4))
    assert none.expert_ids_TK.tolist() == [[0, 1]]


def loss_free(experts: int, rate: float, top_k: int = 2) -> TopKRouter:
    return TopKRouter(4, 1, experts, RouterConfig(kind="top_k", expert_top_k=top_k, bias_rate=rate))


def test_the_bias_moves_by_the_rate_against_the_load() -> None:
    router = loss_free(5, rate=0.25)
    assert router.expert_bias is not None
    assert not router.expert_bias.any(), "it begins at zero"
    assert "expert_bias" in router.state_dict()
    assert [name for name, _ in router.named_parameters()] == ["expert_weight"]
    router.move_bias(torch.tensor([10, 0, 4, 3, 3]))  # their mean is 4
    assert router.expert_bias.tolist() == [-0.25, 0.25, 0.0, 0.25, 0.25]
    router.move_bias(torch.tensor([0, 20, 0, 0, 0]))
    assert router.expert_bias.tolist() == [0.0, 0.0, 0.25, 0.5, 0.5]


def test_a_small_difference_of_large_loads_counts_too() -> None:
    """float32 could not tell these loads from their mean."""
    router = loss_free(3, rate=1.0)
    assert router.expert_bias is not None
    router.move_bias(torch.tensor([1_000_000_001, 1_000_000_000, 1_000_000_000]))
    assert router.expert_bias.tolist() == [-1.0, 1.0, 1.0]


def test_loads_become_nearly_equal_without_a_loss() -> None:
    """Logits that favour few experts stay as they are; the bias alone spreads the tokens."""
    E, K, T = 8, 2, 512
    router = loss_free(E, rate=0.002, top_k=K)
    skewed_TE = logits_of(1, T, E).float() + torch.linspace(0, 3, E)

    def counts() -> Tensor:
        decision = top_k_route(skewed_TE, num_groups=1, expert_top_k=K, bias_E=router.expert_bias)
        return decision.expert_counts_E

    def largest(counts_E: Tensor) -> float:
        return float(counts_E.max() / counts_E.double().mean())

    assert largest(counts()) > 2.5
    for _ in range(400):
        router.move_bias(counts())
    assert largest(counts()) < 1.15
    assert counts().min() > 0.85 * T * K / E


def test_the_parameter_penalty_by_hand() -> None:
    """Two tokens, three experts of widths 1, 2 and 4: 3 * (1/4 * 0.3 * 1/4 + 1/2 * 0.3 * 1/2 + 1/4 * 0.4)."""
    probability_TE = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]])
    mask_TE = torch.tensor([[True, True, False], [False, True, True]])
    penalty = parameter_penalty(probability_TE, mask_TE, torch.tensor([1.0, 2.0, 4.0]))
    assert penalty.item() == pytest.approx(3 * (0.01875 + 0.075 + 0.1))


def test_the_parameter_penalty_moves_probability_from_wide_to_narrow() -> None:
    """Loads are equal, so that widths alone decide: a step down the gradient favours the narrow."""
    logits_TE = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
    widths_E = torch.tensor([16.0, 16.0, 32.0, 64.0])
    penalty = parameter_penalty(logits_TE.softmax(dim=1), torch.eye(4, dtype=torch.bool), widths_E)
    (gradient_TE,) = torch.autograd.grad(penalty, logits_TE)
    better_TE = (-gradient_TE).softmax(dim=1)
    assert (better_TE.diff(dim=1)[:, 1:] < 0).all(), "the wider, the less probable"
    assert torch.equal(better_TE[:, 0], better_TE[:, 1])
    balance = switch_balance_loss(logits_TE.softmax(dim=1), torch.eye(4, dtype=torch.bool))
    (without_TE,) = torch.autograd.grad(balance, logits_TE)
    torch.testing.assert_close(without_TE, torch.zeros_like(without_TE))  # the Switch loss leaves them


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), width=st.integers(1, 4096), scale=SCALES)
def test_the_parameter_penalty_of_one_width_is_the_switch_loss(seed: int, width: int, scale: float) -> None:
    decision = top_k_route(logits_of(seed, 7, 6, scale), num_groups=2, expert_top_k=2)
    probability_TE, mask_TE = decision.joint_probability_TE, decision.expert_mask_TE
    penalty = parameter_penalty(probability_TE, mask_TE, torch.full((6,), float(width)))
    torch.testing.assert_close(penalty, switch_balance_loss(probability_TE, mask_TE), rtol=1e-12, atol=0)


def test_weights_of_improbable_experts_that_a_bias_has_chosen_are_finite():
    logits = torch.tensor([[200.0, 0.0, 0.0, 0.0]], requires_grad=True)
    decision = top_k_route(logits, num_groups=1, expert_top_k=2, bias_E=torch.tensor([-2.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(decision.weights_TK, torch.full((1, 2), 0.5))
    decision.weights_TK[0, 0].backward()
    assert logits.grad.isfinite().all()
