"""Auxiliary losses of a router: pure functions of its decision, unweighted.

Shapes: T tokens, K experts per token, E experts, G groups, N experts per group (E = G * N), L layers.

Each balance loss multiplies P, the mean probability (differentiable, of this micro-batch), by f, how often
a group or expert was picked (no gradient). By default f is of the micro-batch too; `share_…` replaces it,
for instance by that of the whole optimizer step so far, which `GlobalBatchShares` keeps.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from mohge.moe.decision import RoutingDecision

LOSS_NAMES = ("group", "intra", "balance", "z")
"""Those that a two-level router has."""
FLAT_LOSS_NAMES = ("balance", "penalty", "z")
"""Those that a flat router has."""


def default_interval(widths: Sequence[int]) -> float:
    """The interval with which size weights span 1 to 1.875: 1024 for the released widths 384 to 1280.

    Widths that are all equal have size weight 1 under any interval; theirs is 1.
    """
    spread = max(widths) - min(widths)
    return spread / 0.875 if spread else 1.0


def size_weights(widths: Sequence[int], interval: float) -> Tensor:
    """r_g = (W_g - W_min + interval) / interval: how much the group-wise loss charges each width.

    Args:
        widths: W_g, hidden width of each group.
        interval: widths beyond the smallest that add 1 to the weight.

    Returns:
        float64, G.

    Raises:
        ValueError: if the interval is not positive and finite, or there are no widths.
    """
    if not len(widths):
        raise ValueError("no widths: size weights need at least one group")
    if not 0 < interval < math.inf:
        raise ValueError(f"interval={interval} must be positive and finite")
    widths_G = torch.as_tensor(widths, dtype=torch.float64)
    return (widths_G - widths_G.min() + interval) / interval


def group_wise_loss(
    group_logits_TG: Tensor,
    group_mask_TG: Tensor,
    size_weights_G: Tensor,
    *,
    share_G: Tensor | None = None,
) -> Tensor:
    """L_group = G * sum_g P_g * r_g * f_g, which steers tokens to narrow groups (arXiv 2604.23108).

    P_g is the mean over tokens of softmax(group logits)_g, whatever the router's score function; f_g the
    share of the T * K_g group choices that fell on g. It is 1 when both are uniform and widths are equal.

    Args:
        group_logits_TG: logits of the group router.
        group_mask_TG: groups each token selected.
        size_weights_G: r_g, of `size_weights`.
        share_G: f_g to use instead of the micro-batch's; sums to 1.
    """
    probability_G = group_logits_TG.softmax(dim=1).mean(dim=0)
    if share_G is None:
        share_G = _share(group_mask_TG)
    G = group_logits_TG.shape[1]
    return G * (probability_G * size_weights_G.to(probability_G) * share_G.to(probability_G)).sum()


def intra_group_loss(
    weights_TE: Tensor,
    expert_mask_TE: Tensor,
    *,
    num_groups: int,
    group_top_k: int,
    share_E: Tensor | None = None,
) -> Tensor:
    """L_intra = (E * K_g / G) * sum_e P_e * f_e, which balances the experts (arXiv 2604.23108).

    P_e is the mean over tokens of the routing weight of e after the top-K, f_e the share of the T * K
    choices that fell on e. It is K_g / G when both are uniform.

    Args:
        weights_TE: routing weights, zero where an expert was not chosen.
        expert_mask_TE: experts each token chose.
        num_groups: G.
        group_top_k: K_g.
        share_E: f_e to use instead of the micro-batch's; sums to 1.
    """
    probability_E = weights_TE.mean(dim=0)
    if share_E is None:
        share_E = _share(expert_mask_TE)
    scale = weights_TE.shape[1] * group_top_k / num_groups
    return scale * (probability_E * share_E.to(probability_E)).sum()


def switch_balance_loss(
    probability_TE: Tensor, expert_mask_TE: Tensor, *, share_E: Tensor | None = None
) -> Tensor:
    """E * sum_e P_e * f_e over all experts (Switch Transformer, arXiv 2101.03961, equations 4 to 6).

    P_e is the mean probability before the top-K, f_e the share of the T * K choices that fell on e (Switch
    has K = 1). It is 1 when both are uniform.

    Args:
        probability_TE: router probabilities, summing to 1 per token.
        expert_mask_TE: experts each token chose.
        share_E: f_e to use instead of the micro-batch's; sums to 1.
    """
    probability_E = probability_TE.mean(dim=0)
    if share_E is None:
        share_E = _share(expert_mask_TE)
    return probability_TE.shape[1] * (probability_E * share_E.to(probability_E)).sum()


def parameter_penalty(
    probability_TE: Tensor,
    expert_mask_TE: Tensor,
    widths_E: Tensor,
    *,
    share_E: Tensor | None = None,
) -> Tensor:
    """E * sum_e f_e * P_e * W_e / W_max: a balance loss that charges width (HMoE, arXiv 2408.10681).

    It steers tokens to narrow experts, as the group-wise loss of MoHGE does, expert by expert. Of experts of
    one width it is the Switch balance loss.

    Args:
        probability_TE: router probabilities, summing to 1 per token.
        expert_mask_TE: experts each token chose.
        widths_E: W_e, hidden width of each expert.
        share_E: f_e to use instead of the micro-batch's; sums to 1.
    """
    cost_E = widths_E.to(probability_TE) / widths_E.max()
    return switch_balance_loss(probability_TE * cost_E, expert_mask_TE, share_E=share_E)


def z_loss(logits: Tensor) -> Tensor:
    """Mean of logsumexp(logits)^2, which keeps logits small (ST-MoE, arXiv 2202.08906, equation 5).

    Args:
        logits: (..., classes of one softmax).
    """
    return logits.logsumexp(dim=-1).square().mean()


@dataclass(frozen=True, eq=False)
class Shares:
    """How often each group and each expert of one layer was picked; each sums to 1, without gradient."""

    group_G: Tensor
    expert_E: Tensor


class GlobalBatchShares:
    """Picks of the optimizer step so far: all its micro-batches, over all ranks, per layer.

    With more tokens in f, a balance loss lets a micro-batch of one domain use few experts (Qiu et al., arXiv
    2501.11873). Call `reset` when an optimizer step begins, `update` once in each of its micro-batches.
    """

    def __init__(self) -> None:
        self._group_LG = self._expert_LE = torch.zeros(0, dtype=torch.int64)

    def reset(self) -> None:
        """Forget the counts: a new optimizer step begins."""
        self._group_LG = self._expert_LE = torch.zeros(0, dtype=torch.int64)

    def update(self, decisions: Sequence[RoutingDecision]) -> list[Shares]:
        """Add a micro-batch and return the shares so far, one for each layer.

        Collective: where torch.distributed is initialised, every rank calls it with as many layers.

        Args:
            decisions: of each layer, at least one.
        """
        counts_L = [torch.cat([d.group_counts_G, d.expert_counts_E]) for d in decisions]
        counts = torch.stack(counts_L)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(counts)
        G = decisions[0].num_groups
        begun = self._expert_LE.numel() > 0
        self._group_LG = self._group_LG + counts[:, :G] if begun else counts[:, :G]
        self._expert_LE = self._expert_LE + counts[:, G:] if begun else counts[:, G:]
        group_LG = self._group_LG.double() / self._group_LG.sum(dim=1, keepdim=True)
        expert_LE = self._expert_LE.double() / self._expert_LE.sum(dim=1, keepdim=True)
        return [Shares(group_G, expert_E) for group_G, expert_E in zip(group_LG, expert_LE, strict=True)]


def auxiliary_losses(
    decision: RoutingDecision,
    *,
    widths: Sequence[int],
    interval: float | None = None,
    shares: Shares | None = None,
    with_gradient: Collection[str] = LOSS_NAMES,
) -> dict[str, Tensor]:
    """The unweighted auxiliary losses of one layer that apply to its kind of router.

    Args:
        decision: of the layer.
        widths: W_g of its groups.
        interval: of `size_weights`; None for `default_interval`.
        shares: picked frequencies to use instead of the micro-batch's own.
        with_gradient: names of the losses to differentiate; the others are only values for the log.

    Returns:
        Scalars by name: `LOSS_NAMES` of a two-level router, `FLAT_LOSS_NAMES` of a flat one. z of a two-level
        router is that of the softmax over the groups, plus the mean of those inside the groups.
    """
    assert set(with_gradient) <= {*LOSS_NAMES, *FLAT_LOSS_NAMES}, f"unknown losses in {with_gradient}"
    differentiable = torch.is_grad_enabled()

    def gradient(name: str) -> torch.set_grad_enabled:
        return torch.set_grad_enabled(differentiable and name in with_gradient)

    T, G, N = decision.num_tokens, decision.num_groups, decision.experts_per_group
    share_G = shares.group_G if shares else None
    share_E = shares.expert_E if shares else None
    expert_mask_TE = decision.expert_mask_TE
    losses: dict[str, Tensor] = {}
    with gradient("balance"):
        losses["balance"] = switch_balance_loss(
            decision.joint_probability_TE, expert_mask_TE, share_E=share_E
        )
    if decision.group_logits_TG is None or decision.group_top_k is None:
        with gradient("penalty"):
            widths_E = torch.as_tensor(widths, dtype=torch.float64).repeat_interleave(N)
            losses["penalty"] = parameter_penalty(
                decision.joint_probability_TE, expert_mask_TE, widths_E, share_E=share_E
            )
        with gradient("z"):
            losses["z"] = z_loss(decision.expert_logits_TE)
        return losses

    with gradient("z"):
        losses["z"] = z_loss(decision.expert_logits_TE.view(T, G, N)) + z_loss(decision.group_logits_TG)
    with gradient("group"):
        r_G = size_weights(widths, default_interval(widths) if interval is None else interval)
        losses["group"] = group_wise_loss(
            decision.group_logits_TG, decision.group_mask_TG, r_G, share_G=share_G
        )
    with gradient("intra"):
        losses["intra"] = intra_group_loss(
            decision.expert_weights_TE,
            expert_mask_TE,
            num_groups=G,
            group_top_k=decision.group_top_k,
            share_E=share_E,
        )
    return losses


def _share(mask: Tensor) -> Tensor:
    """Share of the choices in a mask (tokens, choices) that fell on each column, in float64."""
    counts = mask.sum(dim=0)
    return counts.double() / counts.sum()
