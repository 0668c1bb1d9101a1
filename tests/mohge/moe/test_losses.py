from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st

from mohge.moe.decision import RoutingDecision
from mohge.moe.losses import (
    FLAT_LOSS_NAMES,
    LOSS_NAMES,
    GlobalBatchShares,
    auxiliary_losses,
    default_interval,
    group_wise_loss,
    intra_group_loss,
    size_weights,
    switch_balance_loss,
    z_loss,
)
from mohge.moe.routers import top_k_route, two_level_route

WIDTHS = (32, 48, 64, 80)
G, N, K_G, K = 4, 3, 2, 3


def two_level(seed: int, tokens: int = 20) -> RoutingDecision:
    generator = torch.Generator().manual_seed(seed)
    group_logits = torch.randn(tokens, G, generator=generator).requires_grad_()
    expert_logits = torch.randn(tokens, G * N, generator=generator).requires_grad_()
    return two_level_route(group_logits, expert_logits, group_top_k=K_G, expert_top_k=K)


def flat(seed: int) -> RoutingDecision:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(20, G * N, generator=generator).requires_grad_()
    return top_k_route(logits, num_groups=G, expert_top_k=K)


def test_size_weights() -> None:
    released = [384 + 128 * g for g in range(8)]
    assert default_interval(released) == 1024
    assert size_weights(released, 1024).tolist() == [1 + g / 8 for g in range(8)]
    assert size_weights([64, 64], default_interval([64, 64])).tolist() == [1.0, 1.0]


@settings(deadline=None)
@given(st.lists(st.integers(1, 4096), min_size=1, max_size=9))
def test_default_interval_spans_the_released_range(widths: list[int]) -> None:
    r_G = size_weights(widths, default_interval(widths))
    assert r_G.min() == 1
    assert r_G.max().item() == pytest.approx(1.875 if len(set(widths)) > 1 else 1.0)
    by_width = [r for _, r in sorted(zip(widths, r_G.tolist(), strict=True))]
    assert by_width == sorted(by_width)


@pytest.mark.parametrize("interval", [0.0, -1.0, float("nan"), float("inf")])
def test_size_weights_refuse_an_interval_that_is_not_positive_and_finite(interval: float) -> None:
    with pytest.raises(ValueError, match=f"interval={interval} must be positive and finite"):
        size_weights([1, 2], interval)


def test_size_weights_refuse_no_widths() -> None:
    with pytest.raises(ValueError, match="no widths"):
        size_weights([], 1.0)


def uniform_decision() -> RoutingDecision:
    """Zero logits, and picks that fall equally on every group and expert."""
    ids_TK = torch.tensor([[0, 2], [1, 3]])
    return RoutingDecision(
        expert_ids_TK=ids_TK,
        weights_TK=torch.full((2, 2), 0.5),
        expert_logits_TE=torch.zeros(2, 4),
        joint_probability_TE=torch.full((2, 4), 0.25),
        group_weights_TG=torch.full((2, 2), 0.5),
        group_mask_TG=torch.ones(2, 2, dtype=torch.bool),
        group_logits_TG=torch.zeros(2, 2),
        group_top_k=2,
    )


def test_losses_of_uniform_routing() -> None:
    losses = auxiliary_losses(uniform_decision(), widths=(16, 16))
    log2 = torch.tensor(2.0).log().item()
    expected = {"group": 1.0, "intra": 1.0, "balance": 1.0, "z": 2 * log2**2}
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected)


def test_group_wise_loss_prefers_narrow_groups() -> None:
    """With equal picks, gradient descent raises the logit of the narrowest group."""
    logits = torch.zeros(1, 3, requires_grad=True)
    loss = group_wise_loss(logits, torch.ones(1, 3, dtype=torch.bool), size_weights([8, 16, 24], 16))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[0, 0] < 0 < gradient[0, 2]


def test_collapse_costs_more_than_balance() -> None:
    mask = torch.zeros(8, 4, dtype=torch.bool)
    mask[:, 0] = True
    probability = mask.float()
    assert switch_balance_loss(probability, mask).item() == 4.0
    assert intra_group_loss(probability, mask, num_groups=2, group_top_k=1).item() == 2.0
    balanced = torch.eye(4, dtype=torch.bool).repeat(2, 1)
    assert switch_balance_loss(balanced.float(), balanced).item() == 1.0


def test_z_loss_by_hand() -> None:
    logits = torch.tensor([[1.0, 3.0], [5.0, 7.0]]).log()
    expected = (torch.tensor([4.0, 12.0]).log() ** 2).mean()
    torch.testing.assert_close(z_loss(logits), expected)


def test_names_follow_the_kind_of_router() -> None:
    assert set(auxiliary_losses(two_level(0), widths=WIDTHS)) == set(LOSS_NAMES)
    assert set(auxiliary_losses(flat(0), widths=WIDTHS)) == set(FLAT_LOSS_NAMES)


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_only_the_named_losses_have_a_gradient(name: str) -> None:
    every = auxiliary_losses(two_level(0), widths=WIDTHS)
    one = auxiliary_losses(two_level(0), widths=WIDTHS, with_gradient={name})
    assert {key for key, loss in one.items() if loss.requires_grad} == {name}
    assert {key: loss.item() for key, loss in one.items()} == {k: v.item() for k, v in every.items()}
    assert all(loss.dtype == torch.float32 for loss in every.values())
    with torch.no_grad():
        assert not any(loss.requires_grad for loss in auxiliary_losses(two_level(0), widths=WIDTHS).values())


def test_flat_z_loss_has_a_gradient_only_when_named() -> None:
    assert auxiliary_losses(flat(0), widths=WIDTHS)["z"].requires_grad
    assert not auxiliary_losses(flat(0), widths=WIDTHS, with_gradient=())["z"].requires_grad


def test_global_batch_shares_count_the_step_so_far() -> None:
    first, second = two_level(0, 20), two_level(1, 30)
    shares = GlobalBatchShares()
    alone = shares.update([first, second])
    own = auxiliary_losses(first, widths=WIDTHS)
    same = auxiliary_losses(first, widths=WIDTHS, shares=alone[0])
    for name in LOSS_NAMES:
        torch.testing.assert_close(same[name], own[name])

    both = shares.update([second, first])
    counts = first.expert_counts_E + second.expert_counts_E
    for layer in both:
        torch.testing.assert_close(layer.expert_E, counts.double() / counts.sum())
        group_counts = first.group_counts_G + second.group_counts_G
        torch.testing.assert_close(layer.group_G, group_counts.double() / group_counts.sum())
    other = auxiliary_losses(first, widths=WIDTHS, shares=both[0])
    for name in ("group", "intra", "balance"):
        assert other[name] != own[name]

    shares.reset()
    assert torch.equal(shares.update([first, second])[0].expert_E, alone[0].expert_E)


def _shares_of_rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    (shares,) = GlobalBatchShares().update([two_level(rank)])
    torch.save(shares.expert_E, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_global_batch_shares_sum_over_ranks(tmp_path: Path) -> None:
    mp.spawn(_shares_of_rank, args=(str(tmp_path),), nprocs=2)
    counts = two_level(0).expert_counts_E + two_level(1).expert_counts_E
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), counts.double() / counts.sum())
