"""The experts of a layer as one autograd function, from tokens to the weighted sum.

Shapes: T tokens, D model width, K experts per token, E experts, G groups, N experts per group (E = G * N),
W width of a group's experts, R rows, sorted by expert.

Rows are computed in chunks of a few experts of one group, so that what passes between two products stays in
the processor's cache. The backward pass gathers tokens and computes SwiGLU again: of the rows, only the input
of SwiGLU is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mohge.moe.dispatch import ExpertRows, add_up, by_row

_CHUNK_BYTES = 2 * 2**20  # about the second-level cache of one core; twice or half of it costs little
_BUCKET = 16  # rows; oneDNN compiles its bfloat16 products anew for each number of rows, at about 1 ms


def fused(x_TD: Tensor, rows: ExpertRows, gate_up: Sequence[Tensor], down: Sequence[Tensor]) -> Tensor:
    """Compute the experts in one autograd function; differentiable once.

    Products of bfloat16 or float16 are computed in float32 on a CPU without instructions for them, which is
    several times faster there, and no less exact.

    Args:
        x_TD: tokens.
        rows: which expert computes which token, and with what weight.
        gate_up: of each group, (N, 2W, D).
        down: of each group, (N, D, W).

    Returns:
        y_TD in the dtype of x_TD.
    """
    dtype = product_dtype(x_TD.device.type, x_TD.dtype)
    if x_TD.device.type == "cpu" and dtype.itemsize == 2:
        rows = rows.padded(_BUCKET)
    y_TD: Tensor = _FusedExperts.apply(x_TD, rows.weights_TK, rows, dtype, *gate_up, *down)
    return y_TD


@cache
def product_dtype(device_type: str, dtype: torch.dtype) -> torch.dtype:
    """In which products of `dtype` are computed best: itself, or float32 without instructions for it."""
    if device_type == "cpu" and dtype.itemsize == 2 and not instructions_for(dtype):
        return torch.float32
    return dtype


def instructions_for(dtype: torch.dtype) -> list[str]:
    """Sets of instructions of this CPU that multiply bfloat16, or float16, numbers."""
    name = "bf16" if dtype == torch.bfloat16 else "fp16"
    return [key for key, value in torch.cpu.get_capabilities().items() if name in key and value]


@dataclass(frozen=True)
class _Chunk:
    """Consecutive experts of one group."""

    group: int
    experts: slice
    """Of the group's N."""
    counts: list[int]
    """Rows of each of them."""
    rows: slice
    """Of all R."""
    hidden: slice
    """Of one flat tensor that holds W elements for each row of each chunk."""

    @property
    def num_rows(self) -> int:
        return self.rows.stop - self.rows.start

    @property
    def num_hidden(self) -> int:
        return self.hidden.stop - self.hidden.start


def _chunks(counts: list[int], widths: list[int], limit: int) -> Iterator[_Chunk]:
    """Split each group into chunks of at most `limit` rows, or of one expert."""
    per_group = len(counts) // len(widths)
    row = hidden = 0
    for group, width in enumerate(widths):
        counts_N = counts[group * per_group : (group + 1) * per_group]
        first = 0
        while first < per_group:
            end, num_rows = first + 1, counts_N[first]
            while end < per_group and num_rows + counts_N[end] <= limit:
                num_rows += counts_N[end]
                end += 1
            yield _Chunk(
                group=group,
                experts=slice(first, end),
                counts=counts_N[first:end],
                rows=slice(row, row + num_rows),
                hidden=slice(hidden, hidden + num_rows * width),
            )
            first, row, hidden = end, row + num_rows, hidden + num_rows * width


class _Scratch:
    """Memory of one matrix per chunk, which chunks use in turn so that it stays in the cache."""

    def __init__(self, sizes: Iterable[int], like: Tensor, dtype: torch.dtype) -> None:
        self._memory = like.new_empty(max(sizes), dtype=dtype)

    def matrix(self, rows: int, columns: int) -> Tensor:
        """Contiguous, of undefined content."""
        return self._memory[: rows * columns].view(rows, columns)


