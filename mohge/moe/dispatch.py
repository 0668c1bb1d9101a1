"""Order of the rows that experts compute, and their way to the ranks that hold the experts.

Shapes: T tokens, D model width, K experts per token, E experts, G groups, N experts per group, P ranks that
share them, R = T * K rows, one for each choice of an expert by a token, M rows that this rank's experts get.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from mohge.moe.decision import RoutingDecision
from mohge.parallel.exchange import Exchange, exchange_counts


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
    return ExpertRows(
        counts_E=decision.expert_counts_E,
        token_R=order_R // ids_TK.shape[1],
        row_TK=_inverse(order_R).view_as(ids_TK),
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


class ExpertPool(Protocol):
    """What a dispatcher needs of the experts that are here."""

    def __call__(self, x_TD: Tensor, rows: ExpertRows) -> Tensor:
        """The weighted sum, for each token given, of the outputs of its experts."""

    def compute_dtype(self, x: Tensor) -> torch.dtype:
        """The dtype in which they compute, and so in which tokens may travel to them."""


class Dispatcher(Protocol):
    """Brings tokens to their experts and the experts' outputs back."""

    def __call__(
        self,
        x_TD: Tensor,
        decision: RoutingDecision,
        experts: ExpertPool,
        meanwhile: Callable[[], Tensor] | None = None,
    ) -> Tensor:
        """y_TD: for each token the weighted sum of its experts' outputs, plus what `meanwhile` computes.

        Args:
            x_TD: tokens of this rank.
            decision: their experts.
            experts: those that this rank holds.
            meanwhile: something else to add, (T, D), that can be computed while tokens travel.
        """


class LocalDispatcher:
    """All experts are here: nothing travels."""

    def __call__(
        self,
        x_TD: Tensor,
        decision: RoutingDecision,
        experts: ExpertPool,
        meanwhile: Callable[[], Tensor] | None = None,
    ) -> Tensor:
        """As `Dispatcher`."""
        y_TD = experts(x_TD, sort_rows(decision))
        return y_TD if meanwhile is None else y_TD + meanwhile()


class AllToAllDispatcher:
    """Experts are spread over P ranks, each of which holds N / P experts of every width.

    A rank sends one row for each choice of its tokens, with its weight, to the rank of the chosen expert;
    back comes the weighted output, so that the sum over a token's K rows is all that is left to do, and no
    output is kept for the backward pass. Ranks may send any numbers of rows, none included: all of them take
    part in every exchange.

    Args:
        group: the P ranks.
        num_groups: G.
        num_experts: E = G * N, over all ranks; P divides N.
    """

    def __init__(self, group: dist.ProcessGroup, num_groups: int, num_experts: int) -> None:
        self._group = group
        self._ranks = dist.get_world_size(group)
        assert num_experts % (num_groups * self._ranks) == 0, "refused with the configuration"
        expert_GN = torch.arange(num_experts).view(num_groups, self._ranks, -1)
        # Experts in the order in which rows are sent: rank by rank, and there as the rank holds them.
        self._expert_of_slot_E = expert_GN.transpose(0, 1).flatten()
        self._slot_of_expert_E = self._expert_of_slot_E.argsort()

    def __call__(
        self,
        x_TD: Tensor,
        decision: RoutingDecision,
        experts: ExpertPool,
        meanwhile: Callable[[], Tensor] | None = None,
    ) -> Tensor:
        """As `Dispatcher`. Collective over the group; the host waits once for the numbers of rows."""
        self._expert_of_slot_E = self._expert_of_slot_E.to(x_TD.device)
        self._slot_of_expert_E = self._slot_of_expert_E.to(x_TD.device)
        sent_PN = decision.expert_counts_E[self._expert_of_slot_E].view(self._ranks, -1)
        received_PN = exchange_counts(sent_PN, self._group)
        sent_P, received_P = torch.stack([sent_PN.sum(1), received_PN.sum(1)]).tolist()
        there = Exchange(self._group, sent_P, received_P)
        weights_there = Exchange(self._group, sent_P, received_P)

        K = decision.expert_top_k
        order_R = self._slot_of_expert_E[decision.expert_ids_TK.flatten()].argsort(stable=True)
        rows_RD = x_TD.to(experts.compute_dtype(x_TD)).index_select(0, order_R // K)
        ticket = there.send(rows_RD)
        weights_ticket = weights_there.send(decision.weights_TK.flatten().index_select(0, order_R))
        extra_TD = None if meanwhile is None else meanwhile()
        x_MD = there.receive(ticket)
        weights_M = weights_there.receive(weights_ticket)

        y_MD = experts(x_MD, _arrived(received_PN, weights_M))
        back = there.back()
        y_RD = back.receive(back.send(y_MD))
        y_TD = add_up(y_RD, _inverse(order_R).view(-1, K))
        return y_TD if extra_TD is None else y_TD + extra_TD


def _arrived(received_PN: Tensor, weights_M: Tensor) -> ExpertRows:
    """The order by expert of rows that came sorted by sender, then expert; each is a token of its own."""
    ranks, experts = received_PN.shape
    expert_M = torch.arange(experts, device=weights_M.device).repeat(ranks)
    expert_M = expert_M.repeat_interleave(received_PN.flatten(), output_size=weights_M.numel())
    order_M = expert_M.argsort(stable=True)
    return ExpertRows(
        counts_E=received_PN.sum(0),
        token_R=order_M,
        row_TK=_inverse(order_M).unsqueeze(1),
        weights_TK=weights_M.unsqueeze(1),
    )


def _inverse(order_R: Tensor) -> Tensor:
    """Where each entry of a permutation went."""
    inverse_R = torch.empty_like(order_R)
    inverse_R[order_R] = torch.arange(order_R.numel(), device=order_R.device)
    return inverse_R
