"""Our configuration of a model that a config.json of transformers describes, if ours computes the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from math import isclose
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mohge.config.schema import TrainConfig
from mohge.errors import UserError
from mohge.interchange.folder import CONFIG, read_object
from mohge.interchange.keys import Keys
from mohge.interchange.layouts import CLASSES, OWN

Parts = dict[str, dict[str, Any]]
"""Keys of the groups model, experts and router."""

_EPS = {"llama": 1e-6, "mixtral": 1e-5, "granitemoeshared": 1e-6, OWN: 1e-6}
_THETA = {"llama": 10_000.0, "mixtral": 1_000_000.0, "granitemoeshared": 10_000.0, OWN: 10_000.0}
"""What transformers takes where config.json leaves the key out."""


def opened(folder: Path) -> Keys:
    """The keys of a folder's config.json, which describes a kind of model that ours can be.

    Raises:
        UserError: it is missing or damaged, or describes another kind of model.
    """
    plain = read_object(folder / CONFIG)
    model_type = plain.get("model_type")
    if not isinstance(model_type, str) or model_type not in CLASSES:
        raise UserError(
            f"{folder} has model_type={model_type} in {CONFIG}: this version reads {', '.join(CLASSES)}"
        )
    return Keys(plain, folder)


def configuration(keys: Keys, base: TrainConfig) -> TrainConfig:
    """The configuration of the model, and `base` for all that config.json does not say.

    Args:
        keys: of config.json.
        base: gives training, data and names, and how shared experts that are stored as one are divided.

    Raises:
        UserError: it describes a model that ours does not compute exactly, or none.
    """
    if keys.plain.get("quantization_config") is not None:
        raise keys.refusal("quantization_config", "set", "weights that are not quantized")
    parts = _READERS[keys.plain["model_type"]](keys)
    experts, known = parts["experts"], base.experts
    if experts["shared"] * experts["shared_width"] == known.shared * known.shared_width:
        experts |= {"shared": known.shared, "shared_width": known.shared_width}
    try:
        groups = {name: dataclasses.replace(getattr(base, name), **part) for name, part in parts.items()}
        config = dataclasses.replace(base, **groups)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{keys.folder} has a {CONFIG} that makes no model ({key}={first['input']!r}: {first['msg']})"
        ) from error
    _check_choice(keys, config)
    return config


def _check_choice(keys: Keys, config: TrainConfig) -> None:
    """Refuses a token more groups or experts than there are, none of them, and uneven shares of groups."""
    experts, router = config.experts, config.router
    if router.bias_rate and router.kind != "top_k":
        raise keys.refusal("selection_bias_rate", router.bias_rate, f"0 with router={router.kind}")
    if router.kind == "none" or not experts.num_experts:  # the latter makes no model
        return
    groups = experts.num_groups
    if router.kind == "two_level":
        groups = keys.number("num_groups_per_tok", most=groups)
    chosen = keys.number("num_experts_per_tok", most=groups * experts.per_group)
    if router.selection == "per_group" and chosen % groups:
        raise keys.refusal(
            "num_experts_per_tok", chosen, f"a multiple of {groups} groups, or joint selection"
        )


def _common(keys: Keys) -> dict[str, Any]:
    plain = keys.plain
    return {
        "vocab_size": keys.number("vocab_size"),
        "context": keys.number("max_position_embeddings"),
        "d_model": keys.number("hidden_size"),
        "layers": keys.number("num_hidden_layers"),
        "heads": keys.number("num_attention_heads"),
        "norm_eps": keys.real("rms_norm_eps", _EPS[plain["model_type"]]),
        "tied_head": plain.get("tie_word_embeddings", False),
        "init_std": keys.real("initializer_range", 0.02),
    }


def _stock(keys: Keys) -> dict[str, Any]:
    """Of the group model, for the classes of transformers."""
    model = _common(keys)
    model["kv_heads"] = _kv_heads(keys, model["heads"])
    model["attention"] = "gqa"
    model["rope_base"] = _rope_base(keys)
    keys.only("hidden_act", "silu")
    keys.only("attention_bias", False)
    keys.only("mlp_bias", False)
    if model["heads"]:
        keys.only("head_dim", model["d_model"] // model["heads"])
    return model


def _kv_heads(keys: Keys, heads: int) -> int:
    """As many as there are heads, for null; so is a missing key, but for Mixtral."""
    if keys.plain.get("num_key_value_heads") is not None:
        return keys.number("num_key_value_heads")
    return 8 if keys.plain["model_type"] == "mixtral" and "num_key_value_heads" not in keys.plain else heads


def _rope_base(keys: Keys) -> float:
    """The base of plain rotary positions; transformers before version 5 wrote other keys."""
    plain = keys.plain
    rope = keys.table("rope_parameters" if plain.get("rope_parameters") else "rope_scaling")
    kind = rope.plain.get("rope_type", rope.plain.get("type", "default"))
    if kind != "default":
        raise rope.refusal("rope_type", kind, "default")
    for settings in (rope, keys):
        settings.only("partial_rotary_factor", 1.0)
    return rope.real("rope_theta", keys.real("rope_theta", _THETA[plain["model_type"]]))


def _llama(keys: Keys) -> Parts:
    hidden = keys.number("intermediate_size")
    return {
        "model": _stock(keys),
        "experts": {"widths": (), "groups": None, "per_group": 0, "shared": 1, "shared_width": hidden},
        "router": _router("none", 0),
    }


def _mixtral(keys: Keys) -> Parts:
    model = _stock(keys)
    whole = keys.plain.get("sliding_window") is None
    if not whole and (window := keys.number("sliding_window")) < model["context"]:
        raise keys.refusal("sliding_window", window, f"null, or max_position_embeddings={model['context']}")
    return {"model": model, **_flat_experts(keys, shared=0)}


def _granite(keys: Keys) -> Parts:
    model = _stock(keys)
    for key in ("embedding_multiplier", "residual_multiplier", "logits_scaling"):
        keys.only(key, 1)
    scale, right = keys.real("attention_multiplier", 1.0), (model["d_model"] / model["heads"]) ** -0.5
    if not isclose(scale, right, rel_tol=1e-6):
        raise keys.refusal("attention_multiplier", scale, f"1/sqrt(width per head), here {right}")
    none = keys.plain.get("shared_intermediate_size") is None
    shared = 0 if none else keys.number("shared_intermediate_size", least=0)
    return {"model": model, **_flat_experts(keys, shared=shared)}


def _flat_experts(keys: Keys, shared: int) -> Parts:
    return {
        "experts": {
            "widths": (keys.number("intermediate_size"),),
            "groups": None,
            "per_group": keys.number("num_local_experts"),
            "shared": 1 if shared else 0,
            "shared_width": shared,
        },
        "router": _router("top_k", keys.number("num_experts_per_tok", least=0)),
    }


def _router(kind: str, expert_top_k: int) -> dict[str, Any]:
    return {
        "kind": kind,
        "group_top_k": None,
        "expert_top_k": expert_top_k,
        "group_score": "softmax",
        "expert_weighting": "renormalize",
        "selection": "joint",
        "bias_rate": 0.0,
        "target": None,
    }


def _own(keys: Keys) -> Parts:
    mla = {
        "kv_rank": keys.number("kv_lora_rank"),
        "nope_dim": keys.number("qk_nope_head_dim"),
        "rope_dim": keys.number("qk_rope_head_dim"),
        "value_dim": keys.number("v_head_dim"),
    }
    model = _common(keys) | {
        "kv_heads": keys.number("num_key_value_heads"),
        "attention": keys.need("attention"),
        "rope_base": keys.real("rope_theta"),
        "tied_head": keys.need("tie_word_embeddings"),
        "mla": mla,
    }
    return {
        "model": model,
        "experts": {
            "widths": keys.numbers("expert_widths"),
            "groups": None,
            "per_group": keys.number("experts_per_group", least=0),
            "shared": keys.number("num_shared_experts", least=0),
            "shared_width": keys.number("shared_expert_width", least=0),
        },
        "router": {
            "kind": keys.need("router"),
            "group_top_k": keys.plain.get("num_groups_per_tok"),
            "expert_top_k": keys.number("num_experts_per_tok", least=0),
            "group_score": keys.need("group_score"),
            "expert_weighting": keys.need("expert_weighting"),
            # Folders of earlier versions do not have these two.
            "selection": keys.plain.get("expert_selection", "joint"),
            "bias_rate": keys.real("selection_bias_rate") if keys.plain.get("selection_bias_rate") else 0.0,
            "target": None,
        },
    }


_READERS: dict[str, Callable[[Keys], Parts]] = {
    "llama": _llama,
    "mixtral": _mixtral,
    "granitemoeshared": _granite,
    OWN: _own,
}
