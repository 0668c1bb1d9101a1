"""The config.json of transformers for a model of ours."""

from __future__ import annotations

from typing import Any

from mohge.config.schema import TrainConfig
from mohge.interchange.layouts import CLASSES, OWN

CODE = ("configuration_mohge.py", "modeling_mohge.py")
"""Files of our own class, which a folder of it holds."""


def describe(model_type: str, config: TrainConfig, end: int) -> dict[str, Any]:
    """What config.json says.

    Args:
        model_type: as `model_type_of` names it.
        config: of the model.
        end: id of the token that ends a document.
    """
    model = config.model
    # No pad_token_id: transformers would stop the end token's embedding, which also pads, from learning.
    common = {
        "architectures": [CLASSES[model_type]],
        "model_type": model_type,
        "dtype": "float32",
        "bos_token_id": end,
        "eos_token_id": end,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.context,
        "hidden_size": model.d_model,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "rms_norm_eps": model.norm_eps,
        "tie_word_embeddings": model.tied_head,
        "initializer_range": model.init_std,
    }
    return common | (_own(config) if model_type == OWN else _stock(model_type, config))


def _stock(model_type: str, config: TrainConfig) -> dict[str, Any]:
    model, experts = config.model, config.experts
    head_dim = model.d_model // model.heads
    shared = experts.shared * experts.shared_width
    found: dict[str, Any] = {
        "hidden_act": "silu",
        "intermediate_size": shared if model_type == "llama" else experts.widths[0],
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_base},
    }
    if model_type != "mixtral":
        found["attention_bias"] = False
    if model_type == "llama":
        return found | {"mlp_bias": False, "head_dim": head_dim}
    found |= {"num_local_experts": experts.num_experts, "num_experts_per_tok": config.router.expert_top_k}
    if model_type == "granitemoeshared":
        neutral = dict.fromkeys(("embedding_multiplier", "residual_multiplier", "logits_scaling"), 1.0)
        found |= neutral | {"attention_multiplier": head_dim**-0.5, "shared_intermediate_size": shared}
    return found


def _own(config: TrainConfig) -> dict[str, Any]:
    model, experts, router = config.model, config.experts, config.router
    configuration, modeling = (name.removesuffix(".py") for name in CODE)
    return {
        "auto_map": {
            "AutoConfig": f"{configuration}.MohgeConfig",
            "AutoModelForCausalLM": f"{modeling}.{CLASSES[OWN]}",
        },
        "rope_theta": model.rope_base,
        "attention": model.attention,
        "kv_lora_rank": model.mla.kv_rank,
        "qk_nope_head_dim": model.mla.nope_dim,
        "qk_rope_head_dim": model.mla.rope_dim,
        "v_head_dim": model.mla.value_dim,
        "expert_widths": list(experts.widths),
        "experts_per_group": experts.per_group,
        "num_shared_experts": experts.shared,
        "shared_expert_width": experts.shared_width,
        "router": router.kind,
        "num_groups_per_tok": router.group_top_k,
        "num_experts_per_tok": router.expert_top_k,
        "group_score": router.group_score,
        "expert_weighting": router.expert_weighting,
        "expert_selection": router.selection,
        "selection_bias_rate": router.bias_rate,
    }
