"""Our configuration of a model that a config.json of transformers describes, if ours computes the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mohge.config.schema import TrainConfig
from mohge.errors import UserError
from mohge.interchange.folder import CONFIG
from mohge.interchange.layouts import CLASSES, OWN

Parts = dict[str, dict[str, Any]]
"""Keys of the groups model, experts and router."""

_EPS = {"llama": 1e-6, "mixtral": 1e-5, "granitemoeshared": 1e-6, OWN: 1e-6}
_THETA = {"llama": 10_000.0, "mixtral": 1_000_000.0, "granitemoeshared": 10_000.0, OWN: 10_000.0}
"""What transformers takes where config.json leaves the key out."""


def configuration(plain: dict[str, Any], base: TrainConfig, folder: Path) -> TrainConfig:
    """The configuration of the model, and `base` for all that config.json does not say.

    Args:
        plain: content of config.json.
        base: gives training, data and names.
        folder: for messages.

    Raises:
        UserError: it describes a model that ours does not compute exactly, or none.
    """
    model_type = plain.get("model_type")
    if model_type not in CLASSES:
        raise UserError(
            f"{folder} has model_type={model_type} in {CONFIG}: this version reads {', '.join(CLASSES)}"
        )
    keys = _Keys(plain, folder)
    if plain.get("quantization_config") is not None:
        raise keys.refusal("quantization_config", "set", "weights that are not quantized")
    parts = _READERS[model_type](keys)
    try:
        groups = {name: dataclasses.replace(getattr(base, name), **part) for name, part in parts.items()}
        return dataclasses.replace(base, **groups)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{folder} has a {CONFIG} that makes no model ({key}={first['input']!r}: {first['msg']})"
        ) from error


@dataclass(frozen=True)
class _Keys:
    """The keys of config.json, with the sentences for those that are missing or cannot be computed."""

    plain: dict[str, Any]
    folder: Path

    def need(self, key: str) -> Any:
        if self.plain.get(key) is None:
            raise UserError(f"{self.folder} has no {key} in {CONFIG}: save the model again with transformers")
        return self.plain[key]

    def number(self, key: str) -> int:
        value = self.need(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise UserError(f"{self.folder} has {key}={value!r} in {CONFIG}, which is not a whole number")
        return value

    def only(self, key: str, *allowed: object) -> None:
        """Refuses another value; transformers' own default, for a missing key, must be among them."""
        value = self.plain.get(key)
        if value is not None and value not in allowed:
            raise self.refusal(key, value, " or ".join(map(str, allowed)))

    def refusal(self, key: str, value: object, right: str) -> UserError:
        return UserError(
            f"{self.folder} has {key}={value} in {CONFIG}, which this model does not compute: it has {right}"
        )


def _common(keys: _Keys) -> dict[str, Any]:
    plain = keys.plain
    heads = keys.number("num_attention_heads")
    return {
        "vocab_size": keys.number("vocab_size"),
        "context": keys.number("max_position_embeddings"),
        "d_model": keys.number("hidden_size"),
        "layers": keys.number("num_hidden_layers"),
        "heads": heads,
        "norm_eps": plain.get("rms_norm_eps", _EPS[plain["model_type"]]),
        "tied_head": plain.get("tie_word_embeddings", False),
        "init_std": plain.get("initializer_range", 0.02),
    }


