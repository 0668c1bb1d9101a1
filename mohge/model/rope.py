"""Rotary position embedding (Su et al., arXiv 2104.09864).

Shapes: B batch, H heads, S sequence, R rotated width per head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class RotaryTable(NamedTuple):
    """Cosines and sines of the angle of every position and frequency, each (S, R/2).

    Rows of a batch may have positions of their own: then (B, 1, S, R/2).
    """

    cos: Tensor
    sin: Tensor


def rotary_table(
    length: int, width: int, base: float, *, dtype: torch.dtype, device: torch.device
) -> RotaryTable:
    """Angles `position * base ** (-2 i / R)` for positions 0 to `length - 1` and i < R/2.

    The model makes the table anew in every forward pass. That costs next to nothing, and a table kept as
    a buffer would be garbage after construction on the meta device.

    Args:
        length: S.
        width: R, even.
        base: Base of the frequencies.
        dtype: Type of the result; the angles themselves are computed in float64.
        device: Where to make it.

    Raises:
        ValueError: `width` is odd.
    """
    if width % 2:
        raise ValueError(f"RoPE rotates pairs, so its width must be even, not {width}")
    exponents = torch.arange(0, width, 2, dtype=torch.float64, device=device) / width
    positions = torch.arange(length, dtype=torch.float64, device=device)
    angles = torch.outer(positions, base**-exponents)
    return RotaryTable(angles.cos().to(dtype), angles.sin().to(dtype))


def rotate(x_BHSR: Tensor, table: RotaryTable) -> Tensor:
    """Rotate dimension i of each head together with dimension i + R/2 (the "half" pairing of GPT-NeoX).

    The rotation is computed in the wider of the two types and returned in that of `x_BHSR`, so that
    positions stay exact under bfloat16 autocast.

    Args:
        x_BHSR: Queries or keys.
        table: Angles of the S positions.

    Returns:
        (B, H, S, R).
    """
    if not torch.is_grad_enabled():  # the way through autograd costs as much as the rotation of one position
        return _turn(x_BHSR, table.cos, table.sin)
    rotated: Tensor = _Rotation.apply(x_BHSR, table.cos, table.sin)
    return rotated


class _Rotation(torch.autograd.Function):
    """Its gradient is the rotation back, which costs half of what autograd makes of the single operations."""

    @staticmethod
    def forward(ctx: Any, x_BHSR: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x_BHSR, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BHSR: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(gradient_BHSR, cos, -sin), None, None


def _turn(x_BHSR: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    wide = x_BHSR.to(torch.promote_types(x_BHSR.dtype, cos.dtype))
    first, second = wide.chunk(2, dim=-1)
    turned = torch.empty_like(wide, memory_format=torch.contiguous_format)
    to_first, to_second = turned.chunk(2, dim=-1)
    torch.mul(first, cos, out=to_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=to_second).addcmul_(first, sin)
    return turned.to(x_BHSR.dtype)
