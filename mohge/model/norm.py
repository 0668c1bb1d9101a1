"""Root-mean-square normalisation.

Shapes: D model width; "..." any leading sizes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class RMSNorm(nn.RMSNorm):
    """x / root of the mean square of x * weight (Zhang and Sennrich, arXiv 1910.07467).

    On a CPU, where torch composes it and its gradient of some fifteen passes over x, it has its own gradient
    and takes eight; elsewhere it is torch's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (..., D)."""
        if x.device.type != "cpu" or x.dtype != self.weight.dtype:
            return super().forward(x)
        if not torch.is_grad_enabled():  # the way through autograd costs as much as a few rows do
            assert self.eps is not None
            return _normalize(x, self.weight, self.eps)[0]
        y: Tensor = _Normalize.apply(x, self.weight, self.eps)
        return y


def _normalize(x: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The output, and 1 / root of the mean square."""
    mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
    scale = mean_square.add_(eps).rsqrt_()
    return (x * scale).mul_(weight_D), scale


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        y, scale = _normalize(x, weight_D, eps)
        ctx.save_for_backward(x, weight_D, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight_D, scale = ctx.saved_tensors
        product = (gradient * x).flatten(end_dim=-2)
        grad_weight_D = product.t() @ scale.flatten()
        along = (product @ weight_D).view_as(scale) * scale**3 / x.shape[-1]
        return (gradient * weight_D).mul_(scale).addcmul_(x, along, value=-1), grad_weight_D, None
