"""Where tokens went: counts, per layer, of the experts and groups chosen over a stretch of training.

Shape suffixes: T tokens, K experts per token, L layers, E experts, G groups, N experts per group
(E = G * N; expert ids are group-major).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mohge.parallel.world import add_over_ranks

if TYPE_CHECKING:
    from mohge.moe.decision import RoutingDecision


class RoutingCounts:
    """Running totals of routing decisions, kept on the device so that adding to them never waits for it.

    A row is one token at one of its K experts.

    Attributes:
        expert_LE: int64, rows that each expert computed.
        group_LG: int64, tokens that selected each group.
        tokens: tokens counted, the same in every layer.
        rows: rows counted, the same in every layer (tokens * K).
    """

    def __init__(
        self, layers: int, num_groups: int, experts_per_group: int, device: torch.device | str = "cpu"
    ) -> None:
        """Start from zero. A dense model, which routes nothing, has `num_groups` 0."""
        self.expert_LE = torch.zeros(layers, num_groups * experts_per_group, dtype=torch.int64, device=device)
        self.group_LG = torch.zeros(layers, num_groups, dtype=torch.int64, device=device)
        self.tokens = 0
        self.rows = 0

    def add(self, decisions: Sequence[RoutingDecision]) -> None:
        """Count the decisions of one forward pass, one per layer; none for a dense model."""
        if not decisions:
            return
        tokens, top_k = decisions[0].expert_ids_TK.shape
        assert len(decisions) == len(self.expert_LE), "one decision per layer"
        assert all(decision.expert_ids_TK.shape == (tokens, top_k) for decision in decisions)
        self.expert_LE += torch.stack([decision.expert_counts_E for decision in decisions])
        self.group_LG += torch.stack([decision.group_counts_G for decision in decisions])
        self.tokens += tokens
        self.rows += tokens * top_k

    def reset(self) -> None:
        """Back to zero, in place."""
        self.expert_LE.zero_()
        self.group_LG.zero_()
        self.tokens = 0
        self.rows = 0

    def add_over_ranks(self) -> None:
        """Make them the counts of all ranks, each of which has counted tokens of its own. Collective."""
        numbers = torch.tensor([self.tokens, self.rows], device=self.expert_LE.device)
        for counts in (self.expert_LE, self.group_LG, numbers):
            add_over_ranks(counts)
        self.tokens, self.rows = numbers.tolist()

    def check(self) -> None:
        """Assert that every token is accounted for in each layer: its rows sum to tokens * K.

        Waits for the device: call it where metrics are recorded, not in every step.
        """
        rows_L = self.expert_LE.sum(dim=1).tolist()
        assert all(rows == self.rows for rows in rows_L), f"{self.rows} rows per layer, counted {rows_L}"
        assert bool((self.group_LG <= self.tokens).all()), "more tokens in a group than there are"

    def group_rows(self) -> Tensor:
        """Rows that each width group computed in each layer; int64 (L, G)."""
        layers, groups = self.group_LG.shape
        per_group = self.expert_LE.shape[1] // groups if groups else 0
        return self.expert_LE.view(layers, groups, per_group).sum(dim=2)

    def rows_share(self) -> Tensor:
        """Share of all rows, over layers, that each width group computed; float64 (G), sums to 1.

        NaN before anything was counted.
        """
        rows_G = self.group_rows().sum(dim=0).double()
        return rows_G / rows_G.sum()

    def active_routed_parameters(self, widths: Sequence[int], d_model: int) -> float:
        """Routed parameters that one token passed through, on average, summed over layers.

        An expert of group g is a SwiGLU of 3 * D * W_g parameters. NaN before anything was counted.

        Args:
            widths: hidden width W_g of each group's experts, of length G.
            d_model: width D of the residual stream.
        """
        if self.tokens == 0:
            return float("nan")
        rows_G = self.group_rows().sum(dim=0).tolist()
        columns = sum(rows * width for rows, width in zip(rows_G, widths, strict=True))
        return 3 * d_model * columns / self.tokens

    def max_violation(self) -> float:
        """Largest load of an expert over the mean load, minus 1, in the worst layer (MaxVio, arXiv
        2408.15664): 0 when all are equal, E/K - 1 when every token takes the same K experts.

        NaN before anything was counted.
        """
        load_LE = self.expert_LE.double()
        return float((load_LE.amax(dim=1) / load_LE.mean(dim=1) - 1).amax())

    def dead_experts(self) -> int:
        """Experts, over all layers, that no token chose."""
        return int((self.expert_LE == 0).sum())
