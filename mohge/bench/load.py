"""What the experts are given in a benchmark: tokens, and a random routing that is new in every round.

Shapes: T tokens, D model width, K experts per token, E experts, G groups, N experts per group (E = G * N),
R = T * K rows.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from mohge.config.bench_schema import ExpertsShape
from mohge.moe.decision import RoutingDecision
from mohge.moe.routers import top_k_route


class ExpertsLoad:
    """Tokens, gradients of the output, and a routing for each round.

    Args:
        shape: the pool and T, D, K.
        rounds: routings to draw; after the last comes the first again.
        skew: Zipf exponent of the experts' popularity.
        dtype: of tokens and gradients; routing weights are float32, as in training.
        device: where the tensors are.
        seed: of everything random.

    Attributes:
        x_TD: tokens, which take a gradient.
        grad_TD: gradient of the output.
        group_rows: rows of each group, mean over the rounds; they sum to R.
    """

    def __init__(
        self,
        shape: ExpertsShape,
        *,
        rounds: int,
        skew: float,
        dtype: torch.dtype,
        device: torch.device,
        seed: int,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        groups, per_group = len(shape.widths), shape.per_group
        popularity_E = -skew * (torch.randperm(groups * per_group, generator=generator) + 1.0).log()

        def normal(rows: int) -> Tensor:
            return torch.randn(rows, shape.d_model, generator=generator).to(device, dtype)

        def decide() -> RoutingDecision:
            logits_TE = torch.randn(shape.tokens, groups * per_group, generator=generator) + popularity_E
            return top_k_route(logits_TE.to(device), num_groups=groups, expert_top_k=shape.top_k)

        self.x_TD = normal(shape.tokens).requires_grad_()
        self.grad_TD = normal(shape.tokens)
        self._template = decide()  # of which only ids and weights differ from round to round
        drawn = [decide() for _ in range(rounds)]
        self._routings = [(decision.expert_ids_TK, decision.weights_TK) for decision in drawn]
        self._round = 0
        counts_E = torch.stack([decision.expert_counts_E for decision in drawn]).double().mean(dim=0)
        ends_G = counts_E.view(groups, per_group).sum(dim=1).cumsum(0).round().long()
        self.group_rows: list[int] = ends_G.diff(prepend=ends_G.new_zeros(1)).tolist()
        rows = shape.tokens * shape.top_k
        self._x_RD, self._grad_RD = normal(rows), normal(rows)

    def renew(self) -> None:
        """Go on to the next routing."""
        self._round = (self._round + 1) % len(self._routings)

    def decision(self) -> RoutingDecision:
        """The routing of the round, with weights of its own and nothing counted yet."""
        ids_TK, weights_TK = self._routings[self._round]
        weights_TK = weights_TK.clone().requires_grad_()
        return dataclasses.replace(self._template, expert_ids_TK=ids_TK, weights_TK=weights_TK)

    def dense_inputs(self) -> list[Tensor]:
        """Inputs of `group_rows` rows, each contiguous and with a gradient to take."""
        return [x_RD.detach().requires_grad_() for x_RD in self._x_RD.split(self.group_rows)]

    def dense_gradients(self) -> list[Tensor]:
        """Gradients of the outputs for them."""
        return list(self._grad_RD.split(self.group_rows))
