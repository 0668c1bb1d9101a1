"""Where tokens went: counts, per layer, of the experts and groups chosen over a stretch of training.

Shape suffixes: T tokens, K experts per token, L layers, E experts, G groups, N experts per group
(E = G * N; expert ids are group-major).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

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

    def check(self, group_top_k: int | None = None) -> None:
        """Assert that every token is accounted for in each layer: its rows sum to tokens * K.

        Waits for the device: call it where metrics are recorded, not in every step.

        Args:
            group_top_k: groups that a two-level router selects for each token; None if their number is free.
        """
        rows_L = self.expert_LE.sum(dim=1).tolist()
        assert all(rows == self.rows for rows in rows_L), f"{self.rows} rows per layer, counted {rows_L}"
        assert bool((self.group_LG <= self.tokens).all()), "more tokens in a group than there are"
        if group_top_k is not None:
            chosen, chosen_L = self.tokens * group_top_k, self.group_LG.sum(dim=1).tolist()
            assert all(number == chosen for number in chosen_L), f"{chosen} groups, counted {chosen_L}"
