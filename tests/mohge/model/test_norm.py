"""RMSNorm against torch's own, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mohge.model.norm import RMSNorm


@pytest.mark.parametrize("shape", [(1, 8), (3, 5, 8), (2, 1, 64)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_it_is_that_of_torch(shape: tuple[int, ...], scale: float) -> None:
    results = []
    for kind in (nn.RMSNorm, RMSNorm):
        generator = torch.Generator().manual_seed(0)
        norm = kind(shape[-1], eps=1e-6)
        norm.weight.data = torch.randn(shape[-1], generator=generator)
        x = (scale * torch.randn(shape, generator=generator)).requires_grad_()
        y = norm(x)
        gradients = torch.autograd.grad(y, (x, norm.weight), torch.randn(shape, generator=generator))
        results.append((y, *gradients))
    for actual, expected in zip(*results[::-1], strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6 / min(scale, 1.0))


def test_its_gradient_is_that_of_finite_differences() -> None:
    norm = RMSNorm(6, eps=1e-6).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, _: norm(x), (x, norm.weight))


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_other_dtypes_are_left_to_torch() -> None:
    x = torch.randn(4, 8, dtype=torch.bfloat16)
    torch.testing.assert_close(RMSNorm(8, eps=1e-6)(x), nn.RMSNorm(8, eps=1e-6)(x))
