"""A folder of transformers that ours cannot compute exactly, or that is damaged, is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hf_folders import tiny_model, write_hf
from safetensors.torch import load_file, save_file

from mohge.errors import UserError
from mohge.interchange import begin_token_id, end_token_id, is_transformers_folder, load_transformers

OF_TYPE = {"llama": "dense", "mixtral": "moe", "granitemoeshared": "moe shared", "mohge": "mohge"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    parent = tmp_path_factory.mktemp("models")
    return {kind: write_hf(parent / kind, *tiny_model(name)) for kind, name in OF_TYPE.items()}


@pytest.fixture
def copied(folders: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda kind: shutil.copytree(folders[kind], tmp_path / "model")


def change(folder: Path, name: str = "config.json", **keys: object) -> None:
    """None takes the key away."""
    content = {**json.loads((folder / name).read_text()), **keys}
    kept = {key: value for key, value in content.items() if value is not None}
    (folder / name).write_text(json.dumps(kept))


def refusal(action: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    (sentence,) = str(caught.value).splitlines()
    return sentence


YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0}
CONFIGS: list[tuple[str, dict[str, object], str]] = [
    (
        "llama",
        {"model_type": "gpt2"},
        "has model_type=gpt2 in config.json: this version reads llama, mixtral, ",
    ),
    (
        "llama",
        {"hidden_act": "gelu"},
        "has hidden_act=gelu in config.json, which this model does not compute",
    ),
    ("llama", {"attention_bias": True}, "has attention_bias=True"),
    ("llama", {"mlp_bias": True}, "has mlp_bias=True"),
    ("llama", {"head_dim": 8}, "has head_dim=8 in config.json, which this model does not compute: it has 16"),
    ("llama", {"rope_parameters": YARN}, "has rope_parameters.rope_type=yarn"),
    (
        "llama",
        {"rope_parameters": None, "rope_scaling": {"type": "linear"}},
        "has rope_scaling.rope_type=linear",
    ),
    (
        "llama",
        {"rope_parameters": {"partial_rotary_factor": 0.5}},
        "has rope_parameters.partial_rotary_factor=0.5",
    ),
    ("llama", {"partial_rotary_factor": 0.25}, "has partial_rotary_factor=0.25"),
    ("llama", {"quantization_config": {"bits": 4}}, "has quantization_config=set"),
    ("llama", {"hidden_size": None}, "has no hidden_size in config.json"),
    (
        "llama",
        {"hidden_size": "wide"},
        "has hidden_size='wide' in config.json, which is not a whole number of 1 ",
    ),
    ("llama", {"num_hidden_layers": True}, "has num_hidden_layers=True"),
    (
        "llama",
        {"num_hidden_layers": 0},
        "has num_hidden_layers=0 in config.json, which is not a whole number",
    ),
    (
        "llama",
        {"vocab_size": "big"},
        "has vocab_size='big' in config.json, which is not a whole number of 1 or",
    ),
    ("llama", {"vocab_size": None}, "has no vocab_size in config.json"),
    ("llama", {"vocab_size": 0}, "has vocab_size=0"),
    ("llama", {"max_position_embeddings": None}, "has no max_position_embeddings"),
    ("llama", {"max_position_embeddings": 0}, "has max_position_embeddings=0"),
    ("llama", {"rope_parameters": 5}, "has rope_parameters=5 in config.json, which is not an object or null"),
    ("llama", {"rope_parameters": None, "rope_scaling": "linear"}, "has rope_scaling='linear'"),
    (
        "llama",
        {"rope_parameters": {"rope_theta": 0}},
        "has rope_parameters.rope_theta=0 in config.json, which",
    ),
    (
        "llama",
        {"rope_parameters": None, "rope_theta": "x"},
        "has rope_theta='x' in config.json, which is not a",
    ),
    ("llama", {"model_type": ["llama"]}, "has model_type=['llama'] in config.json: this version reads llama"),
    ("llama", {"num_attention_heads": 3, "head_dim": None}, "makes no model: model.heads=3 does not divide"),
    ("llama", {"num_attention_heads": 0}, "has num_attention_heads=0"),
    (
        "llama",
        {"rms_norm_eps": "small"},
        "has rms_norm_eps='small' in config.json, which is not a number above",
    ),
    ("llama", {"rms_norm_eps": float("nan")}, "has rms_norm_eps=nan"),
    ("llama", {"rms_norm_eps": 10**400}, "has rms_norm_eps=1000"),
    ("llama", {"tie_word_embeddings": "maybe"}, "makes no model (tied_head='maybe'"),
    ("llama", {"tie_word_embeddings": False}, "lacks the tensor lm_head.weight"),
    ("llama", {"num_hidden_layers": 1}, "holds the tensor model.layers.1.input_layernorm.weight, for which"),
    (
        "llama",
        {"vocab_size": 299},
        "holds model.embed_tokens.weight of 300 x 32, and its config.json asks for 299 x",
    ),
    ("mixtral", {"sliding_window": 31}, "has sliding_window=31"),
    ("mixtral", {"sliding_window": "x"}, "has sliding_window='x'"),
    ("mixtral", {"num_key_value_heads": None}, "makes no model: model.kv_heads=8 does not divide"),
    (
        "mixtral",
        {"num_experts_per_tok": 7},
        "has num_experts_per_tok=7 in config.json, which is not a whole number of 1 to 6",
    ),
    ("mixtral", {"num_experts_per_tok": 0}, "has num_experts_per_tok=0"),
    ("granitemoeshared", {"num_experts_per_tok": 7}, "has num_experts_per_tok=7"),
    ("granitemoeshared", {"num_attention_heads": 0}, "has num_attention_heads=0"),
    ("granitemoeshared", {"attention_multiplier": "x"}, "has attention_multiplier='x'"),
    ("granitemoeshared", {"shared_intermediate_size": -3}, "has shared_intermediate_size=-3"),
    (
        "mixtral",
        {"num_local_experts": 7},
        "lacks the tensor model.layers.0.block_sparse_moe.experts.6.w1.weight",
    ),
    ("mixtral", {"attention_bias": True}, "has attention_bias=True"),
    ("granitemoeshared", {"embedding_multiplier": 12.0}, "has embedding_multiplier=12.0"),
    ("granitemoeshared", {"residual_multiplier": 0.22}, "has residual_multiplier=0.22"),
    ("granitemoeshared", {"logits_scaling": 8.0}, "has logits_scaling=8.0"),
    ("granitemoeshared", {"attention_multiplier": 1.0}, "has attention_multiplier=1.0"),
    ("granitemoeshared", {"attention_multiplier": None}, "has attention_multiplier=1.0"),
    ("mohge", {"router": "random"}, "makes no model (kind='random'"),
    ("mohge", {"expert_widths": None}, "has no expert_widths"),
    ("mohge", {"expert_widths": [8, 16]}, "holds the tensor blocks.0.ffn.experts.groups.2."),
    (
        "mohge",
        {"expert_widths": 5},
        "has expert_widths=5 in config.json, which is not a list of whole numbers",
    ),
    ("mohge", {"expert_widths": [8, 0, 24]}, "has expert_widths=[8, 0, 24]"),
    ("mohge", {"expert_widths": []}, "makes no model: "),
    ("mohge", {"num_groups_per_tok": None}, "has no num_groups_per_tok"),
    ("mohge", {"num_groups_per_tok": 0}, "has num_groups_per_tok=0"),
    (
        "mohge",
        {"num_groups_per_tok": 4},
        "has num_groups_per_tok=4 in config.json, which is not a whole number",
    ),
    (
        "mohge",
        {"num_experts_per_tok": 5},
        "has num_experts_per_tok=5 in config.json, which is not a whole number",
    ),
    ("mohge", {"num_experts_per_tok": 0}, "has num_experts_per_tok=0"),
    ("mohge", {"router": "top_k", "num_groups_per_tok": None, "num_experts_per_tok": 7}, "per_tok=7"),
    ("mohge", {"expert_selection": "best"}, "makes no model (selection='best'"),
    (
        "mohge",
        {"expert_selection": "per_group", "num_experts_per_tok": 3},
        "has num_experts_per_tok=3 in config.json, which this model does not compute: it has a multiple of 2",
    ),
    ("mohge", {"selection_bias_rate": 0.001}, "has selection_bias_rate=0.001"),
    ("mohge", {"selection_bias_rate": "fast"}, "has selection_bias_rate='fast'"),
]


@pytest.mark.parametrize(("kind", "keys", "reason"), CONFIGS)
def test_what_ours_does_not_compute_is_named(copied, kind, keys, reason):
    folder = copied(kind)
    change(folder, **keys)
    sentence = refusal(lambda: load_transformers(folder))
    assert reason in sentence
    assert str(folder) in sentence


def rename(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm2.weight"] = weights.pop("model.norm.weight").clone()
    save_file(weights, folder / "model.safetensors")


def index(content: object) -> Callable[[Path], None]:
    return lambda folder: (folder / "model.safetensors.index.json").write_text(json.dumps(content)) and None


DAMAGES: dict[str, Callable[[Path], object]] = {
    "lacks the tensor model.norm.weight": rename,
    "model.safetensors cannot be read (": lambda folder: os.truncate(folder / "model.safetensors", 2000),
    "save the model again with transformers, as safetensors": lambda folder: (
        folder / "model.safetensors"
    ).unlink(),
    "config.json cannot be read (No such file": lambda folder: (folder / "config.json").unlink(),
    "config.json cannot be read (Expecting": lambda folder: (folder / "config.json").write_text("{"),
    "config.json holds no JSON object": lambda folder: (folder / "config.json").write_text("[]"),
    "index.json has no weight_map": index({"weight_map": ["a"]}),
    "other.safetensors cannot be read": index({"weight_map": {"model.norm.weight": "other.safetensors"}}),
    "model.safetensors lacks nothing, which": index({"weight_map": {"nothing": "model.safetensors"}}),
    "export.json is damaged or of another version": lambda folder: (folder / "export.json").write_text("{}"),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_damage_is_named(copied, reason):
    folder = copied("llama")
    DAMAGES[reason](folder)
    sentence = refusal(lambda: load_transformers(folder))
    assert reason in sentence
    assert str(folder) in sentence


def test_which_folders_are_of_transformers(copied, tmp_path):
    folder = copied("mohge")
    assert is_transformers_folder(folder)
    assert is_transformers_folder(str(folder))
    assert not is_transformers_folder(tmp_path)
    assert not is_transformers_folder(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"format": "mohge-export-1", "config": {}}')
    assert not is_transformers_folder(tmp_path)


def test_the_end_token_is_that_of_generation_or_of_the_model(copied):
    folder = copied("llama")
    assert end_token_id(folder) == 0
    change(folder, "generation_config.json", eos_token_id=[4, 5])
    assert end_token_id(folder) == 4
    (folder / "generation_config.json").unlink()
    change(folder, eos_token_id=9)
    assert end_token_id(folder) == 9
    change(folder, eos_token_id=None)
    assert "set eos_token_id" in refusal(lambda: end_token_id(folder))


@pytest.mark.parametrize(
    ("name", "value"),
    [("tokenizer_config.json", "<begin>"), ("special_tokens_map.json", {"content": "<begin>"})],
)
def test_a_beginning_that_the_tokenizer_lacks_is_refused(copied, name, value):
    folder = copied("llama")
    (folder / name).write_text(json.dumps({"bos_token": value}))
    sentence = refusal(lambda: begin_token_id(folder))
    assert f"{folder} has bos_token='<begin>' in {name}, which its tokenizer.json lacks" in sentence
    (folder / "tokenizer.json").write_text("{}")
    assert "tokenizer.json cannot be read (" in refusal(lambda: begin_token_id(folder))
