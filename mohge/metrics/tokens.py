"""Metrics that look at single tokens: which domain they are of, which experts they share, whether they move.

Shape suffixes: T tokens, K experts per token, L layers, E experts, M domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from mohge.metrics.base import Layered
from mohge.moe.decision import RoutingDecision

PROBED = 4096
"""Tokens of a probe that a rank follows, at most: what was seen of them is part of each checkpoint."""


class DomainLoad(Metric):
    """Rows (a token at one of its K experts) of each domain's tokens that each expert computed.

    Args:
        domains: M.
        layers: L.
        num_experts: E.
        settings: of `torchmetrics.Metric`.
    """

    full_state_update = False
    rows_MLE: Tensor

    def __init__(self, domains: int, layers: int, num_experts: int, **settings: Any) -> None:
        super().__init__(**settings)
        zeros_MLE = torch.zeros(domains, layers, num_experts, dtype=torch.int64)
        self.add_state("rows_MLE", zeros_MLE, dist_reduce_fx="sum")

    def update(self, decisions: Sequence[RoutingDecision], domain_T: Tensor) -> None:
        """Add the decisions of one forward pass, one per layer, and the domain of each of its tokens."""
        rows_LME = self.rows_MLE.transpose(0, 1)
        for layer, decision in enumerate(decisions):
            ids_TK = decision.expert_ids_TK + domain_T[:, None] * decision.num_experts
            ids_R = ids_TK.flatten()
            rows_ME = rows_LME.new_zeros(rows_LME[layer].numel())
            rows_LME[layer] += rows_ME.scatter_add_(0, ids_R, torch.ones_like(ids_R)).view_as(rows_LME[layer])

    def compute(self) -> Tensor:
        """int64 (M, L, E)."""
        return self.rows_MLE


class CoActivation(Metric):
    """How often two experts were chosen by the same token.

    Args:
        layers: L.
        num_experts: E.
        settings: of `torchmetrics.Metric`.
    """

    full_state_update = False
    together_LEE: Tensor

    def __init__(self, layers: int, num_experts: int, **settings: Any) -> None:
        super().__init__(**settings)
        zeros_LEE = torch.zeros(layers, num_experts, num_experts, dtype=torch.int64)
        self.add_state("together_LEE", zeros_LEE, dist_reduce_fx="sum")

    def update(self, decisions: Sequence[RoutingDecision]) -> None:
        """Add the decisions of one forward pass, one per layer."""
        for layer, decision in enumerate(decisions):
            chosen_TE = decision.expert_mask_TE.float()
            # Exact in float32, which counts whole numbers up to 2**24, more than a forward pass has tokens;
            # not in bfloat16, to which a validation of trainer.precision=bf16 would cast.
            with torch.autocast(chosen_TE.device.type, enabled=False):
                self.together_LEE[layer] += (chosen_TE.T @ chosen_TE).long()

    def compute(self) -> Tensor:
        """Tokens that chose both experts, int64 (L, E, E), symmetric; the diagonal has the loads."""
        return self.together_LEE


class Churn(Metric):
    """Share of the tokens of a fixed probe batch whose set of experts changed since the last look.

    Each rank looks at the first tokens, `PROBED` at most, of its own part of the batch. It is NaN at the
    first look.

    Args:
        layers: L.
        settings: of `torchmetrics.Metric`.

    Attributes:
        seen_LTK: experts of each token at the last look, in increasing order; None before the first.
    """

    full_state_update = False
    changed_L: Tensor
    tokens: Tensor

    def __init__(self, layers: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.seen_LTK: Tensor | None = None
        self.add_state("changed_L", torch.zeros(layers, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, decisions: Sequence[RoutingDecision]) -> None:
        """Look at the probe batch, of which there is one decision per layer."""
        ids = [decision.expert_ids_TK[:PROBED] for decision in decisions]
        ids_LTK = torch.stack(ids).sort(dim=2).values
        if self.seen_LTK is not None and self.seen_LTK.shape == ids_LTK.shape:
            self.changed_L += (self.seen_LTK.to(ids_LTK) != ids_LTK).any(dim=2).sum(dim=1)
            self.tokens += ids_LTK.shape[1]
        self.seen_LTK = ids_LTK

    def compute(self) -> Layered:
        """Of each layer (L), and their mean, since the last `reset`, which keeps what was seen."""
        churn_L = self.changed_L.double() / self.tokens
        return Layered(churn_L, churn_L.mean())
