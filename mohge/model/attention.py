"""Causal self-attention: grouped-query and multi-head latent.

Shapes: B batch, S sequence, D model width, H query heads, J key and value heads, d width per head,
N width per head without position, R width per head with rotary position, V width per head of values,
C width of the compressed keys and values, L positions so far where earlier ones are in a cache.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mohge.config.schema import ModelConfig
from mohge.model.cache import LayerCache
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

    def forward(self, x_BSD: Tensor, table: RotaryTable, cache: LayerCache | None = None) -> Tensor:
        """Attend from each position to itself and those before it; (B, S, D) to (B, S, D).

        Args:
            x_BSD: the new positions, which are all of them without a cache.
            table: their angles.
            cache: keys and values of earlier positions, to which those of the new ones are added: 2 * J * d
                numbers for each token.
        """
        qkv = self.qkv(x_BSD).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        qk, v_BJSd = qkv.split([self.heads + self.kv_heads, self.kv_heads], dim=1)
        # Queries and keys turn by the same angles: one rotation of both is fewer, larger operations.
        q_BHSd, k_BJSd = rotate(qk, table).split([self.heads, self.kv_heads], dim=1)
        if cache is not None:
            k_BJLd, v_BJLd = cache.append(k_BJSd, v_BJSd)
            if cache.new.start != 0:
                y: Tensor = self.output(self._attend_to_all(q_BHSd, k_BJLd, v_BJLd, cache.new.mask))
                return y
        o_BHSd = F.scaled_dot_product_attention(
            q_BHSd, k_BJSd, v_BJSd, is_causal=True, enable_gqa=self.kv_heads != self.heads
        )
        y_BSD: Tensor = self.output(o_BHSd.transpose(1, 2).flatten(2))
        return y_BSD

    def _attend_to_all(self, q_BHSd: Tensor, k_BJLd: Tensor, v_BJLd: Tensor, mask: Tensor | None) -> Tensor:
        """Attention to the positions that the mask (B or 1, 1, S, L) allows; (B, S, D) before the output."""
        if q_BHSd.shape[2] > 1:
            o_BHSd = F.scaled_dot_product_attention(
                q_BHSd, k_BJLd, v_BJLd, attn_mask=mask, enable_gqa=self.kv_heads != self.heads
            )
            return o_BHSd.transpose(1, 2).flatten(2)
        # With one position, heads that share a key are like positions that attend to it: nothing is copied.
        q_BJHd = q_BHSd.reshape(q_BHSd.shape[0], self.kv_heads, -1, self.head_dim)
        o_BJHd = F.scaled_dot_product_attention(q_BJHd, k_BJLd, v_BJLd, attn_mask=mask)
        return o_BJHd.reshape(q_BHSd.shape[0], 1, -1)


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

    def forward(self, x_BSD: Tensor, table: RotaryTable, cache: LayerCache | None = None) -> Tensor:
        """Attend from each position to itself and those before it; (B, S, D) to (B, S, D).

        Args:
            x_BSD: the new positions, which are all of them without a cache.
            table: their angles.
            cache: the compressed keys and values of earlier positions, and their one rotated key, to which
                those of the new ones are added: C + R numbers for each token.
        """
        q = self.query(x_BSD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q_nope_BHSN, q_rope_BHSR = q.split(self.query_split, dim=-1)
        kv_BSC, k_rope_BSR = self.kv_compress(x_BSD).split(self.compressed_split, dim=-1)
        # Under autocast the product is bfloat16: normalise it in the precision of the weight.
        kv_BSC = self.kv_norm(kv_BSC.to(self.kv_norm.weight.dtype))
        k_rope_B1SR, q_rope_BHSR = rotate(k_rope_BSR.unsqueeze(1), table), rotate(q_rope_BHSR, table)
        mask, causal = None, True
        if cache is not None:
            new_B1SF = torch.cat((kv_BSC.unsqueeze(1), k_rope_B1SR.to(kv_BSC.dtype)), dim=-1)
            (kept_B1LF,) = cache.append(new_B1SF)
            if cache.new.start != 0:
                mask, causal = cache.new.mask, False
                if x_BSD.shape[1] == 1:
                    y: Tensor = self.output(
                        self._attend_compressed(q_nope_BHSN, q_rope_BHSR, kept_B1LF, mask)
                    )
                    return y
                kv_B1SC, k_rope_B1SR = kept_B1LF.split(self.compressed_split, dim=-1)
                kv_BSC = kv_B1SC.squeeze(1)
        kv = self.kv_expand(kv_BSC).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k_nope_BHSN, v_BHSV = kv.split(self.expanded_split, dim=-1)
        k_rope_BHSR = k_rope_B1SR.expand(-1, self.heads, -1, -1)
        o_BHSV = F.scaled_dot_product_attention(
            torch.cat((q_nope_BHSN, q_rope_BHSR), dim=-1),
            torch.cat((k_nope_BHSN, k_rope_BHSR), dim=-1),
            v_BHSV,
            attn_mask=mask,
            is_causal=causal,
        )
        y_BSD: Tensor = self.output(o_BHSV.transpose(1, 2).flatten(2))
        return y_BSD

    def _attend_compressed(
        self, q_nope_BH1N: Tensor, q_rope_BH1R: Tensor, kept_B1LF: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Attention of one position, before the output; (B, 1, H * V).

        Queries are compressed instead of keys expanded, and values expanded after they are added up: the
        products of a step then grow with L by C + R numbers per head, not by an expansion of L positions.

        Args:
            q_nope_BH1N: queries without position.
            q_rope_BH1R: rotated queries.
            kept_B1LF: compressed keys and values, and rotated keys, of all positions; F = C + R.
            mask: (B, 1, 1, L), or None.
        """
        expand_HXC = self.kv_expand.weight.to(kept_B1LF.dtype).unflatten(0, (self.heads, -1))
        to_keys_HNC, to_values_HVC = expand_HXC.split(self.expanded_split, dim=1)
        q_BHC = torch.einsum("bhn,hnc->bhc", q_nope_BH1N.squeeze(2).to(kept_B1LF.dtype), to_keys_HNC)
        q_BHF = torch.cat((q_BHC, q_rope_BH1R.squeeze(2).to(q_BHC.dtype)), dim=-1)
        scale = sum(self.query_split) ** -0.5
        # Heads are like positions that attend to the same keys, which serve as values too.
        o_BHF = F.scaled_dot_product_attention(
            q_BHF.unsqueeze(1), kept_B1LF, kept_B1LF, attn_mask=mask, scale=scale
        ).squeeze(1)
        o_BHV = torch.einsum("bhc,hvc->bhv", o_BHF[..., : self.compressed_split[0]], to_values_HVC)
        return o_BHV.flatten(1).unsqueeze(1)
