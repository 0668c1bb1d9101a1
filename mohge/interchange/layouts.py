"""Which class of transformers computes a model, and which of its tensors make which of ours.

Matrices are made of the rows of others, in order: those of `qkv` of `q_proj`, `k_proj` and `v_proj`. So one
table serves both directions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from torch import Tensor

from mohge.config.schema import TrainConfig
from mohge.errors import UserError
from mohge.model.transformer import TransformerLM

OWN = "mohge"
"""Type of the class that comes with this package, and computes every model."""
CLASSES = {
    "llama": "LlamaForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "granitemoeshared": "GraniteMoeSharedForCausalLM",
    OWN: "MohgeForCausalLM",
}
"""Class by model_type."""
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
"""Names of those two in the classes of transformers."""

Shape = tuple[int, ...]
Layout = dict[str, dict[str, Shape]]
"""For each of our tensors, those whose rows make it, in order, with their shapes."""


def model_type_of(config: TrainConfig) -> str:
    """The model_type of transformers that computes exactly what this model does.

    Raises:
        UserError: none does, as the router is of a class that is not ours.
    """
    experts, router = config.experts, config.router
    if router.target is not None:
        raise UserError(
            f"router._target_={router.target} is a class that transformers does not have: export with "
            "format=mohge"
        )
    if config.model.attention != "gqa":
        return OWN
    if router.kind == "none":
        return "llama"
    plain = router.expert_weighting == "renormalize" and router.selection == "joint" and not router.bias_rate
    if router.kind == "top_k" and experts.num_groups == 1 and plain:
        # Granite's softmax over the chosen logits is the softmax over all, renormalised.
        return "granitemoeshared" if experts.shared else "mixtral"
    return OWN


def layout(model_type: str, config: TrainConfig, model: TransformerLM) -> Layout:
    """The tensors of a file of transformers, by ours.

    Args:
        model_type: one of `CLASSES`.
        config: sizes.
        model: of that configuration; it may be on the meta device.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if model_type == OWN:
        return {name: {name: shape} for name, shape in shapes.items()}
    whole = {"embedding.weight": EMBEDDING, "final_norm.weight": "model.norm.weight", "head.weight": HEAD}
    table = {ours: {theirs: shapes[ours]} for ours, theirs in whole.items() if ours in shapes}
    for number in range(config.model.layers):
        for ours, parts in _block(model_type, config).items():
            table[f"blocks.{number}.{ours}"] = {
                f"model.layers.{number}.{theirs}": shape for theirs, shape in parts.items()
            }
    assert table.keys() == shapes.keys()
    return table


def split(table: Layout, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of transformers, as views of ours."""
    for ours, parts in table.items():
        rows = weights[ours].reshape(-1, weights[ours].shape[-1])
        pieces = rows.split([prod(shape[:-1]) for shape in parts.values()])
        for (theirs, shape), piece in zip(parts.items(), pieces, strict=True):
            yield theirs, piece.view(shape)


def _block(model_type: str, config: TrainConfig) -> Layout:
    """Of one block."""
    model = config.model
    width, head_dim = model.d_model, model.d_model // model.heads
    kv_rows = model.kv_heads * head_dim
    attention: Layout = {
        "attention_norm.weight": {"input_layernorm.weight": (width,)},
        "attention.qkv.weight": {
            "self_attn.q_proj.weight": (width, width),
            "self_attn.k_proj.weight": (kv_rows, width),
            "self_attn.v_proj.weight": (kv_rows, width),
        },
        "attention.output.weight": {"self_attn.o_proj.weight": (width, width)},
        "ffn_norm.weight": {"post_attention_layernorm.weight": (width,)},
    }
    return attention | _FEED_FORWARD[model_type](config)


def _llama(config: TrainConfig) -> Layout:
    width, hidden = config.model.d_model, config.experts.shared * config.experts.shared_width
    return {
        "ffn.gate_up.weight": {
            "mlp.gate_proj.weight": (hidden, width),
            "mlp.up_proj.weight": (hidden, width),
        },
        "ffn.down.weight": {"mlp.down_proj.weight": (width, hidden)},
    }


def _mixtral(config: TrainConfig) -> Layout:
    width, (hidden,), count = config.model.d_model, config.experts.widths, config.experts.per_group
    prefix = "block_sparse_moe.experts"
    gate_up: dict[str, Shape] = {
        f"{prefix}.{expert}.{name}.weight": (hidden, width)
        for expert in range(count)
        for name in ("w1", "w3")
    }
    down: dict[str, Shape] = {f"{prefix}.{expert}.w2.weight": (width, hidden) for expert in range(count)}
    return {
        "ffn.router.expert_weight": {"block_sparse_moe.gate.weight": (count, width)},
        "ffn.experts.groups.0.gate_up": gate_up,
        "ffn.experts.groups.0.down": down,
    }


def _granite(config: TrainConfig) -> Layout:
    width, (hidden,), count = config.model.d_model, config.experts.widths, config.experts.per_group
    shared = config.experts.shared * config.experts.shared_width
    table: Layout = {
        "ffn.router.expert_weight": {"block_sparse_moe.router.layer.weight": (count, width)},
        "ffn.experts.groups.0.gate_up": {"block_sparse_moe.input_linear.weight": (count, 2 * hidden, width)},
        "ffn.experts.groups.0.down": {"block_sparse_moe.output_linear.weight": (count, width, hidden)},
    }
    if shared:
        table["ffn.shared.gate_up.weight"] = {"shared_mlp.input_linear.weight": (2 * shared, width)}
        table["ffn.shared.down.weight"] = {"shared_mlp.output_linear.weight": (width, shared)}
    return table


_FEED_FORWARD = {"llama": _llama, "mixtral": _mixtral, "granitemoeshared": _granite}
