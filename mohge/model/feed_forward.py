"""The gated feed-forward network.

Shapes: D model width, W hidden width; `...` any leading axes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SwiGLU(nn.Module):
    """Feed-forward network `down(silu(gate(x)) * up(x))`, without biases (Shazeer, arXiv 2002.05202).

    It serves as the dense feed-forward network and, with the widths of the shared experts added up, as
    those shared experts: S of them of width W equal one of width S * W.

    Args:
        d_model: D.
        width: W, the hidden width.
    """

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        # One matrix for both halves: one larger product instead of two. Rows [:W] are the gate.
        self.gate_up = nn.Linear(d_model, 2 * width, bias=False)
        self.down = nn.Linear(width, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (..., D) to (..., D)."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        y: Tensor = self.down(F.silu(gate) * up)
        return y
