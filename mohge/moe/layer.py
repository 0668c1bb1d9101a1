"""The mixture-of-experts layer: router, experts and shared experts put together.

Shapes: T tokens, D model width.
"""

from __future__ import annotations

from torch import Tensor, nn

from mohge.config.schema import ExpertsConfig, RouterConfig
from mohge.model.feed_forward import SwiGLU
from mohge.moe.decision import RoutingDecision
from mohge.moe.dispatch import Dispatcher, LocalDispatcher
from mohge.moe.experts import Experts
from mohge.moe.routers import build_router


class MoELayer(nn.Module):
    """y = sum over a token's K experts of weight * expert(x), plus the shared experts of x.

    Submodules are `router`, `experts` and `shared` (None without shared experts); the `dispatcher` brings
    tokens to experts. Losses and counts are taken from the returned decision, outside.

    Args:
        d_model: D.
        experts: widths, experts per group, shared experts and kernel.
        router: kind and settings; not of kind none.

    Raises:
        ValueError: if the configuration has no routed experts, or the kernel cannot compute them.
    """

    def __init__(self, d_model: int, experts: ExpertsConfig, router: RouterConfig) -> None:
        super().__init__()
        if not experts.num_experts:
            raise ValueError(
                "experts.widths and experts.per_group name no experts, and a MoE layer needs some"
            )
        self.router = build_router(router, experts, d_model)
        self.experts = Experts(d_model, experts.widths, experts.per_group, experts.kernel)
        shared_width = experts.shared * experts.shared_width
        self.shared = SwiGLU(d_model, shared_width) if shared_width else None
        self.dispatcher: Dispatcher = LocalDispatcher()

    def forward(self, x: Tensor) -> tuple[Tensor, RoutingDecision]:
        """Map x (..., D) to y (..., D), and return the decision for its T tokens, in row-major order."""
        decision = self.route(x)
        return self.compute(x, decision), decision

    def route(self, x: Tensor) -> RoutingDecision:
        """Decide for each token of x (..., D)."""
        decision: RoutingDecision = self.router(x.flatten(end_dim=-2))
        return decision

    def compute(self, x: Tensor, decision: RoutingDecision) -> Tensor:
        """Map x (..., D) to (..., D) by a decision that `route` made for it.

        It is a step of its own so that a block can recompute it in the backward pass and keep the decision.
        """
        x_TD, shared = x.flatten(end_dim=-2), self.shared
        meanwhile = None if shared is None else lambda: shared(x_TD)
        return self.dispatcher(x_TD, decision, self.experts, meanwhile).view_as(x)
