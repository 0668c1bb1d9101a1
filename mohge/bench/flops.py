"""Floating-point operations of matrix products, two per multiply and add."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mohge.budget import budget
from mohge.config.schema import TrainConfig


def experts_flops(d_model: int, widths: Sequence[int], group_rows: Sequence[int]) -> int:
    """Of SwiGLU experts, forward and backward.

    Args:
        d_model: width of the tokens.
        widths: of each group's experts.
        group_rows: rows that each group computes.
    """
    return sum(18 * rows * d_model * width for rows, width in zip(group_rows, widths, strict=True))


def step_flops(config: TrainConfig, routed: float, *, causal: bool) -> float:
    """Of a training step, forward and backward, without what is recomputed.

    Args:
        config: of the step.
        routed: of its routed rows, measured.
        causal: whether attention counts only the pairs of positions that the mask leaves, and not, as
            `mohge.budget` does, all.
    """
    forward = budget(config).flops_per_token.forward - _expected_routed(config)
    if causal:
        length = config.data.context
        forward -= _attention_pairs(config) * (length - 1) / (2 * length)
    return 3 * config.tokens_per_step * forward + routed


def _expected_routed(config: TrainConfig) -> float:
    """What the budget takes for a token's routed experts, forward."""
    model, experts, router = config.model, config.experts, config.router
    if router.kind == "none":
        return 0.0
    mean_width = sum(experts.widths) / len(experts.widths)
    return 6 * model.layers * router.expert_top_k * model.d_model * mean_width


def _attention_pairs(config: TrainConfig) -> int:
    """What the budget takes for a token's scores and values, forward: all that grows with the length."""
    doubled = dataclasses.replace(config.data, context=2 * config.data.context)
    longer = dataclasses.replace(config, data=doubled)
    return budget(longer).flops_per_token.forward - budget(config).flops_per_token.forward
