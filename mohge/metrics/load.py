"""How evenly experts are loaded.

A row is one token at one of its K experts; an expert's load is the rows that it computed.
Shape suffixes: L layers, E experts, G groups, N experts per group, X experts that are compared.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mohge.metrics.base import CountMetric, Layered


class MaxViolation(CountMetric):
    """Largest load over the mean load, minus 1 (MaxVio, arXiv 2408.15664); the worst layer overall.

    It is 0 with equal loads, and E/K - 1 when every token takes the same K experts.

    Args:
        layers: L.
        num_groups: G.
        per_group: N.
        within_groups: compare each expert with the mean of its own width group instead of all experts: what
            the intra-group loss and the balance of ranks are about. A group that got nothing violates
            nothing.
        settings: of `torchmetrics.Metric`.
    """

    def __init__(
        self, layers: int, num_groups: int, per_group: int, *, within_groups: bool = False, **settings: Any
    ) -> None:
        super().__init__(layers, num_groups, per_group, **settings)
        self.within_groups = within_groups

    def compute(self) -> Layered:
        """Of each layer (L), and the largest."""
        if self.within_groups:
            load_LGN = self.by_group(self.expert_LE)
            violation_LG = _violation(load_LGN).masked_fill(load_LGN.sum(dim=-1) == 0, 0.0)
            violation_L = violation_LG.amax(dim=1)
            violation_L[self.expert_LE.sum(dim=1) == 0] = float("nan")
        else:
            violation_L = _violation(self.expert_LE)
        return Layered(violation_L, violation_L.amax())


class LoadVariation(CountMetric):
    """Coefficient of variation of the experts' loads: standard deviation over mean; mean over layers."""

    def compute(self) -> Layered:
        """Of each layer (L), and their mean."""
        load_LE = self.expert_LE.double()
        variation_L = load_LE.std(dim=1, correction=0) / load_LE.mean(dim=1)
        return Layered(variation_L, variation_L.mean())


class DeadExperts(CountMetric):
    """Experts that no token chose; their number over all layers."""

    def compute(self) -> Layered:
        """Of each layer (L), and their sum."""
        dead_L = (self.expert_LE == 0).sum(dim=1)
        return Layered(dead_L, dead_L.sum())


def _violation(load: Tensor) -> Tensor:
    """Largest over mean, minus 1, along the last axis X."""
    load = load.double()
    return load.amax(dim=-1) / load.mean(dim=-1) - 1
