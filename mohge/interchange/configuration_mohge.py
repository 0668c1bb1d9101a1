"""Configuration of `MohgeForCausalLM`. Of transformers alone: exported folders hold a copy of this file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PretrainedConfig


class MohgeConfig(PretrainedConfig):
    """Sizes and router of a mixture of heterogeneous grouped experts (arXiv 2604.23108).

    Args:
        vocab_size: rows of the embedding.
        hidden_size: width of the residual stream.
        num_hidden_layers: blocks.
        num_attention_heads: query heads.
        num_key_value_heads: key and value heads of grouped-query attention.
        max_position_embeddings: longest sequence of training, in tokens.
        rms_norm_eps: epsilon of RMSNorm.
        rope_theta: base of the rotary frequencies.
        tie_word_embeddings: whether the head is the embedding.
        initializer_range: standard deviation of weights that no file gives.
        attention: "gqa" (grouped-query) or "mla" (multi-head latent).
        kv_lora_rank: mla: width of the compressed keys and values.
        qk_nope_head_dim: mla: width per head without position.
        qk_rope_head_dim: mla: width per head with rotary position.
        v_head_dim: mla: width per head of values.
        expert_widths: hidden width of each group's experts; none for a dense model.
        experts_per_group: experts in each group.
        num_shared_experts: experts that every token passes through.
        shared_expert_width: hidden width of each shared expert.
        router: "two_level" (groups, then experts), "top_k" (flat) or "none" (the shared experts alone).
        num_groups_per_tok: two_level: groups per token.
        num_experts_per_tok: routed experts per token, over all its groups together.
        group_score: two_level: "softmax" or "sigmoid" of the group logits.
        expert_weighting: "renormalize" (probabilities of the chosen experts, divided by their sum) or
            "post_softmax" (a softmax over those probabilities).
        expert_selection: "joint" (the most probable experts of all groups that are reachable) or "per_group"
            (equally many of each: of the selected groups for two_level, of all groups for top_k).
        selection_bias_rate: top_k: step by which training moved the bias that is added to probabilities for
            the choice alone; 0 for no bias.
    """

    model_type = "mohge"
    keys_to_ignore_at_inference = ("past_key_values",)

    def __init__(
        self,
        vocab_size: int = 4096,
        hidden_size: int = 128,
        num_hidden_layers: int = 4,
        num_attention_heads: int = 4,
        num_key_value_heads: int = 2,
        max_position_embeddings: int = 256,
        rms_norm_eps: float = 1e-6,
        rope_theta: float = 10000.0,
        tie_word_embeddings: bool = True,
        initializer_range: float = 0.02,
        attention: str = "gqa",
        kv_lora_rank: int = 64,
        qk_nope_head_dim: int = 32,
        qk_rope_head_dim: int = 16,
        v_head_dim: int = 32,
        expert_widths: Sequence[int] = (48, 80, 112, 144),
        experts_per_group: int = 4,
        num_shared_experts: int = 1,
        shared_expert_width: int = 64,
        router: str = "two_level",
        num_groups_per_tok: int | None = 2,
        num_experts_per_tok: int = 4,
        group_score: str = "softmax",
        expert_weighting: str = "renormalize",
        expert_selection: str = "joint",
        selection_bias_rate: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads
        self.max_position_embeddings = max_position_embeddings
        self.rms_norm_eps = rms_norm_eps
        self.rope_theta = rope_theta
        self.initializer_range = initializer_range
        self.attention = attention
        self.kv_lora_rank = kv_lora_rank
        self.qk_nope_head_dim = qk_nope_head_dim
        self.qk_rope_head_dim = qk_rope_head_dim
        self.v_head_dim = v_head_dim
        self.expert_widths = list(expert_widths)
        self.experts_per_group = experts_per_group
        self.num_shared_experts = num_shared_experts
        self.shared_expert_width = shared_expert_width
        self.router = router
        self.num_groups_per_tok = num_groups_per_tok
        self.num_experts_per_tok = num_experts_per_tok
        self.group_score = group_score
        self.expert_weighting = expert_weighting
        self.expert_selection = expert_selection
        self.selection_bias_rate = selection_bias_rate
        # Set here too: not every version of transformers knows it as a key of all models.
        self.tie_word_embeddings = tie_word_embeddings
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)
