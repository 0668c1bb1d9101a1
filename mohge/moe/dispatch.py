"""Order of the rows that experts compute.

Shapes: T tokens, K experts per token, E experts, R = T * K rows, one for each choice of an expert by a token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mohge.moe.decision import RoutingDecision


@dataclass(frozen=True, eq=False)
class ExpertRows:
    """One row for each choice of an expert by a token; rows of one expert together, in order of tokens."""

    counts_E: Tensor
    """int64, rows of each expert."""
    token_R: Tensor
    """int64, the token of each row."""
    row_TK: Tensor
    """int64, the row that holds each choice of a token."""
    weights_TK: Tensor
    """Weight of that row in the token's output; differentiable."""

    def padded(self, multiple: int) -> ExpertRows:
        """The same with a multiple of rows for every expert: those added are of token 0, and unused."""
        counts_E = (self.counts_E + multiple - 1) // multiple * multiple
        shift_E = (counts_E - self.counts_E).cumsum(0) - (counts_E - self.counts_E)
        row_R = torch.arange(self.token_R.numel(), device=self.token_R.device)
        row_R += shift_E.repeat_interleave(self.counts_E)
        token_R = self.token_R.new_zeros(int(counts_E.sum())).index_copy_(0, row_R, self.token_R)
        return ExpertRows(counts_E, token_R, row_R[self.row_TK], self.weights_TK)


def sort_rows(decision: RoutingDecision) -> ExpertRows:
    """Order the choices of a decision by expert, with one stable sort."""
    ids_TK = decision.expert_ids_TK
    order_R = ids_TK.flatten().argsort(stable=True)
    row_R = torch.empty_like(order_R)
    row_R[order_R] = torch.arange(order_R.numel(), device=order_R.device)
    return ExpertRows(
        counts_E=decision.expert_counts_E,
        token_R=order_R // ids_TK.shape[1],
        row_TK=row_R.view_as(ids_TK),
        weights_TK=decision.weights_TK,
    )


def add_up(rows_RD: Tensor, row_TK: Tensor, weights_TK: Tensor | None = None) -> Tensor:
    """Sum each token's K rows, by their weights if given, into (T, D).

    An embedding bag is a gather and a weighted sum in one pass, without a T x K x D intermediate.
    """
    return F.embedding_bag(row_TK, rows_RD, per_sample_weights=weights_TK, mode="sum")


def by_row(weights_TK: Tensor, row_TK: Tensor, num_rows: int) -> Tensor:
    """The weight of each row (R); zero for rows that no choice uses."""
    weights_R = weights_TK.new_zeros(num_rows)
    weights_R[row_TK.flatten()] = weights_TK.flatten()
    return weights_R
