"""Experts: stacked SwiGLU networks, one parameter set per width group.

Shapes: D model width, E experts, G groups, N experts per group (E = G * N), W width of a group's experts,
R rows, sorted by expert; E and N also index counts of rows.

Experts know nothing of tokens' origin nor of ranks: rows come in, rows go out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

Kernel = Literal["loop", "grouped"]


class Experts(nn.Module):
    """The expert pool of one layer; parameters `groups.{g}.gate_up` and `groups.{g}.down`.

    Args:
        d_model: D.
        widths: W of each group.
        per_group: N.
        kernel: "loop" computes expert by expert, in any floating dtype, and is the reference; "grouped"
            computes one grouped product per width group, in float32, bfloat16 or float16.

    Raises:
        ValueError: if the kernel is unknown, or cannot compute these widths.
    """

    def __init__(
        self, d_model: int, widths: Sequence[int], per_group: int, kernel: Kernel = "grouped"
    ) -> None:
        super().__init__()
        self.groups = nn.ModuleList(ExpertGroup(d_model, width, per_group, kernel) for width in widths)
        self.per_group = per_group

    def forward(self, x_RD: Tensor, counts_E: Tensor) -> Tensor:
        """Compute each row by its expert.

        Under autocast, products are computed and returned in the autocast dtype, otherwise in that of x_RD.

        Args:
            x_RD: rows sorted by expert id.
            counts_E: int64, rows of each expert.

        Returns:
            y_RD, in the order of x_RD.

        Raises:
            ValueError: if the kernel cannot compute in this dtype.
        """
        device = x_RD.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_RD.dtype
        counts_GN = counts_E.view(len(self.groups), self.per_group)
        rows_G = counts_GN.sum(dim=1).tolist()
        x_by_group = x_RD.to(dtype).split(rows_G)
        y_by_group = [
            group(x, counts) for group, x, counts in zip(self.groups, x_by_group, counts_GN, strict=True)
        ]
        return torch.cat(y_by_group)


class ExpertGroup(nn.Module):
    """N SwiGLU experts of one width: down(silu(gate(x)) * up(x)), without biases (Shazeer, arXiv 2002.05202).

    Args:
        d_model: D.
        width: W.
        per_group: N.
        kernel: as for `Experts`.
    """

    def __init__(self, d_model: int, width: int, per_group: int, kernel: Kernel) -> None:
        super().__init__()
        if kernel not in _KERNELS:
            raise ValueError(f"experts.kernel={kernel} is none of {', '.join(_KERNELS)}")
        # Rows [:W] of each expert's matrix are the gate, as in the dense feed-forward network.
        self.gate_up = nn.Parameter(torch.randn(per_group, 2 * width, d_model) * d_model**-0.5)
        self.down = nn.Parameter(torch.randn(per_group, d_model, width) * width**-0.5)
        self.kernel = kernel
        if kernel == "grouped":
            _check_grouped(d_model, width, torch.float32)

    def forward(self, x_RD: Tensor, counts_N: Tensor) -> Tensor:
        """Compute rows sorted by expert; counts_N, int64, are the rows of each. Empty groups are computed
        too: their weights get gradients of zero, so that ranks never disagree on which gradients exist.
        """
        gate_up, down = self.gate_up.to(x_RD.dtype), self.down.to(x_RD.dtype)
        return _KERNELS[self.kernel](x_RD, gate_up, down, counts_N)


def _swiglu(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def _loop(x_RD: Tensor, gate_up: Tensor, down: Tensor, counts_N: Tensor) -> Tensor:
    # unbind and not gate_up[n]: the backward of indexing fills a whole stack of zeros for every expert.
    experts = zip(x_RD.split(counts_N.tolist()), gate_up.unbind(), down.unbind(), strict=True)
    return torch.cat([F.linear(_swiglu(F.linear(x, w_in)), w_out) for x, w_in, w_out in experts])


def _grouped(x_RD: Tensor, gate_up: Tensor, down: Tensor, counts_N: Tensor) -> Tensor:
    _check_grouped(x_RD.shape[1], down.shape[2], x_RD.dtype)
    ends_N = counts_N.cumsum(0).to(torch.int32)
    hidden_RW = _swiglu(F.grouped_mm(_row_major(x_RD), gate_up.transpose(1, 2), offs=ends_N))
    y_RD: Tensor = _RowMajorGradient.apply(F.grouped_mm(hidden_RW, down.transpose(1, 2), offs=ends_N))
    return y_RD


_KERNELS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {"loop": _loop, "grouped": _grouped}


def _check_grouped(d_model: int, width: int, dtype: torch.dtype) -> None:
    """Refuse what F.grouped_mm cannot do: it needs strides of whole 16 bytes, and has no float64."""
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"experts.kernel=grouped does not compute in {dtype}; use experts.kernel=loop")
    multiple = 16 // dtype.itemsize
    for name, size in (("model.d_model", d_model), ("experts.widths", width)):
        if size % multiple:
            raise ValueError(
                f"experts.kernel=grouped needs {name} in multiples of {multiple} in {dtype}, "
                f"and {size} is not; use such a multiple or experts.kernel=loop"
            )


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
