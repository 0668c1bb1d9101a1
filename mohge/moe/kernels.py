"""How experts are computed: the loop, which is the reference, torch's grouped product, and the choice.

Shapes: T tokens, D model width, K experts per token, E experts, G groups, N experts per group (E = G * N),
W width of a group's experts, R = T * K rows.

A kernel maps tokens and their rows to the weighted sum of the outputs of each token's experts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from mohge.moe.dispatch import ExpertRows, add_up
from mohge.moe.fused import fused, product_dtype
from mohge.moe.native import native, why_not

_GROUPED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def loop(x_TD: Tensor, rows: ExpertRows, gate_up: Sequence[Tensor], down: Sequence[Tensor]) -> Tensor:
    """Compute expert by expert, in any floating dtype."""
    return _by_group(_loop_group, x_TD, rows, gate_up, down)


def grouped(x_TD: Tensor, rows: ExpertRows, gate_up: Sequence[Tensor], down: Sequence[Tensor]) -> Tensor:
    """Compute one grouped product per matrix and width group, in float32, bfloat16 or float16.

    Raises:
        ValueError: for other dtypes, and sizes whose rows are not whole multiples of 16 bytes.
    """
    dtype = x_TD.dtype
    if dtype not in _GROUPED_DTYPES:
        raise ValueError(f"experts.kernel=grouped does not compute in {dtype}; use experts.kernel=fused")
    if sizes := _misaligned(dtype, [size for group in down for size in group.shape[1:]]):
        raise ValueError(
            f"experts.kernel=grouped needs model.d_model and experts.widths in multiples of "
            f"{16 // dtype.itemsize} in {dtype}, and {sizes[0]} is not; use such a multiple or "
            f"experts.kernel=fused"
        )
    return _by_group(_grouped_group, x_TD, rows, gate_up, down)


def choose_kernel(
    device_type: str, dtype: torch.dtype, parameters: torch.dtype, sizes: Sequence[int], num_experts: int
) -> str:
    """What experts.kernel=auto stands for: the fastest kernel (docs/PERFORMANCE.md) that can compute this.

    Args:
        device_type: "cpu" or "cuda".
        dtype: of the tokens, and so of the products.
        parameters: dtype of the parameters.
        sizes: D, and W of each group.
        num_experts: E; `native` computes as many at a time as there are threads.
    """
    if device_type == "cuda":
        return "grouped" if dtype in _GROUPED_DTYPES and not _misaligned(dtype, sizes) else "fused"
    in_float32 = product_dtype(device_type, dtype) == torch.float32
    if in_float32 and num_experts >= torch.get_num_threads() and not why_not(device_type, parameters, sizes):
        return "native"
    return "fused"


def _misaligned(dtype: torch.dtype, sizes: Sequence[int]) -> list[int]:
    """Sizes that F.grouped_mm cannot compute: it needs strides of whole 16 bytes."""
    return [size for size in sizes if size * dtype.itemsize % 16]


def _by_group(
    compute: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    x_TD: Tensor,
    rows: ExpertRows,
    gate_up: Sequence[Tensor],
    down: Sequence[Tensor],
) -> Tensor:
    counts_GN = rows.counts_E.view(len(down), -1)
    # index_select and not x_TD[...]: the backward of advanced indexing is several times slower.
    x_RD = x_TD.index_select(0, rows.token_R)
    x_by_group = x_RD.split(counts_GN.sum(dim=1).tolist())
    y_RD = torch.cat(
        [
            # To the dtype of x, which is autocast's where that is on.
            compute(x, w_in.to(x.dtype), w_out.to(x.dtype), counts_N)
            for x, w_in, w_out, counts_N in zip(x_by_group, gate_up, down, counts_GN, strict=True)
        ]
    )
    return _combine(y_RD, rows)


def _combine(y_RD: Tensor, rows: ExpertRows) -> Tensor:
    """Add up each token's K rows by their weights."""
    # In the router's dtype: bfloat16 would round the weights to 8 bits.
    dtype = torch.promote_types(y_RD.dtype, rows.weights_TK.dtype)
    return add_up(y_RD.to(dtype), rows.row_TK, rows.weights_TK.to(dtype)).to(y_RD.dtype)


def _swiglu(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def _loop_group(x_RD: Tensor, gate_up: Tensor, down: Tensor, counts_N: Tensor) -> Tensor:
    # unbind and not gate_up[n]: the backward of indexing fills a whole stack of zeros for every expert.
    experts = zip(x_RD.split(counts_N.tolist()), gate_up.unbind(), down.unbind(), strict=True)
    return torch.cat([F.linear(_swiglu(F.linear(x, w_in)), w_out) for x, w_in, w_out in experts])


def _grouped_group(x_RD: Tensor, gate_up: Tensor, down: Tensor, counts_N: Tensor) -> Tensor:
    ends_N = counts_N.cumsum(0).to(torch.int32)
    hidden_RW = _swiglu(F.grouped_mm(_row_major(x_RD), gate_up.transpose(1, 2), offs=ends_N))
    y_RD: Tensor = _RowMajorGradient.apply(F.grouped_mm(hidden_RW, down.transpose(1, 2), offs=ends_N))
    return y_RD


def _row_major(x: Tensor) -> Tensor:
    """The matrix in the strides that F.grouped_mm insists on. `Tensor.contiguous` is not enough: it leaves
    any strides as they are when there is no row or one.
    """
    return x if x.stride() == (x.shape[1], 1) else x.clone(memory_format=torch.contiguous_format)


class _RowMajorGradient(torch.autograd.Function):
    """The identity; its gradient, of whatever strides, is made fit for the backward of F.grouped_mm."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Tensor:
        return _row_major(gradients[0])


KERNELS: dict[str, Callable[[Tensor, ExpertRows, Sequence[Tensor], Sequence[Tensor]], Tensor]] = {
    "loop": loop,
    "grouped": grouped,
    "fused": fused,
    "native": native,
}
