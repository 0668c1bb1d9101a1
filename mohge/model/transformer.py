"""The decoder language model.

Shapes: B batch, S sequence, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mohge.config.schema import ExpertsConfig, ModelConfig, RouterConfig, TrainConfig
from mohge.model.attention import GroupedQueryAttention, LatentAttention
from mohge.model.cache import KeyValueCache, LayerCache
from mohge.model.feed_forward import SwiGLU
from mohge.model.flop_formulas import register_flop_formulas
from mohge.model.head_loss import cross_entropy, mean_cross_entropy, score
from mohge.model.norm import RMSNorm
from mohge.model.rope import RotaryTable, rotary_table
from mohge.moe.decision import RoutingDecision
from mohge.moe.layer import MoELayer

register_flop_formulas()


class ModelOutput(NamedTuple):
    """What the language model returns (a tuple, so that FSDP and checkpointing see its tensors)."""

    logits_BSV: Tensor | None
    """Scores of the next token at each position; None where targets were given."""
    decisions: tuple[RoutingDecision, ...]
    """Routing of the B * S tokens, one decision per layer; empty for a dense model."""
    loss: Tensor | None = None
    """Cross-entropy of the targets: mean (a scalar), or at each position (B, S)."""
    top_BS: Tensor | None = None
    """Whether each target has the largest logit; of reduction "score" alone."""


class TransformerBlock(nn.Module):
    """Pre-norm block: attention, then a MoE layer or a dense SwiGLU, each added to the residual stream."""

    def __init__(self, model: ModelConfig, experts: ExpertsConfig, router: RouterConfig) -> None:
        super().__init__()
        self.checkpointing = model.activation_checkpointing
        self.attention_norm = RMSNorm(model.d_model, eps=model.norm_eps)
        self.attention: GroupedQueryAttention | LatentAttention = (
            LatentAttention(model) if model.attention == "mla" else GroupedQueryAttention(model)
        )
        self.ffn_norm = RMSNorm(model.d_model, eps=model.norm_eps)
        self.ffn: MoELayer | SwiGLU = (
            SwiGLU(model.d_model, experts.shared * experts.shared_width)
            if router.kind == "none"
            else MoELayer(model.d_model, experts, router)
        )

    def forward(
        self, x_BSD: Tensor, table: RotaryTable, cache: LayerCache | None = None
    ) -> tuple[Tensor, RoutingDecision | None]:
        """Return the residual stream after the block, and the decision of its router if it has one."""
        if self.checkpointing and torch.is_grad_enabled():
            return self._forward_with_recomputation(x_BSD, table)
        x_BSD = self._attend(x_BSD, table, cache)
        h_BSD = self.ffn_norm(x_BSD)
        if isinstance(self.ffn, SwiGLU):
            return x_BSD + self.ffn(h_BSD), None
        y_BSD, decision = self.ffn(h_BSD)
        return x_BSD + y_BSD, decision

    def _attend(self, x_BSD: Tensor, table: RotaryTable, cache: LayerCache | None = None) -> Tensor:
        return x_BSD + self.attention(self.attention_norm(x_BSD), table, cache)

    def _forward_with_recomputation(
        self, x_BSD: Tensor, table: RotaryTable
    ) -> tuple[Tensor, RoutingDecision | None]:
        """The same, keeping for the backward pass only what enters attention and feed-forward network.

        The router runs outside the recomputed regions: a second run could pick other experts than those
        whose outputs the loss has seen, for instance on a tie or under a nondeterministic kernel. Nothing in
        a block draws random numbers, so their state need not be kept.
        """
        x_BSD = checkpoint(self._attend, x_BSD, table, use_reentrant=False, preserve_rng_state=False)
        h_BSD = self.ffn_norm(x_BSD)
        if isinstance(self.ffn, SwiGLU):
            return x_BSD + checkpoint(self.ffn, h_BSD, use_reentrant=False, preserve_rng_state=False), None
        decision = self.ffn.route(h_BSD)
        y_BSD = checkpoint(self.ffn.compute, h_BSD, decision, use_reentrant=False, preserve_rng_state=False)
        return x_BSD + y_BSD, decision


class TransformerLM(nn.Module):
    """Decoder-only language model with a MoE layer or a dense feed-forward network in each block.

    Construction fills weights with PyTorch's defaults: call `initialize` before training.

    Args:
        model: Width, depth, attention, vocabulary.
        experts: Pool of experts of each layer; `shared` * `shared_width` is the width of a dense model.
        router: How a token picks experts; kind none makes the model dense.

    Raises:
        ValueError: Dimensions that do not divide.
    """

    def __init__(self, model: ModelConfig, experts: ExpertsConfig, router: RouterConfig) -> None:
        super().__init__()
        self.config = model
        self.embedding = nn.Embedding(model.vocab_size, model.d_model)
        self.blocks = nn.ModuleList(TransformerBlock(model, experts, router) for _ in range(model.layers))
        self.final_norm = RMSNorm(model.d_model, eps=model.norm_eps)
        if not model.tied_head:
            self.head = nn.Linear(model.d_model, model.vocab_size, bias=False)

    def forward(
        self,
        tokens_BS: Tensor,
        targets_BS: Tensor | None = None,
        *,
        reduction: Literal["mean", "none", "score"] = "mean",
        cache: KeyValueCache | None = None,
        lengths: Sequence[int] | None = None,
        last: bool = False,
    ) -> ModelOutput:
        """Score the next token at every position, or the given ones alone.

        With targets, the logits of all positions never exist at the same time. With a cache, the tokens come
        after those that it holds, and join them.

        Args:
            tokens_BS: Token ids, int64, of any length S up to the context (B, S).
            targets_BS: The right next token at each position.
            reduction: Of the loss: "mean", which has gradients; "none", which has not, and is zero where the
                target is -100; or "score", the same with `top_BS`, which spends nothing on such positions.
            cache: Keys and values of the tokens before these.
            lengths: With a cache, tokens of each row; what comes after them in the row is padding.
            last: Give the logits of each row's last token alone, (B, 1, V).

        Raises:
            ValueError: A row is longer than `model.context`, or there is a cache and gradients are on.
        """
        lengths = [tokens_BS.shape[1]] * tokens_BS.shape[0] if lengths is None else lengths
        before = [0] * len(lengths) if cache is None else cache.lengths
        length = max((old + new for old, new in zip(before, lengths, strict=True)), default=0)
        if length > self.config.context:
            raise ValueError(f"{length} tokens exceed the context, model.context={self.config.context}")
        if cache is not None and torch.is_grad_enabled():
            raise ValueError("a key-value cache has no gradients: use it under torch.inference_mode()")
        x_BSD = self.embedding(tokens_BS)
        if cache is not None:
            cache.begin(tokens_BS.shape[1], len(self.blocks), x_BSD.device)
        table = self._rotary_table(tokens_BS.shape[1], x_BSD, cache)
        decisions: list[RoutingDecision] = []
        for number, block in enumerate(self.blocks):
            x_BSD, decision = block(x_BSD, table, None if cache is None else cache.layers[number])
            if decision is not None:
                decisions.append(decision)
        if cache is not None:
            cache.finish(lengths)
        if last:
            x_BSD = _last_of(x_BSD, lengths)
        x_BSD = self.final_norm(x_BSD)
        head_VD = self.embedding.weight if self.config.tied_head else self.head.weight
        if targets_BS is None:
            return ModelOutput(F.linear(x_BSD, head_VD), tuple(decisions))
        hidden_PD, targets_P = x_BSD.flatten(0, 1), targets_BS.flatten()
        if reduction == "score":
            loss_P, top_P = score(hidden_PD, head_VD, targets_P)
            return ModelOutput(None, tuple(decisions), loss_P.view_as(targets_BS), top_P.view_as(targets_BS))
        if reduction == "mean":
            loss = mean_cross_entropy(hidden_PD, head_VD, targets_P)
        else:
            loss = cross_entropy(hidden_PD, head_VD, targets_P).view_as(targets_BS)
        return ModelOutput(None, tuple(decisions), loss)

    def _rotary_table(self, length: int, like: Tensor, cache: KeyValueCache | None) -> RotaryTable:
        attention = self.blocks[0].get_submodule("attention")
        assert isinstance(attention, GroupedQueryAttention | LatentAttention)
        dtype = torch.promote_types(like.dtype, torch.float32)
        width, base = attention.rotary_width, self.config.rope_base
        if cache is not None:
            return cache.table(width, base, dtype, like.device)
        return rotary_table(length, width, base, dtype=dtype, device=like.device)


def _last_of(x_BSD: Tensor, lengths: Sequence[int]) -> Tensor:
    """The last position of each row, (B, 1, D)."""
    if min(lengths) == x_BSD.shape[1]:
        return x_BSD[:, -1:]
    at_B = torch.tensor(lengths, device=x_BSD.device) - 1
    return x_BSD[torch.arange(len(lengths), device=x_BSD.device), at_B].unsqueeze(1)


def build_model(cfg: TrainConfig) -> TransformerLM:
    """Build the model of a run, not yet initialised; under `torch.device("meta")` nothing is allocated."""
    return TransformerLM(cfg.model, cfg.experts, cfg.router)
