"""What tokens really cost, where `mohge.budget` tells what equal loads would.

Shape suffixes: L layers, G groups, W_g the hidden width of the experts of group g, D model width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mohge.budget import budget, train_flops, train_flops_per_token
from mohge.config.schema import TrainConfig
from mohge.metrics.base import CountMetric, Layered


class _Cost(CountMetric):
    """Counts, with what a row costs.

    Args:
        config: model and experts.
        settings: of `torchmetrics.Metric`.
    """

    widths_G: Tensor

    def __init__(self, config: TrainConfig, **settings: Any) -> None:
        experts = config.experts
        super().__init__(config.model.layers, experts.num_groups, experts.per_group, **settings)
        self.config = config
        widths_G = torch.tensor(experts.widths, dtype=torch.float64)
        self.register_buffer("widths_G", widths_G, persistent=False)

    def routed_parameters(self) -> Tensor:
        """Parameters of routed experts that a token passed through in each layer, on average (L).

        An expert of group g is a SwiGLU of 3 * D * W_g parameters.
        """
        rows_LG = self.by_group(self.expert_LE).sum(dim=2).double()
        return 3 * self.config.model.d_model * (rows_LG @ self.widths_G) / self.tokens


class ActiveParameters(_Cost):
    """Parameters that a token passed through."""

    @property
    def expected(self) -> int:
        """What the plan says: all that a token passes through if loads are equal."""
        return budget(self.config).active_parameters.expected

    def compute(self) -> Layered:
        """Those of the routed experts of each layer (L); all parameters, dense ones too."""
        routed_L = self.routed_parameters()
        parameters = budget(self.config).parameters
        return Layered(routed_L, routed_L.sum() + (parameters.total - parameters.routed_experts))


class FlopsPerToken(_Cost):
    """FLOPs of training on a token."""

    @property
    def expected(self) -> int:
        """What the plan says: all that training on a token costs if loads are equal."""
        return budget(self.config).flops_per_token.train

    def compute(self) -> Layered:
        """Those of the routed experts of each layer (L); all, dense ones too."""
        routed_L = self.routed_parameters()
        flops_L = routed_L * train_flops(self.config, 1.0)
        return Layered(flops_L, flops_L.new_tensor(train_flops_per_token(self.config, float(routed_L.sum()))))
