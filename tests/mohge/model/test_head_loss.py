"""The chunked cross-entropy against torch's on all logits, gradients included."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mohge.model import head_loss
from mohge.model.head_loss import cross_entropy, mean_cross_entropy


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_loss, "_CHUNK", 8)


def inputs(
    positions: int, vocabulary: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(positions)
    hidden_PD = torch.randn(positions, 6, generator=generator, dtype=torch.float64).to(dtype)
    weight_VD = torch.randn(vocabulary, 6, generator=generator, dtype=torch.float64).to(dtype)
    targets_P = torch.randint(vocabulary, (positions,), generator=generator)
    return hidden_PD.requires_grad_(), weight_VD.requires_grad_(), targets_P


@settings(deadline=None, max_examples=30)
@given(positions=st.integers(1, 40), vocabulary=st.integers(1, 30), scale=st.floats(-3, 3))
def test_mean_and_gradients_are_those_of_torch(positions: int, vocabulary: int, scale: float) -> None:
    hidden_PD, weight_VD, targets_P = inputs(positions, vocabulary)
    expected = F.cross_entropy(F.linear(hidden_PD, weight_VD), targets_P)
    actual = mean_cross_entropy(hidden_PD, weight_VD, targets_P)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    leaves = (hidden_PD, weight_VD)
    for a, e in zip(
        torch.autograd.grad(actual * scale, leaves),
        torch.autograd.grad(expected * scale, leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, e, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_finite_differences() -> None:
    hidden_PD, weight_VD, targets_P = inputs(11, 5, torch.float64)
    assert torch.autograd.gradcheck(lambda h, w: mean_cross_entropy(h, w, targets_P), (hidden_PD, weight_VD))


def test_extreme_logits_stay_finite() -> None:
    hidden_PD, weight_VD, targets_P = inputs(9, 4)
    loss = mean_cross_entropy(hidden_PD * 1e4, weight_VD, targets_P)
    torch.testing.assert_close(loss, F.cross_entropy(F.linear(hidden_PD * 1e4, weight_VD), targets_P))
    loss.backward()
    assert hidden_PD.grad is not None
    assert hidden_PD.grad.isfinite().all()


def test_autocast_rounds_products_and_nothing_else() -> None:
    hidden_PD, weight_VD, targets_P = inputs(20, 30)
    exact = mean_cross_entropy(hidden_PD, weight_VD, targets_P)
    expected = torch.autograd.grad(exact, (hidden_PD, weight_VD))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = mean_cross_entropy(hidden_PD, weight_VD, targets_P)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=5e-3, atol=0)
    for actual, e in zip(torch.autograd.grad(rounded, (hidden_PD, weight_VD)), expected, strict=True):
        assert actual.dtype == torch.float32
        assert (actual - e).norm() / e.norm() < 0.02


def test_each_position_without_gradients() -> None:
    hidden_PD, weight_VD, targets_P = inputs(20, 7)
    targets_P[[3, 19]] = -100
    loss_P = cross_entropy(hidden_PD, weight_VD, targets_P)
    expected_P = F.cross_entropy(F.linear(hidden_PD, weight_VD), targets_P, reduction="none")
    torch.testing.assert_close(loss_P, expected_P)
    assert loss_P[3] == 0
    assert not loss_P.requires_grad


def test_no_more_logits_than_one_chunk() -> None:
    """Of all tensors that any operation makes, forward and backward, the largest is one chunk."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.numel())
            return result

    hidden_PD, weight_VD, targets_P = inputs(64, 1000)
    with Watch():
        mean_cross_entropy(hidden_PD, weight_VD, targets_P).backward()
        cross_entropy(hidden_PD, weight_VD, targets_P)
    assert largest == 8 * 1000