def _stock(keys: _Keys) -> dict[str, Any]:
    """Of the group model, for the classes of transformers."""
    model = _common(keys)
    kv_heads = keys.plain.get("num_key_value_heads")
    model["kv_heads"] = keys.number("num_key_value_heads") if kv_heads is not None else model["heads"]
    model["attention"] = "gqa"
    model["rope_base"] = _rope_base(keys)
    keys.only("hidden_act", "silu")
    keys.only("attention_bias", False)
    keys.only("mlp_bias", False)
    if model["heads"]:
        keys.only("head_dim", model["d_model"] // model["heads"])
    return model


def _rope_base(keys: _Keys) -> float:
    """The base of plain rotary positions; transformers before version 5 wrote other keys."""
    plain = keys.plain
    rope = plain.get("rope_parameters") or plain.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        name = "rope_parameters" if plain.get("rope_parameters") else "rope_scaling"
        raise keys.refusal(f"{name}.rope_type", kind, "default")
    for settings, prefix in ((rope, "rope_parameters."), (plain, "")):
        factor = settings.get("partial_rotary_factor", 1.0)
        if factor != 1.0:
            raise keys.refusal(f"{prefix}partial_rotary_factor", factor, "1.0")
    base: float = rope.get("rope_theta", plain.get("rope_theta", _THETA[plain["model_type"]]))
    return base


def _llama(keys: _Keys) -> Parts:
    hidden = keys.number("intermediate_size")
    return {
        "model": _stock(keys),
        "experts": {"widths": (), "groups": None, "per_group": 0, "shared": 1, "shared_width": hidden},
        "router": _router("none", 0),
    }


def _mixtral(keys: _Keys) -> Parts:
    model = _stock(keys)
    window = keys.plain.get("sliding_window")
    if window is not None and window < model["context"]:
        raise keys.refusal("sliding_window", window, f"null, or max_position_embeddings={model['context']}")
    return {"model": model, **_flat_experts(keys, shared=0)}


def _granite(keys: _Keys) -> Parts:
    model = _stock(keys)
    for key in ("embedding_multiplier", "residual_multiplier", "logits_scaling"):
        keys.only(key, 1)
    scale, right = keys.plain.get("attention_multiplier", 1.0), (model["d_model"] / model["heads"]) ** -0.5
    if not isclose(scale, right, rel_tol=1e-6):
        raise keys.refusal("attention_multiplier", scale, f"1/sqrt(width per head), here {right}")
    return {"model": model, **_flat_experts(keys, shared=keys.plain.get("shared_intermediate_size") or 0)}


def _flat_experts(keys: _Keys, shared: int) -> Parts:
    return {
        "experts": {
            "widths": (keys.number("intermediate_size"),),
            "groups": None,
            "per_group": keys.number("num_local_experts"),
            "shared": 1 if shared else 0,
            "shared_width": shared,
        },
        "router": _router("top_k", keys.number("num_experts_per_tok")),
    }


def _router(kind: str, expert_top_k: int) -> dict[str, Any]:
    return {
        "kind": kind,
        "group_top_k": None,
        "expert_top_k": expert_top_k,
        "group_score": "softmax",
        "expert_weighting": "renormalize",
    }


def _own(keys: _Keys) -> Parts:
    mla = {
        "kv_rank": keys.number("kv_lora_rank"),
        "nope_dim": keys.number("qk_nope_head_dim"),
        "rope_dim": keys.number("qk_rope_head_dim"),
        "value_dim": keys.number("v_head_dim"),
    }
    model = _common(keys) | {
        "kv_heads": keys.number("num_key_value_heads"),
        "attention": keys.need("attention"),
        "rope_base": keys.need("rope_theta"),
        "tied_head": keys.need("tie_word_embeddings"),
        "mla": mla,
    }
    return {
        "model": model,
        "experts": {
            "widths": tuple(keys.need("expert_widths")),
            "groups": None,
            "per_group": keys.number("experts_per_group"),
            "shared": keys.number("num_shared_experts"),
            "shared_width": keys.number("shared_expert_width"),
        },
        "router": {
            "kind": keys.need("router"),
            "group_top_k": keys.plain.get("num_groups_per_tok"),
            "expert_top_k": keys.number("num_experts_per_tok"),
            "group_score": keys.need("group_score"),
            "expert_weighting": keys.need("expert_weighting"),
        },
    }


_READERS: dict[str, Callable[[_Keys], Parts]] = {
    "llama": _llama,
    "mixtral": _mixtral,
    "granitemoeshared": _granite,
    OWN: _own,
}
