"""Experts: stacked SwiGLU networks, one parameter set per width group.

Shapes: T tokens, D model width, G groups, N experts per group, W width of a group's experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mohge.config.schema import Kernel
from mohge.moe.dispatch import ExpertRows
from mohge.moe.kernels import KERNELS, choose_kernel
from mohge.parallel.local import local_part


class Experts(nn.Module):
    """The expert pool of one layer; parameters `groups.{g}.gate_up` and `groups.{g}.down`.

    Experts know nothing of ranks: the tokens given and their rows are all there is. Parameters may be the
    local parts of distributed tensors; then the counts of rows are those of the experts that are here.

    Args:
        d_model: D.
        widths: W of each group.
        per_group: N.
        kernel: "loop" computes expert by expert, and is the reference; "grouped" computes one grouped
            product per width group, in float32, bfloat16 or float16; "fused" is one autograd function for
            the layer; "native" is C, for a CPU; "auto" is the fastest for device, dtype and sizes.

    Raises:
        ValueError: if the kernel is unknown.
    """

    def __init__(self, d_model: int, widths: Sequence[int], per_group: int, kernel: Kernel = "auto") -> None:
        super().__init__()
        if kernel != "auto" and kernel not in KERNELS:
            raise ValueError(f"experts.kernel={kernel} is none of auto, {', '.join(KERNELS)}")
        self.sizes, self.num_experts, self.kernel = (d_model, *widths), len(widths) * per_group, kernel
        self.gradient_scale = 1.0
        """Factor of the parameters' gradients: 1 / ranks where their rows come from several ranks, each of
        which takes the mean of its own tokens."""
        self.groups = nn.ModuleList(ExpertGroup(d_model, width, per_group) for width in widths)

    def forward(self, x_TD: Tensor, rows: ExpertRows) -> Tensor:
        """Add up, for each token, the outputs of its experts by their weights.

        Under autocast, products are computed and returned in the autocast dtype, otherwise in that of x_TD.
        Experts and groups without rows are computed too: their weights get gradients of zero, so that ranks
        never disagree on which gradients exist.

        Args:
            x_TD: tokens.
            rows: which expert computes which token, and with what weight.

        Returns:
            y_TD; differentiable in x_TD, the weights of rows, and the parameters.

        Raises:
            ValueError: if the kernel cannot compute these widths in this dtype.
        """
        dtype = self.compute_dtype(x_TD)
        gate_up = [self._here(group.get_parameter("gate_up")) for group in self.groups]
        down = [self._here(group.get_parameter("down")) for group in self.groups]
        return KERNELS[self.kernel_for(x_TD.device.type, dtype)](x_TD.to(dtype), rows, gate_up, down)

    def compute_dtype(self, x: Tensor) -> torch.dtype:
        """The dtype in which tokens are computed: that of autocast, or their own."""
        device = x.device.type
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype

    def _here(self, parameter: Tensor) -> Tensor:
        """The experts of this rank."""
        local = local_part(parameter)
        if self.gradient_scale == 1.0:
            return local
        scaled: Tensor = _ScaleGradient.apply(local, self.gradient_scale)
        return scaled

    def kernel_for(self, device_type: str, dtype: torch.dtype) -> str:
        """The kernel that computes tokens of this dtype there; the choice, if it is left open."""
        if self.kernel != "auto":
            return self.kernel
        first = next(self.parameters())
        return choose_kernel(
            device_type, dtype, first.dtype, self.sizes, len(self.groups) * local_part(first).shape[0]
        )


class _ScaleGradient(torch.autograd.Function):
    """The same tensor, whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.scale, None


class ExpertGroup(nn.Module):
    """Parameters of N SwiGLU experts of one width: down(silu(gate(x)) * up(x)), without biases (Shazeer,
    arXiv 2002.05202).

    Args:
        d_model: D.
        width: W.
        per_group: N.
    """

    def __init__(self, d_model: int, width: int, per_group: int) -> None:
        super().__init__()
        # Rows [:W] of each expert's matrix are the gate, as in the dense feed-forward network.
        self.gate_up = nn.Parameter(torch.randn(per_group, 2 * width, d_model) * d_model**-0.5)
        self.down = nn.Parameter(torch.randn(per_group, d_model, width) * width**-0.5)
