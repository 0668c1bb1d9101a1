"""Dispatcher: brings tokens to their experts, and the experts' outputs back.

Shapes: T tokens, D model width, K experts per token, E experts, R = T * K rows, one for each choice of an
expert by a token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mohge.moe.decision import RoutingDecision


@dataclass(frozen=True, eq=False)
class DispatchState:
    """What `combine` needs to bring rows back to their tokens."""

    row_TK: Tensor
    """int64, the row that holds each choice of a token."""
    weights_TK: Tensor
    """Weight of that row in the token's output."""


class LocalDispatcher:
    """Sorts the rows of one process by expert; no communication."""

    def dispatch(self, x_TD: Tensor, decision: RoutingDecision) -> tuple[Tensor, Tensor, DispatchState]:
        """Make one row for each choice of an expert, rows of one expert together.

        Args:
            x_TD: tokens.
            decision: of the router, for these T tokens.

        Returns:
            x_RD sorted by expert id, and by token within one expert; counts_E, int64, the rows of each
            expert; and the state for `combine`.
        """
        T, K = decision.expert_ids_TK.shape
        assert x_TD.shape[0] == T, f"{x_TD.shape[0]} tokens, but a decision for {T}"
        order_R = decision.expert_ids_TK.flatten().argsort(stable=True)
        row_R = torch.empty_like(order_R)
        row_R[order_R] = torch.arange(T * K, device=order_R.device)
        # index_select and not x_TD[...]: the backward of advanced indexing is several times slower.
        x_RD = x_TD.index_select(0, order_R // K)
        return x_RD, decision.expert_counts_E, DispatchState(row_R.view(T, K), decision.weights_TK)

    def combine(self, y_RD: Tensor, state: DispatchState) -> Tensor:
        """Add up each token's K rows by their weights.

        Args:
            y_RD: output of the experts, in the order of `dispatch`.
            state: of `dispatch`.

        Returns:
            y_TD in the dtype of y_RD; differentiable in y_RD and in the weights.
        """
        # An embedding bag is a gather and a weighted sum in one pass, without a T x K x D intermediate. It
        # sums in the router's dtype: bfloat16 would round the weights to 8 bits.
        weights_TK = state.weights_TK
        dtype = torch.promote_types(y_RD.dtype, weights_TK.dtype)
        y_TD = F.embedding_bag(
            state.row_TK, y_RD.to(dtype), per_sample_weights=weights_TK.to(dtype), mode="sum"
        )
        return y_TD.to(y_RD.dtype)
