"""The experts of a layer in C, compiled for the processor at hand: float32, on a CPU under Linux with gcc.

Shapes: T tokens, D model width, K experts per token, E experts, G groups, N experts per group (E = G * N),
W width of a group's experts, R rows, sorted by expert.

A product of a library copies its operands into a layout of its own, and its threads meet at the end of each:
with 64 rows per expert that costs half as much as the product. See product.h for what is done instead.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mohge.errors import UserError
from mohge.moe.dispatch import ExpertRows, add_up, by_row
from mohge.moe.native.build import library


def native(x_TD: Tensor, rows: ExpertRows, gate_up: Sequence[Tensor], down: Sequence[Tensor]) -> Tensor:
    """Compute the experts in C, one expert per thread at a time; differentiable once.

    Products are in float32, whatever the dtype of x_TD.

    Args:
        x_TD: tokens, on a CPU.
        rows: which expert computes which token, and with what weight.
        gate_up: of each group, float32 (N, 2W, D).
        down: of each group, float32 (N, D, W).

    Returns:
        y_TD in the dtype of x_TD.

    Raises:
        UserError: if it cannot be had here, or cannot compute this.
    """
    reason = why_not(x_TD.device.type, down[0].dtype, [x_TD.shape[1], *(group.shape[2] for group in down)])
    if reason:
        raise UserError(f"experts.kernel=native: {reason}; use experts.kernel=auto")
    inputs = x_TD.float(), rows.weights_TK.float(), rows
    # An autograd function is told that parameters need gradients even where none are computed.
    y_TD: Tensor = (
        _NativeExperts.apply(*inputs, *gate_up, *down)
        if torch.is_grad_enabled()
        else _forward(*inputs, (*gate_up, *down), keep=False)[0]
    )
    return y_TD.to(x_TD.dtype)


def why_not(device_type: str, dtype: torch.dtype, sizes: Sequence[int]) -> str | None:
    """Why the kernel cannot compute parameters of these sizes and dtype there; None if it can."""
    if device_type != "cpu" or dtype != torch.float32:
        return f"it computes float32 parameters on a CPU, and these are {dtype} on {device_type}"
    compiled = library()
    if isinstance(compiled, str):
        return compiled
    odd = [size for size in sizes if size % compiled.lanes]
    if odd:
        return (
            f"it needs model.d_model and experts.widths in multiples of {compiled.lanes}, and {odd[0]} is not"
        )
    return None


class _Group(ctypes.Structure):
    """`group` of experts.c."""

    _fields_ = [
        ("gate_up", ctypes.c_void_p),
        ("down", ctypes.c_void_p),
        ("grad_gate_up", ctypes.c_void_p),
        ("grad_down", ctypes.c_void_p),
        ("width", ctypes.c_int64),
    ]


class _Layer(ctypes.Structure):
    """`layer` of experts.c."""

    _fields_ = [
        ("d_model", ctypes.c_int64),
        ("num_groups", ctypes.c_int64),
        ("per_group", ctypes.c_int64),
        ("backward", ctypes.c_int64),
        ("groups", ctypes.POINTER(_Group)),
        ("counts", ctypes.c_void_p),
        ("tokens", ctypes.c_void_p),
        ("x", ctypes.c_void_p),
        ("kept", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("grad_y", ctypes.c_void_p),
        ("grad_x", ctypes.c_void_p),
        ("grad_weights", ctypes.c_void_p),
    ]


def _compute(
    counts_E: Tensor, parameters: Sequence[Tensor], gradients: Sequence[Tensor], **tensors: Tensor | None
) -> None:
    """Call the library, for the backward pass if there are gradients to fill.

    All tensors are contiguous, and live at least as long as the call.
    """
    num_groups = len(parameters) // 2
    gate_up, down = parameters[:num_groups], parameters[num_groups:]
    groups = (_Group * num_groups)()
    for g in range(num_groups):
        groups[g].gate_up, groups[g].down = gate_up[g].data_ptr(), down[g].data_ptr()
        groups[g].width = down[g].shape[2]
        if gradients:
            groups[g].grad_gate_up = gradients[g].data_ptr()
            groups[g].grad_down = gradients[num_groups + g].data_ptr()
    layer = _Layer(
        d_model=down[0].shape[1],
        num_groups=num_groups,
        per_group=down[0].shape[0],
        backward=bool(gradients),
        groups=groups,
        counts=counts_E.data_ptr(),
        **{name: tensor.data_ptr() for name, tensor in tensors.items() if tensor is not None},
    )
    compiled = library()
    assert not isinstance(compiled, str)
    compiled.compute(layer)


def _forward(
    x_TD: Tensor, weights_TK: Tensor, rows: ExpertRows, parameters: Sequence[Tensor], keep: bool
) -> tuple[Tensor, Sequence[Tensor | None]]:
    """The outputs, and what the backward pass needs; the input of SwiGLU is kept if it is asked for."""
    x_TD = x_TD.contiguous()
    parameters = [parameter.contiguous() for parameter in parameters]
    counts_E, token_R = rows.counts_E.contiguous(), rows.token_R.contiguous()
    down = parameters[len(parameters) // 2 :]
    kept = None
    if keep:
        rows_of_groups = counts_E.view(len(down), -1).sum(dim=1).tolist()
        widths = [w_out.shape[2] for w_out in down]
        kept = x_TD.new_empty(sum(2 * n * width for n, width in zip(rows_of_groups, widths, strict=True)))
    y_RD = x_TD.new_empty(token_R.numel(), x_TD.shape[1])
    _compute(counts_E, parameters, [], tokens=token_R, x=x_TD, kept=kept, y=y_RD)
    y_TD = add_up(y_RD, rows.row_TK, weights_TK)
    return y_TD, (x_TD, weights_TK, counts_E, token_R, rows.row_TK, kept, *parameters)


class _NativeExperts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weights_TK: Tensor, rows: ExpertRows, *parameters: Tensor) -> Tensor:
        y_TD, needed = _forward(x_TD, weights_TK, rows, parameters, keep=any(ctx.needs_input_grad))
        ctx.save_for_backward(*needed)
        return y_TD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y_TD: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, weights_TK, counts_E, token_R, row_TK, kept, *parameters = ctx.saved_tensors
        weights_R = by_row(weights_TK, row_TK, token_R.numel())
        grad_weights_R = torch.empty_like(weights_R)
        grad_x_RD = x_TD.new_empty(token_R.numel(), x_TD.shape[1])
        gradients = [torch.empty_like(parameter) for parameter in parameters]
        _compute(
            counts_E,
            parameters,
            gradients,
            tokens=token_R,
            x=x_TD,
            kept=kept,
            weights=weights_R,
            grad_y=grad_y_TD.contiguous(),
            grad_x=grad_x_RD,
            grad_weights=grad_weights_R,
        )
        return add_up(grad_x_RD, row_TK), grad_weights_R[row_TK], None, *gradients
