"""All-to-all of rows between the ranks of a group, with gradients, that other work can go on beside.

Shapes: R rows sent, M rows received, D row width, P ranks of the group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass
class Exchange:
    """An all-to-all under way: `send` starts it, `receive` waits for it.

    What is computed between the two runs while rows travel, in the forward pass and, since autograd goes
    the same way back, in the backward pass too.

    Args:
        group: ranks that take part.
        sent_P: rows that go to each rank.
        received_P: rows that come from each rank.
    """

    group: dist.ProcessGroup
    sent_P: Sequence[int]
    received_P: Sequence[int]
    _under_way: tuple[Tensor, dist.Work] | None = field(default=None, init=False)

    def send(self, rows_RD: Tensor) -> Tensor:
        """Starts sending; the result is a ticket for `receive`, which ties the two together in the graph."""
        ticket: Tensor = _Send.apply(rows_RD, self)
        return ticket

    def receive(self, ticket: Tensor) -> Tensor:
        """The received rows (M, D), in order of their sender, once they are here."""
        rows_MD: Tensor = _Receive.apply(ticket, self)
        return rows_MD

    def back(self) -> Exchange:
        """The exchange in the other direction, for results."""
        return Exchange(self.group, self.received_P, self.sent_P)

    def _start(self, rows: Tensor, received_P: Sequence[int], sent_P: Sequence[int]) -> None:
        rows = rows.contiguous()
        buffer = rows.new_empty(sum(received_P), *rows.shape[1:])
        work = dist.all_to_all_single(
            buffer, rows, list(received_P), list(sent_P), group=self.group, async_op=True
        )
        assert work is not None, "asynchronous operations give a handle"
        self._under_way = buffer, work

    def _finish(self) -> Tensor:
        assert self._under_way is not None, "send comes before receive"
        buffer, work = self._under_way
        self._under_way = None
        work.wait()
        return buffer


def exchange_counts(counts_PN: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Row p of the result is the row that rank p has for this one; int64 (P, N)."""
    received_PN = torch.empty_like(counts_PN)
    dist.all_to_all_single(received_PN, counts_PN.contiguous(), group=group)
    return received_PN


class _Send(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_RD: Tensor, exchange: Exchange) -> Tensor:
        ctx.exchange = exchange
        exchange._start(rows_RD, exchange.received_P, exchange.sent_P)
        return rows_RD.new_empty(0)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        return ctx.exchange._finish(), None


class _Receive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ticket: Tensor, exchange: Exchange) -> Tensor:
        ctx.exchange = exchange
        return exchange._finish()

    @staticmethod
    def backward(ctx: Any, grad_MD: Tensor) -> tuple[Tensor, None]:
        ctx.exchange._start(grad_MD, ctx.exchange.sent_P, ctx.exchange.received_P)
        return grad_MD.new_empty(0), None
