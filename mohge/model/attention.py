"""Causal self-attention: grouped-query and multi-head latent.

Shapes: B batch, S sequence, D model width, H query heads, J key and value heads, d width per head,
N width per head without position, R width per head with rotary position, V width per head of values,
C width of the compressed keys and values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mohge.config.schema import ModelConfig
from mohge.model.norm import RMSNorm
from mohge.model.rope import RotaryTable, rotate


class GroupedQueryAttention(nn.Module):
    """Grouped-query attention (Ainslie et al., arXiv 2305.13245); multi-head when J equals H.

    Raises:
        ValueError: Heads do not divide the width, key-value heads do not divide the heads, or the width
            per head is odd.
    """

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        if model.d_model % model.heads:
            raise ValueError(f"model.heads={model.heads} does not divide model.d_model={model.d_model}")
        if model.heads % model.kv_heads:
            raise ValueError(f"model.kv_heads={model.kv_heads} does not divide model.heads={model.heads}")
        self.heads = model.heads
        self.kv_heads = model.kv_heads
        self.head_dim = model.d_model // model.heads
        if self.head_dim % 2:
            raise ValueError(f"the width per head, model.d_model / model.heads = {self.head_dim}, is odd")
        self.qkv = nn.Linear(model.d_model, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=False)
        self.output = nn.Linear(model.d_model, model.d_model, bias=False)

    @property
    def rotary_width(self) -> int:
        """R, which here is the whole head."""
        return self.head_dim

    def forward(self, x_BSD: Tensor, table: RotaryTable) -> Tensor:
        """Attend from each position to itself and those before it; (B, S, D) to (B, S, D)."""
        qkv = self.qkv(x_BSD).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        qk, v_BJSd = qkv.split([self.heads + self.kv_heads, self.kv_heads], dim=1)
        # Queries and keys turn by the same angles: one rotation of both is fewer, larger operations.
        q_BHSd, k_BJSd = rotate(qk, table).split([self.heads, self.kv_heads], dim=1)
        o_BHSd = F.scaled_dot_product_attention(
            q_BHSd, k_BJSd, v_BJSd, is_causal=True, enable_gqa=self.kv_heads != self.heads
        )
        y_BSD: Tensor = self.output(o_BHSd.transpose(1, 2).flatten(2))
        return y_BSD


class LatentAttention(nn.Module):
    """Multi-head latent attention without query compression (DeepSeek-V2, arXiv 2405.04434, section 2.1).

    Keys without position and values are expanded from one normalised vector of width C per token. The
    rotated part of the key is shared by all heads. Scores are scaled by 1 / sqrt(N + R).
    """

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        mla = model.mla
        self.heads = model.heads
        self.query_split = [mla.nope_dim, mla.rope_dim]
        self.compressed_split = [mla.kv_rank, mla.rope_dim]
        self.expanded_split = [mla.nope_dim, mla.value_dim]
        self.query = nn.Linear(model.d_model, self.heads * sum(self.query_split), bias=False)
        self.kv_compress = nn.Linear(model.d_model, sum(self.compressed_split), bias=False)
        self.kv_norm = RMSNorm(mla.kv_rank, eps=model.norm_eps)
        self.kv_expand = nn.Linear(mla.kv_rank, self.heads * sum(self.expanded_split), bias=False)
        self.output = nn.Linear(self.heads * mla.value_dim, model.d_model, bias=False)

    @property
    def rotary_width(self) -> int:
        """R, the part of each head that carries the position."""
        return self.query_split[1]

    def forward(self, x_BSD: Tensor, table: RotaryTable) -> Tensor:
        """Attend from each position to itself and those before it; (B, S, D) to (B, S, D)."""
        q = self.query(x_BSD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q_nope_BHSN, q_rope_BHSR = q.split(self.query_split, dim=-1)
        kv_BSC, k_rope_BSR = self.kv_compress(x_BSD).split(self.compressed_split, dim=-1)
        # Under autocast the product is bfloat16: normalise it in the precision of the weight.
        kv_BSC = self.kv_norm(kv_BSC.to(self.kv_norm.weight.dtype))
        kv = self.kv_expand(kv_BSC).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k_nope_BHSN, v_BHSV = kv.split(self.expanded_split, dim=-1)
        k_rope_BHSR = rotate(k_rope_BSR.unsqueeze(1), table).expand(-1, self.heads, -1, -1)
        o_BHSV = F.scaled_dot_product_attention(
            torch.cat((q_nope_BHSN, rotate(q_rope_BHSR, table)), dim=-1),
            torch.cat((k_nope_BHSN, k_rope_BHSR), dim=-1),
            v_BHSV,
            is_causal=True,
        )
        y_BSD: Tensor = self.output(o_BHSV.transpose(1, 2).flatten(2))
        return y_BSD
