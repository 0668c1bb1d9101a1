"""Mixture of heterogeneous grouped experts (arXiv 2604.23108) as a causal language model of transformers.

It needs torch and transformers alone: exported folders hold a copy of this file. Written to be read and to be
right, not to be fast: experts are computed one after another.

Shapes: B batch, S new positions, K those and the ones in the cache, D model width, H query heads, J key and
value heads, d width per head, N width per head without position, R width per head with rotary position, V
width per head of values, C width of the compressed keys and values, T tokens, G groups, E experts.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from .configuration_mohge import MohgeConfig


class GroupedQueryAttention(nn.Module):
    """Grouped-query attention; the cache holds rotated keys, and values."""

    def __init__(self, config: MohgeConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.hidden_size // self.heads
        rows = (self.heads + 2 * self.kv_heads) * self.head_dim
        self.qkv = nn.Linear(config.hidden_size, rows, bias=False)
        self.output = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(
        self, x_BSD: Tensor, angles: tuple[Tensor, Tensor], allowed: Tensor | None, cache: Cache | None
    ) -> Tensor:
        """Attend from each new position (B, S, D)."""
        qkv = self.qkv(x_BSD).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        q_BHSd, k_BJKd, v_BJKd = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        q_BHSd, k_BJKd = _rotate(q_BHSd, angles), _rotate(k_BJKd, angles)
        if cache is not None:
            k_BJKd, v_BJKd = cache.update(k_BJKd, v_BJKd, self.layer)
        return self.output(_attend(q_BHSd, k_BJKd, v_BJKd, allowed))


class LatentAttention(nn.Module):
    """Multi-head latent attention; the cache holds a compressed vector and one rotated key per token."""

    def __init__(self, config: MohgeConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads = config.num_attention_heads
        self.query_split = [config.qk_nope_head_dim, config.qk_rope_head_dim]
        self.compressed_split = [config.kv_lora_rank, config.qk_rope_head_dim]
        self.expanded_split = [config.qk_nope_head_dim, config.v_head_dim]
        self.query = nn.Linear(config.hidden_size, self.heads * sum(self.query_split), bias=False)
        self.kv_compress = nn.Linear(config.hidden_size, sum(self.compressed_split), bias=False)
        self.kv_norm = nn.RMSNorm(config.kv_lora_rank, eps=config.rms_norm_eps)
        self.kv_expand = nn.Linear(config.kv_lora_rank, self.heads * sum(self.expanded_split), bias=False)
        self.output = nn.Linear(self.heads * config.v_head_dim, config.hidden_size, bias=False)

    def forward(
        self, x_BSD: Tensor, angles: tuple[Tensor, Tensor], allowed: Tensor | None, cache: Cache | None
    ) -> Tensor:
        """Attend from each new position (B, S, D)."""
        q = self.query(x_BSD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q_nope_BHSN, q_rope_BHSR = q.split(self.query_split, dim=-1)
        kv, k_rope = self.kv_compress(x_BSD).unsqueeze(1).split(self.compressed_split, dim=-1)
        kv_B1KC, k_rope_B1KR = self.kv_norm(kv), _rotate(k_rope, angles)
        if cache is not None:
            kv_B1KC, k_rope_B1KR = cache.update(kv_B1KC, k_rope_B1KR, self.layer)
        expanded = self.kv_expand(kv_B1KC.squeeze(1)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k_nope_BHKN, v_BHKV = expanded.split(self.expanded_split, dim=-1)
        q_BHSd = torch.cat((q_nope_BHSN, _rotate(q_rope_BHSR, angles)), dim=-1)
        k_BHKd = torch.cat((k_nope_BHKN, k_rope_B1KR.expand(-1, self.heads, -1, -1)), dim=-1)
        return self.output(_attend(q_BHSd, k_BHKd, v_BHKV, allowed))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)); the first half of the rows of `gate_up` is the gate."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., D) to (..., D)."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Router(nn.Module):
    """From a token to its experts: flat, or groups first."""

    def __init__(self, config: MohgeConfig) -> None:
        super().__init__()
        self.config = config
        groups = len(config.expert_widths)
        self.expert_weight = nn.Parameter(torch.empty(groups * config.experts_per_group, config.hidden_size))
        if config.router == "two_level":
            self.group_weight = nn.Parameter(torch.empty(groups, config.hidden_size))
        if config.selection_bias_rate:
            self.register_buffer("expert_bias", torch.zeros(len(self.expert_weight)))

    def forward(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and weights of each token's experts, both (T, experts per token)."""
        # In float32 at least: rounding the logits changes which experts are chosen.
        x_TD = x_TD.to(torch.promote_types(x_TD.dtype, torch.float32))
        logits_TE = F.linear(x_TD, self.expert_weight.to(x_TD.dtype))
        if self.config.router == "two_level":
            probability_TE = self._two_level(logits_TE, F.linear(x_TD, self.group_weight.to(x_TD.dtype)))
        else:
            probability_TE = logits_TE.softmax(dim=1)
        selectable_TE = probability_TE
        if self.config.selection_bias_rate:
            selectable_TE = selectable_TE + self.get_buffer("expert_bias")
        if self.config.expert_selection == "per_group":
            selectable_TE = self._best_of_each_group(selectable_TE)
        ids = selectable_TE.topk(self.config.num_experts_per_tok, dim=1).indices
        chosen = probability_TE.gather(1, ids)
        if self.config.expert_weighting == "post_softmax":
            return ids, chosen.softmax(dim=1)
        if self.config.selection_bias_rate:  # all of them may have underflown
            return ids, logits_TE.gather(1, ids).softmax(dim=1)
        return ids, chosen / chosen.sum(dim=1, keepdim=True)

    def _two_level(self, logits_TE: Tensor, group_logits_TG: Tensor) -> Tensor:
        """softmax within the group * weight of the group, renormalised; -1 outside the selected groups."""
        assert self.config.num_groups_per_tok is not None
        selected, group_ids = group_logits_TG.topk(self.config.num_groups_per_tok, dim=1)
        if self.config.group_score == "softmax":
            scores = selected.softmax(dim=1)
        else:
            scores = selected.sigmoid().clamp_min(torch.finfo(torch.float32).tiny)
            if scores.shape[1] > 1:
                scores = scores / (scores.sum(dim=1, keepdim=True) + 1e-20)
        weights_TG = torch.zeros_like(group_logits_TG).scatter(1, group_ids, scores)
        mask_TG = torch.zeros_like(group_logits_TG, dtype=torch.bool).scatter(1, group_ids, True)
        in_group = logits_TE.unflatten(1, (weights_TG.shape[1], -1)).softmax(dim=2)
        joint = in_group * weights_TG.unsqueeze(2)
        joint = joint / joint.sum(dim=(1, 2), keepdim=True)
        return joint.masked_fill(~mask_TG.unsqueeze(2), -1.0).flatten(1)

    def _best_of_each_group(self, score_TE: Tensor) -> Tensor:
        """-inf outside the best experts of each group, equally many of each that is reachable."""
        groups = reachable = len(self.config.expert_widths)
        if self.config.router == "two_level":
            assert self.config.num_groups_per_tok is not None
            reachable = self.config.num_groups_per_tok
        share = self.config.num_experts_per_tok // reachable
        score = score_TE.unflatten(1, (groups, -1))
        best = score.topk(share, dim=2).indices
        kept = torch.zeros_like(score, dtype=torch.bool).scatter(2, best, True)
        return score.masked_fill(~kept, -torch.inf).flatten(1)


