"""Attention against a plain implementation in float64."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mohge.config.schema import LatentAttentionConfig, ModelConfig
from mohge.model.attention import GroupedQueryAttention, LatentAttention
from mohge.model.rope import RotaryTable, rotary_table

MODEL = ModelConfig(name="test", vocab_size=16, context=32, d_model=24, layers=1, heads=6, kv_heads=2)
LATENT = replace(
    MODEL,
    attention="mla",
    mla=LatentAttentionConfig(kv_rank=10, nope_dim=5, rope_dim=4, value_dim=7),
)


def table(width: int, length: int, dtype: torch.dtype = torch.float64) -> RotaryTable:
    return rotary_table(length, width, MODEL.rope_base, dtype=dtype, device=torch.device("cpu"))


def turn(vector: Tensor, position: int) -> Tensor:
    """One head's vector at one position, pair by pair."""
    half = len(vector) // 2
    out = vector.clone()
    for i in range(half):
        angle = position * MODEL.rope_base ** (-2 * i / len(vector))
        c, s = math.cos(angle), math.sin(angle)
        out[i] = vector[i] * c - vector[i + half] * s
        out[i + half] = vector[i + half] * c + vector[i] * s
    return out


def attend(queries: list[Tensor], keys: list[Tensor], values: list[Tensor]) -> list[Tensor]:
    """One head over one sequence: position by position, past and present only."""
    outputs = []
    for position, query in enumerate(queries):
        scores = torch.stack([query @ key / math.sqrt(len(query)) for key in keys[: position + 1]])
        outputs.append(sum(p * v for p, v in zip(scores.softmax(0), values[: position + 1], strict=True)))
    return outputs


def naive_gqa(layer: GroupedQueryAttention, x_SD: Tensor) -> Tensor:
    d, heads, kv_heads = 4, MODEL.heads, MODEL.kv_heads
    weight_q, weight_k, weight_v = layer.qkv.weight.split([heads * d, kv_heads * d, kv_heads * d])
    outputs = []
    for head in range(heads):
        shared = head // (heads // kv_heads)
        q = [turn(weight_q[head * d : (head + 1) * d] @ x, s) for s, x in enumerate(x_SD)]
        k = [turn(weight_k[shared * d : (shared + 1) * d] @ x, s) for s, x in enumerate(x_SD)]
        v = [weight_v[shared * d : (shared + 1) * d] @ x for x in x_SD]
        outputs.append(torch.stack(attend(q, k, v)))
    return torch.cat(outputs, dim=-1) @ layer.output.weight.T


def naive_mla(layer: LatentAttention, x_SD: Tensor) -> Tensor:
    mla, heads = LATENT.mla, LATENT.heads
    compressed = x_SD @ layer.kv_compress.weight.T
    latent, k_rope = compressed[:, : mla.kv_rank], compressed[:, mla.kv_rank :]
    latent = latent / (latent.pow(2).mean(-1, keepdim=True) + LATENT.norm_eps).sqrt() * layer.kv_norm.weight
    weights_q = layer.query.weight.view(heads, -1, LATENT.d_model)
    weights_kv = layer.kv_expand.weight.view(heads, -1, mla.kv_rank)
    outputs = []
    for weight_q, weight_kv in zip(weights_q, weights_kv, strict=True):
        queries, keys, values = [], [], []
        for position, x in enumerate(x_SD):
            q = weight_q @ x
            queries.append(torch.cat((q[: mla.nope_dim], turn(q[mla.nope_dim :], position))))
            kv = weight_kv @ latent[position]
            keys.append(torch.cat((kv[: mla.nope_dim], turn(k_rope[position], position))))
            values.append(kv[mla.nope_dim :])
        outputs.append(torch.stack(attend(queries, keys, values)))
    return torch.cat(outputs, dim=-1) @ layer.output.weight.T


@pytest.mark.parametrize(("kind", "naive"), [("gqa", naive_gqa), ("mla", naive_mla)])
def test_attention_equals_the_plain_implementation(kind, naive):
    torch.manual_seed(0)
    layer = (LatentAttention(LATENT) if kind == "mla" else GroupedQueryAttention(MODEL)).double()
    if kind == "mla":
        torch.nn.init.uniform_(layer.kv_norm.weight, 0.5, 1.5)
    x = torch.randn(2, 9, MODEL.d_model, dtype=torch.float64, requires_grad=True)
    twin = x.detach().clone().requires_grad_()

    y = layer(x, table(layer.rotary_width, 9))
    expected = torch.stack([naive(layer, sequence) for sequence in twin])

    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-12)
    probe = torch.randn_like(y)
    ours = torch.autograd.grad((y * probe).sum(), [x, *layer.parameters()])
    plain = torch.autograd.grad((expected * probe).sum(), [twin, *layer.parameters()])
    for mine, reference in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kv_heads", [1, 6])
def test_multi_query_and_multi_head_are_the_ends_of_grouped_query(kv_heads):
    """With the key-value heads repeated by hand, multi-head attention gives the same."""
    torch.manual_seed(0)
    grouped = GroupedQueryAttention(replace(MODEL, kv_heads=kv_heads)).double()
    full = GroupedQueryAttention(replace(MODEL, kv_heads=6)).double()
    q, k, v = grouped.qkv.weight.detach().unflatten(0, (-1, 4)).split([6, kv_heads, kv_heads])
    repeats = 6 // kv_heads
    with torch.no_grad():
        repeated = torch.cat((q, k.repeat_interleave(repeats, 0), v.repeat_interleave(repeats, 0)))
        full.qkv.weight.copy_(repeated.flatten(0, 1))
        full.output.weight.copy_(grouped.output.weight)
    x = torch.randn(1, 5, MODEL.d_model, dtype=torch.float64)
    torch.testing.assert_close(grouped(x, table(4, 5)), full(x, table(4, 5)))


@pytest.mark.parametrize("model", [MODEL, LATENT])
def test_autocast_stays_close_to_float32(model):
    torch.manual_seed(0)
    layer = LatentAttention(model) if model.attention == "mla" else GroupedQueryAttention(model)
    x = torch.randn(2, 16, MODEL.d_model)
    angles = table(layer.rotary_width, 16, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x, angles)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x, angles), rtol=0.05, atol=0.02)


def test_the_inner_norm_is_computed_in_float32_under_autocast():
    layer = LatentAttention(LATENT)
    seen = []
    layer.kv_norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.randn(1, 4, MODEL.d_model), table(4, 4, torch.float32))
    assert seen == [torch.float32]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 7, "kv_heads": 7}, r"model\.heads=7 does not divide model\.d_model=24"),
        ({"kv_heads": 4}, r"model\.kv_heads=4 does not divide model\.heads=6"),
        ({"heads": 24, "kv_heads": 24}, "= 1, is odd"),
    ],
)
def test_dimensions_that_do_not_divide_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        GroupedQueryAttention(replace(MODEL, **change))
