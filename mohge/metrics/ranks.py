"""How evenly ranks work.

Shape suffixes: R ranks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class RankLoads:
    """What ranks did.

    Attributes:
        rows_R: rows (a token at one of its experts) that each rank's experts computed.
        expert_flops_R: FLOPs of these rows.
        rows_max_over_mean: largest number of rows of a rank over the mean: 1 is even, R is all on one.
        expert_flops_max_over_mean: the same of the FLOPs: experts differ in width, so that equal rows need
            not be equal work.
    """

    def __init__(self, rows_R: Tensor, expert_flops_R: Tensor) -> None:
        self.rows_R = rows_R
        self.expert_flops_R = expert_flops_R
        self.rows_max_over_mean = _max_over_mean(rows_R)
        self.expert_flops_max_over_mean = _max_over_mean(expert_flops_R)


class RankBalance(Metric):
    """Adds up the work of each rank.

    A rank may add its own work, and `compute` brings ranks together; or one may add that of all.

    Args:
        ranks: R.
        settings: of `torchmetrics.Metric`.
    """

    full_state_update = False
    rows_R: Tensor
    expert_flops_R: Tensor

    def __init__(self, ranks: int, **settings: Any) -> None:
        super().__init__(**settings)
        for name in ("rows_R", "expert_flops_R"):
            self.add_state(name, torch.zeros(ranks, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, rank: int, rows: int, expert_flops: int) -> None:
        """Add work of a rank."""
        self.rows_R[rank] += rows
        self.expert_flops_R[rank] += expert_flops

    def compute(self) -> RankLoads:
        """The work of all ranks."""
        return RankLoads(self.rows_R, self.expert_flops_R)


def _max_over_mean(load_R: Tensor) -> Tensor:
    """1 where there was no work, which is shared evenly."""
    load_R = load_R.double()
    return torch.where(load_R.sum() == 0, 1.0, load_R.amax() / load_R.mean())
