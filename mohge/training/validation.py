"""Validation sums: loss, perplexity and bits per byte, overall and per domain.

Shapes: B batch, S sequence, V vocabulary, M domains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mohge.parallel.world import add_over_ranks

_LARGEST_EXPONENT = 700.0  # beyond it, exp overflows


class ValidationSums:
    """Sums of cross-entropy, tokens and bytes of each domain, in float64 on the device.

    Args:
        domains: names, in the order of the batches' `domain` ids.
        token_bytes_V: bytes that each token stands for; 0 for special tokens.
        device: where the batches are.
    """

    def __init__(self, domains: Sequence[str], token_bytes_V: Tensor, device: torch.device):
        self._domains = tuple(domains)
        self._token_bytes_V = token_bytes_V.to(device)
        self._sums_M3 = torch.zeros(len(domains), 3, dtype=torch.float64, device=device)

    def add(self, loss_BS: Tensor, targets_BS: Tensor, domain_B: Tensor) -> None:
        """Adds one batch.

        Args:
            loss_BS: cross-entropy of each target in nats; 0 where the target is -100.
            targets_BS: token ids; -100 where there is none.
            domain_B: domain of each sequence.
        """
        counted_BS = targets_BS >= 0
        bytes_BS = self._token_bytes_V[targets_BS.clamp(min=0)] * counted_BS
        rows_B3 = torch.stack(
            [loss_BS.double().sum(1), counted_BS.double().sum(1), bytes_BS.double().sum(1)], dim=1
        )
        self._sums_M3.index_add_(0, domain_B, rows_B3)

    def add_over_ranks(self) -> None:
        """Makes them the sums of all ranks, each of which has seen batches of its own. Collective."""
        add_over_ranks(self._sums_M3)

    def metrics(self) -> dict[str, float]:
        """`val/loss` (nats per token), `val/perplexity` and `val/bits_per_byte`, over all and `…/DOMAIN`."""
        result = {}
        parts = [("", self._sums_M3.sum(0).tolist())]
        parts += [
            (f"/{name}", sums) for name, sums in zip(self._domains, self._sums_M3.tolist(), strict=True)
        ]
        for suffix, (nats, tokens, size) in parts:
            if not tokens:
                continue
            result[f"val/loss{suffix}"] = nats / tokens
            result[f"val/perplexity{suffix}"] = math.exp(min(nats / tokens, _LARGEST_EXPONENT))
            if size:  # special tokens alone stand for no bytes
                result[f"val/bits_per_byte{suffix}"] = nats / math.log(2) / size
        return result
