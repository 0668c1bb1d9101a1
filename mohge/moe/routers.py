"""Routers: from a token to its experts.

Shapes: T tokens, D model width, K experts per token, E experts, G groups, N experts per group (E = G * N),
S groups selected per token (K_g).

The arithmetic is in pure functions of logits, float64 in, float64 out; the modules hold the weights that
make the logits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mohge.config.schema import ExpertsConfig, ExpertWeighting, GroupScore, RouterConfig, Selection
from mohge.config.targets import build, resolve
from mohge.errors import UserError
from mohge.moe.decision import RoutingDecision


def two_level_route(
    group_logits_TG: Tensor,
    expert_logits_TE: Tensor,
    *,
    group_top_k: int,
    expert_top_k: int,
    group_score: GroupScore = "softmax",
    expert_weighting: ExpertWeighting = "renormalize",
    selection: Selection = "joint",
) -> RoutingDecision:
    """Pick K_g groups per token, then K experts over all of those groups together.

    p_e = softmax_in_group(expert logits)_e * group weight, renormalised over E. The weights of the selected
    groups are their scores divided by the scores' sum (a single sigmoid score is kept as it is). With
    K_g = 1 the group weight cancels in p: the group router then learns from the auxiliary losses alone.
    With K = 1 the weight of the one expert is 1, and the whole router learns from those of them alone that
    look at probabilities before the top-K.

    Source: MoHGE, arXiv 2604.23108, two-level routing; `expert_weighting="post_softmax"` is the released
    code's. As there, the scores of groups and the post-softmax are computed in float32 even for float64
    logits; all else is in the dtype of the logits.

    Args:
        group_logits_TG: logits of the groups.
        expert_logits_TE: logits of the experts, group-major.
        group_top_k: K_g, groups per token.
        expert_top_k: K, experts per token, out of the K_g * N of the selected groups.
        group_score: score of a group logit.
        expert_weighting: weights of the chosen experts: p divided by its sum over them, or a softmax of p
            over them.
        selection: "per_group" picks K / K_g experts of each selected group, by p, instead.

    Raises:
        ValueError: if a top-k is out of reach, experts do not divide into the groups, K not among the
            selected groups, or a name is unknown.
    """
    T, G = group_logits_TG.shape
    N = _experts_per_group(expert_logits_TE.shape[1], G)
    if not 1 <= group_top_k <= G:
        raise ValueError(f"group_top_k={group_top_k} is not between 1 and the {G} groups")
    if not 1 <= expert_top_k <= group_top_k * N:
        raise ValueError(
            f"expert_top_k={expert_top_k} is not between 1 and the {group_top_k * N} experts "
            f"of a token's groups (group_top_k={group_top_k} times {N} per group)"
        )

    # Both scores grow with the logit, so the choice is made on logits, which do not saturate.
    selected_TS, group_ids_TS = group_logits_TG.topk(group_top_k, dim=1)
    scores_TS = _group_scores(selected_TS, group_score).to(expert_logits_TE.dtype)
    group_weights_TG = torch.zeros_like(group_logits_TG).scatter(1, group_ids_TS, scores_TS)
    group_mask_TG = torch.zeros_like(group_logits_TG, dtype=torch.bool).scatter_(1, group_ids_TS, True)

    in_group_TGN = expert_logits_TE.view(T, G, N).softmax(dim=2)
    joint_TE = (in_group_TGN * group_weights_TG.unsqueeze(2)).view(T, G * N)
    joint_TE = joint_TE / joint_TE.sum(dim=1, keepdim=True)

    # Below every probability, so that an expert of a selected group whose probability underflowed to zero
    # still comes before the experts of groups that were not selected.
    selectable_TE = joint_TE.view(T, G, N).masked_fill(~group_mask_TG.unsqueeze(2), -1.0).view(T, G * N)
    selectable_TE = _selectable(selectable_TE, selection, G, expert_top_k, group_top_k)
    chosen_TK, expert_ids_TK = selectable_TE.topk(expert_top_k, dim=1)
    return RoutingDecision(
        expert_ids_TK=expert_ids_TK,
        weights_TK=_expert_weights(chosen_TK, expert_weighting),
        expert_logits_TE=expert_logits_TE,
        joint_probability_TE=joint_TE,
        group_weights_TG=group_weights_TG,
        group_mask_TG=group_mask_TG,
        group_logits_TG=group_logits_TG,
        group_top_k=group_top_k,
    )


def top_k_route(
    expert_logits_TE: Tensor,
    *,
    num_groups: int,
    expert_top_k: int,
    expert_weighting: ExpertWeighting = "renormalize",
    selection: Selection = "joint",
    bias_E: Tensor | None = None,
) -> RoutingDecision:
    """Pick K experts by one softmax over all of them (Shazeer et al., arXiv 1701.06538; GShard, 2006.16668).

    With K = 1 the weight of the one expert is 1, whereas Switch (arXiv 2101.03961) weights it by its
    probability: the router then learns from the auxiliary losses alone.

    Args:
        expert_logits_TE: logits of the experts, group-major.
        num_groups: G, groups of the pool; for counts only, where the selection is joint.
        expert_top_k: K, experts per token.
        expert_weighting: as in `two_level_route`.
        selection: "per_group" picks the K / G most probable experts of each group, so that groups are
            equally loaded whatever the logits (MoGE, Pangu Pro, arXiv 2505.21411).
        bias_E: added to the probabilities for the choice, and for nothing else (loss-free balancing, arXiv
            2408.15664).

    Raises:
        ValueError: if the top-k is out of reach, experts do not divide into the groups, K not among them
            where the selection needs it, or a name is unknown.
    """
    T, E = expert_logits_TE.shape
    N = _experts_per_group(E, num_groups)
    if not 1 <= expert_top_k <= E:
        raise ValueError(f"expert_top_k={expert_top_k} is not between 1 and the {E} experts")

    probability_TE = expert_logits_TE.softmax(dim=1)
    selectable_TE = probability_TE if bias_E is None else probability_TE.detach() + bias_E
    selectable_TE = _selectable(selectable_TE, selection, num_groups, expert_top_k, num_groups)
    chosen_TK, expert_ids_TK = selectable_TE.topk(expert_top_k, dim=1)
    if bias_E is None:
        weights_TK = _expert_weights(chosen_TK, expert_weighting)
    elif expert_weighting == "renormalize":
        # The same as dividing probabilities by their sum, which may have underflown: a bias can choose
        # experts far from the most probable one.
        weights_TK = expert_logits_TE.gather(1, expert_ids_TK).softmax(dim=1)
    else:
        weights_TK = _expert_weights(probability_TE.gather(1, expert_ids_TK), expert_weighting)
    group_mask_TG = torch.zeros(T, num_groups, dtype=torch.bool, device=expert_logits_TE.device)
    return RoutingDecision(
        expert_ids_TK=expert_ids_TK,
        weights_TK=weights_TK,
        expert_logits_TE=expert_logits_TE,
        joint_probability_TE=probability_TE,
        group_weights_TG=probability_TE.view(T, num_groups, N).sum(dim=2),
        group_mask_TG=group_mask_TG.scatter_(1, expert_ids_TK // N, True),
        group_logits_TG=None,
        group_top_k=None,
    )


class TwoLevelRouter(nn.Module):
    """The MoHGE router: `group_weight` (G, D) and `expert_weight` (E, D) give logits for `two_level_route`.

    Args:
        d_model: D.
        num_groups: G.
        experts_per_group: N.
        cfg: top-k, score and weighting; `group_top_k` is needed.
    """

    def __init__(self, d_model: int, num_groups: int, experts_per_group: int, cfg: RouterConfig) -> None:
        super().__init__()
        if cfg.group_top_k is None:
            raise ValueError("router.group_top_k is not set, and a two_level router needs it")
        self.group_top_k = cfg.group_top_k
        self.expert_top_k = cfg.expert_top_k
        self.group_score = cfg.group_score
        self.expert_weighting = cfg.expert_weighting
        self.selection = cfg.selection
        self.group_weight = nn.Parameter(_initial_weight(num_groups, d_model))
        self.expert_weight = nn.Parameter(_initial_weight(num_groups * experts_per_group, d_model))

    def forward(self, x_TD: Tensor) -> RoutingDecision:
        """Route T tokens; logits are computed in float32, or in float64 for float64 tokens."""
        return two_level_route(
            _logits(x_TD, self.group_weight),
            _logits(x_TD, self.expert_weight),
            group_top_k=self.group_top_k,
            expert_top_k=self.expert_top_k,
            group_score=self.group_score,
            expert_weighting=self.expert_weighting,
            selection=self.selection,
        )


class TopKRouter(nn.Module):
    """The standard router: `expert_weight` (E, D) gives logits for `top_k_route`.

    With `bias_rate`, the buffer `expert_bias` (E), which begins at zero and has no gradient, balances loads
    without a loss (Wang et al., arXiv 2408.15664, algorithm 1; gates are softmax here, as in the other
    routers, and sigmoid there).

    Args:
        d_model: D.
        num_groups: G, width groups of the pool.
        experts_per_group: N.
        cfg: top-k, weighting, selection and rate of the bias.
    """

    expert_bias: Tensor | None

    def __init__(self, d_model: int, num_groups: int, experts_per_group: int, cfg: RouterConfig) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.expert_top_k = cfg.expert_top_k
        self.expert_weighting = cfg.expert_weighting
        self.selection = cfg.selection
        self.bias_rate = cfg.bias_rate
        num_experts = num_groups * experts_per_group
        self.expert_weight = nn.Parameter(_initial_weight(num_experts, d_model))
        self.register_buffer("expert_bias", torch.zeros(num_experts) if cfg.bias_rate else None)

    def forward(self, x_TD: Tensor) -> RoutingDecision:
        """Route T tokens; logits are computed in float32, or in float64 for float64 tokens."""
        return self.decide(_logits(x_TD, self.expert_weight))

    def decide(self, logits_TE: Tensor) -> RoutingDecision:
        """The decision that follows from logits."""
        return top_k_route(
            logits_TE,
            num_groups=self.num_groups,
            expert_top_k=self.expert_top_k,
            expert_weighting=self.expert_weighting,
            selection=self.selection,
            bias_E=self.expert_bias,
        )

    def move_bias(self, expert_counts_E: Tensor) -> None:
        """Raise the bias of experts with less than the mean load by the rate, and lower that of the others.

        Args:
            expert_counts_E: tokens that chose each expert in the optimizer step, over all ranks.
        """
        assert self.expert_bias is not None, "router.bias_rate is 0"
        counts_E = expert_counts_E.to(torch.float64)  # a mean of counts is exact in it, and so is its sign
        direction_E = (counts_E.mean() - counts_E).sign()
        self.expert_bias.add_(direction_E.to(self.expert_bias.dtype), alpha=self.bias_rate)


def build_router(router: RouterConfig, experts: ExpertsConfig, d_model: int) -> TwoLevelRouter | TopKRouter:
    """The router that the configuration names.

    Raises:
        ValueError: if `router.kind` is none, or a setting that its kind needs is missing.
        UserError: if `router._target_` is no class derived from that of its kind, with the same weights.
    """
    if router.kind == "none":
        raise ValueError("router.kind=none routes nothing; a MoE layer needs two_level or top_k")
    of_kind = TwoLevelRouter if router.kind == "two_level" else TopKRouter
    arguments = (d_model, experts.num_groups, experts.per_group, router)
    if router.target is None:
        return of_kind(*arguments)
    found = resolve("router", router.target)
    if not (isinstance(found, type) and issubclass(found, of_kind)):
        raise UserError(
            f"router._target_={router.target} is no {of_kind.__name__}, as router.kind={router.kind} needs: "
            f"derive the class from mohge.moe.routers.{of_kind.__name__}"
        )
    made: TwoLevelRouter | TopKRouter = build("router", router.target, *arguments)
    rows = experts.num_experts + (experts.num_groups if router.kind == "two_level" else 0)
    weights = sum(parameter.numel() for parameter in made.parameters())
    if weights != rows * d_model:  # what budgets, and so tables and matched widths, count
        raise UserError(
            f"router._target_={router.target} has {weights} weights, and budgets count the {rows * d_model} "
            f"of router.kind={router.kind}: keep to those of {of_kind.__name__}"
        )
    return made


def _experts_per_group(num_experts: int, num_groups: int) -> int:
    if num_groups < 1 or num_experts % num_groups:
        raise ValueError(f"{num_experts} experts do not divide into {num_groups} groups of one size")
    return num_experts // num_groups


def _selectable(
    score_TE: Tensor, selection: Selection, num_groups: int, expert_top_k: int, reachable_groups: int
) -> Tensor:
    """The scores by which experts are picked; minus infinity for those that a selection rules out."""
    if selection == "joint":
        return score_TE
    if selection != "per_group":
        raise ValueError(f"selection={selection!r} is neither 'joint' nor 'per_group'")
    if expert_top_k % reachable_groups:
        raise ValueError(
            f"expert_top_k={expert_top_k} is not equally many experts of each of {reachable_groups} groups, "
            "as selection='per_group' needs"
        )
    score_TGN = score_TE.unflatten(1, (num_groups, -1))
    best_TGC = score_TGN.topk(expert_top_k // reachable_groups, dim=2).indices
    kept_TGN = torch.zeros_like(score_TGN, dtype=torch.bool).scatter_(2, best_TGC, True)
    return score_TGN.masked_fill(~kept_TGN, -torch.inf).flatten(1)


def _group_scores(selected_TS: Tensor, group_score: GroupScore) -> Tensor:
    """Weights of the selected groups, in float32."""
    if group_score == "softmax":
        # Equal to the softmax over all groups divided by its sum over the selected ones.
        return selected_TS.softmax(dim=1, dtype=torch.float32)
    if group_score == "sigmoid":
        # The floor keeps tokens whose every score underflows from dividing zero by zero.
        scores_TS = selected_TS.float().sigmoid().clamp_min(torch.finfo(torch.float32).tiny)
        return (
            scores_TS / (scores_TS.sum(dim=1, keepdim=True) + 1e-20) if scores_TS.shape[1] > 1 else scores_TS
        )
    raise ValueError(f"group_score={group_score!r} is neither 'softmax' nor 'sigmoid'")


def _expert_weights(chosen_TK: Tensor, expert_weighting: ExpertWeighting) -> Tensor:
    if expert_weighting == "renormalize":
        return chosen_TK / chosen_TK.sum(dim=1, keepdim=True)
    if expert_weighting == "post_softmax":
        return chosen_TK.softmax(dim=1, dtype=torch.float32).to(chosen_TK.dtype)
    raise ValueError(f"expert_weighting={expert_weighting!r} is neither 'renormalize' nor 'post_softmax'")


def _initial_weight(rows: int, d_model: int) -> Tensor:
    return torch.randn(rows, d_model) * d_model**-0.5


def _logits(x_TD: Tensor, weight: Tensor) -> Tensor:
    # Rounding the logits changes which experts are chosen: keep them out of autocast's hands.
    dtype = torch.promote_types(x_TD.dtype, torch.float32)
    with torch.autocast(x_TD.device.type, enabled=False):
        return F.linear(x_TD.to(dtype), weight.to(dtype))
