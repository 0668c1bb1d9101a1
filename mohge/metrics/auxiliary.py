"""Auxiliary losses of each layer.

Shape suffixes: L layers, A auxiliary losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from mohge.metrics.base import Layered


class AuxiliaryLosses(Metric):
    """Mean of each auxiliary loss over micro-batches and ranks, raw and times its weight.

    Args:
        names: of the losses.
        layers: L.
        settings: of `torchmetrics.Metric`.
    """

    full_state_update = False
    raw_AL: Tensor
    weighted_AL: Tensor
    batches: Tensor

    def __init__(self, names: Sequence[str], layers: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.names = tuple(names)
        for state in ("raw_AL", "weighted_AL"):
            zeros_AL = torch.zeros(len(names), layers, dtype=torch.float64)
            self.add_state(state, zeros_AL, dist_reduce_fx="sum")
        self.add_state("batches", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, losses: Mapping[str, Sequence[Tensor]], weights: Mapping[str, float]) -> None:
        """Add a micro-batch.

        Args:
            losses: scalars of each layer, by name.
            weights: of each loss.
        """
        raw_AL = torch.stack([torch.stack(list(losses[name])).detach() for name in self.names]).double()
        self.raw_AL += raw_AL
        self.weighted_AL += raw_AL * raw_AL.new_tensor([weights[name] for name in self.names])[:, None]
        self.batches += 1

    def compute(self) -> dict[str, Layered]:
        """`aux/NAME` and `aux_weighted/NAME`: of each layer (L), and their sum, as in the training loss."""
        means = {"aux": self.raw_AL / self.batches, "aux_weighted": self.weighted_AL / self.batches}
        return {
            f"{kind}/{name}": Layered(mean_AL[index], mean_AL[index].sum())
            for kind, mean_AL in means.items()
            for index, name in enumerate(self.names)
        }