class ExpertGroup(nn.Module):
    """SwiGLU experts of one width, stacked."""

    def __init__(self, width: int, hidden: int, experts: int) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.empty(experts, 2 * hidden, width))
        self.down = nn.Parameter(torch.empty(experts, width, hidden))


class Experts(nn.Module):
    """The expert pool: expert g * N + n is the n-th of group g."""

    def __init__(self, config: MohgeConfig) -> None:
        super().__init__()
        self.per_group = config.experts_per_group
        self.groups = nn.ModuleList(
            ExpertGroup(config.hidden_size, hidden, config.experts_per_group)
            for hidden in config.expert_widths
        )

    def forward(self, x_TD: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        """Add up, for each token, the outputs of its experts by their weights."""
        y_TD = torch.zeros_like(x_TD)
        for expert in range(len(self.groups) * self.per_group):
            group, member = divmod(expert, self.per_group)
            pool = self.groups[group]
            gate_up, down = pool.get_parameter("gate_up")[member], pool.get_parameter("down")[member]
            token, slot = torch.where(ids == expert)
            gate, up = F.linear(x_TD[token], gate_up).chunk(2, dim=-1)
            out = F.linear(F.silu(gate) * up, down) * weights[token, slot, None]
            y_TD.index_add_(0, token, out.to(y_TD.dtype))
        return y_TD


class MixtureOfExperts(nn.Module):
    """Routed experts, plus the shared experts as one network of their widths added up."""

    def __init__(self, config: MohgeConfig) -> None:
        super().__init__()
        self.router = Router(config)
        self.experts = Experts(config)
        shared = config.num_shared_experts * config.shared_expert_width
        self.shared = SwiGLU(config.hidden_size, shared) if shared else None

    def forward(self, x_BSD: Tensor) -> Tensor:
        """Map x (B, S, D) to (B, S, D)."""
        x_TD = x_BSD.flatten(end_dim=-2)
        y_TD = self.experts(x_TD, *self.router(x_TD))
        if self.shared is not None:
            y_TD = y_TD + self.shared(x_TD)
        return y_TD.view_as(x_BSD)


class MohgeBlock(nn.Module):
    """Pre-norm block: attention, then experts or a dense network, each added to the residual stream."""

    def __init__(self, config: MohgeConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        attention = LatentAttention if config.attention == "mla" else GroupedQueryAttention
        self.attention = attention(config, layer)
        self.ffn_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.ffn = (
            SwiGLU(config.hidden_size, config.num_shared_experts * config.shared_expert_width)
            if config.router == "none"
            else MixtureOfExperts(config)
        )

    def forward(
        self, x_BSD: Tensor, angles: tuple[Tensor, Tensor], allowed: Tensor | None, cache: Cache | None
    ) -> Tensor:
        """The residual stream after the block (B, S, D)."""
        x_BSD = x_BSD + self.attention(self.attention_norm(x_BSD), angles, allowed, cache)
        return x_BSD + self.ffn(self.ffn_norm(x_BSD))


class MohgeForCausalLM(PreTrainedModel, GenerationMixin):
    """The language model. `generate` works with the default cache, and with batches padded on the left."""

    config_class = MohgeConfig
    base_model_prefix = "model"
    _no_split_modules = ("MohgeBlock",)
    _skip_keys_device_placement = ("cache",)
    _supports_sdpa = True
    _tied_weights_keys = {"head.weight": "embedding.weight"}  # noqa: RUF012  (as transformers wants it)

    def __init__(self, config: MohgeConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(MohgeBlock(config, layer) for layer in range(config.num_hidden_layers))
        self.final_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """As transformers asks for them."""
        return self.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """As transformers asks for them."""
        self.embedding = value

    def get_output_embeddings(self) -> nn.Module:
        """As transformers asks for them."""
        return self.head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """As transformers asks for them."""
        self.head = new_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of the next token.

        Args:
            input_ids: token ids (B, S); or give inputs_embeds (B, S, D).
            attention_mask: 1 for tokens and 0 for padding (B, K).
            position_ids: (B, S) or (1, S); by default S in a row after those in the cache.
            past_key_values: cache.
            inputs_embeds: instead of input_ids.
            labels: (B, S), for a loss; -100 where there is none.
            use_cache: fill a cache, and return it.
            logits_to_keep: the last so many positions alone, or indices of positions; 0 for all.
        """
        x_BSD = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        if position_ids is None:
            position_ids = torch.arange(past, past + x_BSD.shape[1], device=x_BSD.device).unsqueeze(0)
        angles = self._angles(position_ids, x_BSD)
        allowed = _allowed(attention_mask, past, x_BSD)
        for block in self.blocks:
            x_BSD = block(x_BSD, angles, allowed, past_key_values)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.head(self.final_norm(x_BSD[:, kept]))
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs
            )
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)

    def _angles(self, positions: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (B or 1, 1, S, R/2); the angles themselves are computed in float64."""
        config = self.config
        head_dim = config.hidden_size // config.num_attention_heads
        width = config.qk_rope_head_dim if config.attention == "mla" else head_dim
        exponents = torch.arange(0, width, 2, dtype=torch.float64, device=like.device) / width
        angles = positions[:, None, :, None].double() * config.rope_theta**-exponents
        dtype = torch.promote_types(like.dtype, torch.float32)
        return angles.cos().to(dtype), angles.sin().to(dtype)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Router | ExpertGroup):
            for parameter in module.parameters(recurse=False):
                nn.init.normal_(parameter, std=self.config.initializer_range)


def _allowed(mask: Tensor | None, past: int, like_BSD: Tensor) -> Tensor | None:
    """Which position may look at which (B or 1, 1, S, K); None for itself and all before it."""
    length, device = like_BSD.shape[1], like_BSD.device
    if mask is None and past == 0:
        return None
    at_S1 = torch.arange(past, past + length, device=device).unsqueeze(1)
    at_K = torch.arange(past + length, device=device)
    causal_SK = at_K <= at_S1
    if mask is None:
        return causal_SK[None, None]
    if mask.dim() != 2:
        raise ValueError(f"attention_mask has {mask.dim()} axes: give 1 for tokens and 0 for padding, in two")
    # Padding looks at itself, since a softmax over nothing is no number; no token looks at padding.
    return (causal_SK & mask.bool()[:, None, None, :]) | (at_K == at_S1)


def _attend(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    """Heads put together (B, S, H * width of values)."""
    several = q.shape[1] != k.shape[1]
    o = F.scaled_dot_product_attention(
        q, k, v, attn_mask=allowed, is_causal=allowed is None and q.shape[2] > 1, enable_gqa=several
    )
    return o.transpose(1, 2).flatten(2)


def _rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate dimension i of each head together with dimension i + half."""
    cos, sin = angles
    first, second = x.to(cos.dtype).chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)
