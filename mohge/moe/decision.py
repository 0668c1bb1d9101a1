"""What a router decided for a batch of tokens.

Shapes: T tokens, K experts per token, E experts, G groups, N experts per group (E = G * N).
Expert ids are group-major: expert g * N + n is the n-th expert of width group g.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RoutingDecision:
    """Choice and weights of experts for T tokens.

    It holds plain tensors, so it may cross the border of a recomputed (checkpointed) region. Gradients
    flow through the weights, the probabilities and the logits.
    """

    expert_ids_TK: Tensor
    """int64, the chosen experts, K different ids per token, in the order of the scores that chose them: most
    probable first, unless a bias of the choice has its say."""
    weights_TK: Tensor
    """Weight of each chosen expert's output; sums to 1 over K."""
    expert_logits_TE: Tensor
    """Logits of the expert router."""
    joint_probability_TE: Tensor
    """Probability of each expert before the top-K; sums to 1 over E, and is 0 outside the selected groups."""
    group_weights_TG: Tensor
    """Weight of each group: zero where not selected (two-level), or summed probability (flat router)."""
    group_mask_TG: Tensor
    """bool, the groups the token selected (two-level), or those that hold a chosen expert (flat)."""
    group_logits_TG: Tensor | None
    """Logits of the group router; None for a flat router."""
    group_top_k: int | None
    """K_g, groups per token; None for a flat router."""

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.expert_ids_TK.shape[0]

    @property
    def expert_top_k(self) -> int:
        """K, routed experts per token."""
        return self.expert_ids_TK.shape[1]

    @property
    def num_experts(self) -> int:
        """E."""
        return self.expert_logits_TE.shape[1]

    @property
    def num_groups(self) -> int:
        """G."""
        return self.group_mask_TG.shape[1]

    @property
    def experts_per_group(self) -> int:
        """N."""
        return self.num_experts // self.num_groups

    @property
    def expert_mask_TE(self) -> Tensor:
        """bool, True where the token chose the expert."""
        mask_TE = torch.zeros_like(self.expert_logits_TE, dtype=torch.bool)
        return mask_TE.scatter_(1, self.expert_ids_TK, True)

    # Not cached: a differentiable tensor made inside a checkpointed region must be made again when that
    # region is recomputed. The counts below carry no gradient, so they are cached.
    @property
    def expert_weights_TE(self) -> Tensor:
        """Dense view of `weights_TK`, zero where the expert was not chosen; differentiable."""
        zeros_TE = torch.zeros_like(self.expert_logits_TE, dtype=self.weights_TK.dtype)
        return zeros_TE.scatter(1, self.expert_ids_TK, self.weights_TK)

    @cached_property
    def expert_counts_E(self) -> Tensor:
        """int64, tokens that chose each expert; sums to T * K."""
        # Not bincount, which makes the host wait for a GPU.
        ids_R = self.expert_ids_TK.flatten()
        return ids_R.new_zeros(self.num_experts).scatter_add_(0, ids_R, torch.ones_like(ids_R))

    @cached_property
    def group_counts_G(self) -> Tensor:
        """int64, tokens that selected each group (not rows that its experts compute)."""
        return self.group_mask_TG.sum(0)