class _FusedExperts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_TD: Tensor, weights_TK: Tensor, rows: ExpertRows, dtype: torch.dtype, *parameters: Tensor
    ) -> Tensor:
        gate_up, down = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]
        D, widths = x_TD.shape[1], [w_out.shape[2] for w_out in down]
        counts = rows.counts_E.tolist()  # the one time that the host waits for the device
        chunks = list(_chunks(counts, widths, _CHUNK_BYTES // (D * dtype.itemsize)))
        x_scratch = _Scratch((chunk.num_rows * D for chunk in chunks), x_TD, dtype)
        hidden_scratch = _Scratch((chunk.num_hidden for chunk in chunks), x_TD, dtype)
        widened = x_TD.dtype != dtype
        gate_up_scratch = _Scratch((2 * chunk.num_hidden * widened for chunk in chunks), x_TD, dtype)
        gate_up_flat = x_TD.new_empty(2 * chunks[-1].hidden.stop)
        # In the router's dtype: bfloat16 would round the weights of the sum to 8 bits.
        y_RD = x_TD.new_empty(sum(counts), D, dtype=torch.promote_types(dtype, weights_TK.dtype))
        for chunk in chunks:
            C, W = chunk.num_rows, widths[chunk.group]
            w_in, w_out = gate_up[chunk.group][chunk.experts], down[chunk.group][chunk.experts]
            x_CD = _gather(x_TD, rows.token_R[chunk.rows], x_scratch.matrix(C, D))
            kept_CW = gate_up_flat[_twice(chunk.hidden)].view(C, 2 * W)
            gate_up_CW = gate_up_scratch.matrix(C, 2 * W) if widened else kept_CW
            _products(x_CD, w_in.transpose(1, 2), gate_up_CW, chunk.counts)
            if widened:
                kept_CW.copy_(gate_up_CW)
            hidden_CW = _swiglu(gate_up_CW, hidden_scratch.matrix(C, W))
            _products(hidden_CW, w_out.transpose(1, 2), y_RD[chunk.rows], chunk.counts)
        ctx.chunks, ctx.dtype = chunks, dtype
        ctx.save_for_backward(x_TD, weights_TK, rows.token_R, rows.row_TK, gate_up_flat, *parameters)
        return add_up(y_RD, rows.row_TK, weights_TK.to(y_RD.dtype)).to(x_TD.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y_TD: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, weights_TK, token_R, row_TK, gate_up_flat, *parameters = ctx.saved_tensors
        gate_up, down = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]
        R, D, dtype = token_R.numel(), x_TD.shape[1], ctx.dtype
        tokens = [chunk.num_rows * D for chunk in ctx.chunks]
        hidden = [chunk.num_hidden for chunk in ctx.chunks]
        x_scratch, grad_y_scratch = (_Scratch(tokens, x_TD, dtype) for _ in range(2))
        hidden_scratch, grad_hidden_scratch = (_Scratch(hidden, x_TD, dtype) for _ in range(2))
        grad_gate_up_scratch = _Scratch((2 * size for size in hidden), x_TD, dtype)

        weights_R1 = by_row(weights_TK, row_TK, R)[:, None]
        grad_weights_R = weights_TK.new_empty(R)
        grad_x_RD = x_TD.new_empty(R, D)
        gradients = [torch.empty_like(parameter) for parameter in parameters]
        grad_gate_up, grad_down = gradients[: len(gate_up)], gradients[len(gate_up) :]
        for chunk in ctx.chunks:
            C, g, counts, token_C = chunk.num_rows, chunk.group, chunk.counts, token_R[chunk.rows]
            w_in, w_out = gate_up[g][chunk.experts], down[g][chunk.experts]
            W = w_out.shape[2]
            grad_y_CD = _gather(grad_y_TD, token_C, grad_y_scratch.matrix(C, D))
            grad_hidden_CW = grad_hidden_scratch.matrix(C, W)
            _products(grad_y_CD, w_out, grad_hidden_CW, counts)
            hidden_CW, grad_gate_up_CW = hidden_scratch.matrix(C, W), grad_gate_up_scratch.matrix(C, 2 * W)
            _swiglu_backward(
                gate_up_flat[_twice(chunk.hidden)].view(C, 2 * W).to(dtype),
                weights_R1[chunk.rows],
                grad_hidden_CW,
                out=(hidden_CW, grad_gate_up_CW, grad_weights_R[chunk.rows]),
            )
            _weight_gradients(grad_y_CD, hidden_CW, grad_down[g][chunk.experts], counts)
            x_CD = _gather(x_TD, token_C, x_scratch.matrix(C, D))
            _weight_gradients(grad_gate_up_CW, x_CD, grad_gate_up[g][chunk.experts], counts)
            _products(grad_gate_up_CW, w_in, grad_x_RD[chunk.rows], counts)
        return add_up(grad_x_RD, row_TK), grad_weights_R[row_TK], None, None, *gradients


def _twice(part: slice) -> slice:
    return slice(2 * part.start, 2 * part.stop)


def _gather(x_TD: Tensor, token_C: Tensor, out_CD: Tensor) -> Tensor:
    if x_TD.dtype == out_CD.dtype:
        return torch.index_select(x_TD, 0, token_C, out=out_CD)
    return out_CD.copy_(x_TD.index_select(0, token_C))


def _products(x_CD: Tensor, w_NDW: Tensor, out_CW: Tensor, counts: list[int]) -> None:
    """The rows of each expert times its matrix."""
    for x, w, out in zip(x_CD.split(counts), w_NDW.unbind(), out_CW.split(counts), strict=True):
        _mm(x, w, out)


def _weight_gradients(grad_CW: Tensor, x_CD: Tensor, out_NWD: Tensor, counts: list[int]) -> None:
    """Of each expert: its rows' gradient, transposed, times its rows; zeros without rows."""
    for grad, x, out in zip(grad_CW.split(counts), x_CD.split(counts), out_NWD.unbind(), strict=True):
        _mm(grad.t(), x, out)


def _mm(a: Tensor, b: Tensor, out: Tensor) -> None:
    b = b.to(a.dtype)  # here, for one expert at a time, because of the memory
    if out.dtype == a.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(torch.mm(a, b))


def _swiglu(gate_up_CW: Tensor, out_CW: Tensor) -> Tensor:
    gate_CW, up_CW = gate_up_CW.chunk(2, dim=1)
    torch.ops.aten.silu.out(gate_CW, out=out_CW)
    return out_CW.mul_(up_CW)


def _swiglu_backward(
    gate_up_CW: Tensor, weights_C1: Tensor, grad_CW: Tensor, out: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Compute SwiGLU again, and its gradients.

    Args:
        gate_up_CW: its input, (C, 2W).
        weights_C1: weight of each row.
        grad_CW: gradient of its output, for rows of weight 1; overwritten.
        out: receives the output times the weights (C, W), the gradient of the input (C, 2W), and the gradient
            of the weights (C).
    """
    hidden_CW, grad_gate_up_CW, grad_weights_C = out
    gate_CW, up_CW = gate_up_CW.chunk(2, dim=1)
    grad_gate_CW, grad_up_CW = grad_gate_up_CW.chunk(2, dim=1)  # hold intermediate results too
    torch.ops.aten.silu.out(gate_CW, out=grad_up_CW)
    torch.mul(grad_up_CW, up_CW, out=hidden_CW)
    torch.mul(grad_CW, hidden_CW, out=grad_gate_CW)
    torch.sum(grad_gate_CW, dim=1, dtype=grad_weights_C.dtype, out=grad_weights_C)
    weights_C1 = weights_C1.to(grad_CW.dtype)
    grad_CW.mul_(weights_C1)
    hidden_CW.mul_(weights_C1)
    grad_up_CW.mul_(grad_CW)
    grad_CW.mul_(up_CW)
    torch.ops.aten.silu_backward.grad_input(grad_CW, gate_CW, grad_input=grad_gate_CW)
