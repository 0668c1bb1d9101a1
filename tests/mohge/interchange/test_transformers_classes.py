"""Models of transformers compute the same in ours, and ours in transformers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_folders import MODELS, greedy, tiny_model, tiny_tokenizer, tokens, write_hf
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GraniteMoeSharedConfig,
    GraniteMoeSharedForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from mohge.config.schema import TrainConfig
from mohge.interchange import (
    begin_token_id,
    end_token_id,
    is_transformers_folder,
    load_transformers,
    register,
)
from mohge.interchange.layouts import model_type_of

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.4,
    "rms_norm_eps": 1e-3,
    "pad_token_id": 5,
    "eos_token_id": [7, 8],
}
MOE: dict[str, Any] = {"num_local_experts": 5, "num_experts_per_tok": 2}
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
GRANITE = {**MOE, "attention_multiplier": 0.5}  # 1 / sqrt(16 / 4)
THEIRS = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "llama tied, other base": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True, **ROPE}),
    "llama multi-head": (LlamaConfig, LlamaForCausalLM, {"num_key_value_heads": 4}),
    "mixtral": (MixtralConfig, MixtralForCausalLM, MOE),
    "mixtral tied, wide window": (
        MixtralConfig,
        MixtralForCausalLM,
        {**MOE, "tie_word_embeddings": True, "sliding_window": 64, **ROPE},
    ),
    "granite": (GraniteMoeSharedConfig, GraniteMoeSharedForCausalLM, GRANITE),
    "granite shared": (
        GraniteMoeSharedConfig,
        GraniteMoeSharedForCausalLM,
        {**GRANITE, "shared_intermediate_size": 8, "tie_word_embeddings": True},
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    register()


def made(name: str, **more: object) -> Any:
    config, model, settings = THEIRS[name]
    torch.manual_seed(5)
    theirs = model(config(**{**SIZES, **settings, **more})).eval()
    with torch.no_grad():  # norms start as ones, and padding's embedding as zero
        for parameter in theirs.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
        theirs.get_input_embeddings().weight[5].normal_()
    return theirs


@torch.no_grad()
def difference(ours: Any, theirs: Any, ids: torch.Tensor) -> float:
    """Largest difference of logits, as a share of the largest logit."""
    mine, other = ours(ids).logits_BSV, theirs(ids).logits
    assert other.abs().max() > 1, "or agreement would mean nothing"
    return float((mine - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("name", THEIRS)
def test_a_model_of_transformers_gives_its_logits_in_ours(tmp_path, name):
    theirs = made(name)
    theirs.save_pretrained(tmp_path / "tiny")
    assert is_transformers_folder(tmp_path / "tiny")
    assert end_token_id(tmp_path / "tiny") == 7
    config, ours = load_transformers(tmp_path / "tiny")
    assert difference(ours, theirs, tokens(60, (3, 40))) < 5e-6
    assert config.arch_name == theirs.config.model_type
    assert (config.model.name, config.model.context, config.data.vocab_size) == ("tiny", 64, 60)
    assert model_type_of(config) == {"granite": "mixtral"}.get(name, theirs.config.model_type)


def test_shards_half_precision_and_keys_of_old_versions_are_read(tmp_path):
    half = made("mixtral tied, wide window").to(torch.bfloat16)
    half.save_pretrained(tmp_path, max_shard_size="5KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    config = json.loads((tmp_path / "config.json").read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    (tmp_path / "config.json").write_text(json.dumps({**config, "rope_scaling": None}))
    _, ours = load_transformers(tmp_path)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert difference(ours, theirs, tokens(60)) < 5e-6


@pytest.mark.parametrize("stored", ["equal", "other"])
def test_a_tied_head_may_be_stored_if_it_is_the_embedding(tmp_path, stored):
    theirs = made("llama tied, other base")
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    head = weights["model.embed_tokens.weight"].clone()
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}
    save_file(
        {**weights, **old, "lm_head.weight": head + (stored == "other")}, tmp_path / "model.safetensors"
    )
    if stored == "equal":
        assert difference(load_transformers(tmp_path)[1], theirs, tokens(60)) < 5e-6
    else:
        with pytest.raises(ValueError, match=r"tie_word_embeddings=true in config\.json, and lm_head"):
            load_transformers(tmp_path)


@pytest.mark.parametrize("name", THEIRS)
def test_there_and_back_every_tensor_is_the_same(tmp_path, name):
    theirs = made(name)
    theirs.save_pretrained(tmp_path / "theirs")
    config, ours = load_transformers(tmp_path / "theirs")
    write_hf(tmp_path / "again", config, ours)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again").eval()
    ids = tokens(60)
    assert torch.allclose(again(ids).logits, theirs(ids).logits, rtol=0, atol=1e-4)
    if name != "granite":  # without shared experts it comes back as Mixtral
        assert type(again) is type(theirs)
        files = [load_file(tmp_path / folder / "model.safetensors") for folder in ("theirs", "again")]
        assert files[0].keys() == files[1].keys()
        assert all(torch.equal(files[0][key], files[1][key]) for key in files[0])


@pytest.mark.parametrize("name", MODELS)
def test_our_model_gives_its_logits_and_greedy_texts_in_transformers(tmp_path, name):
    config, ours = tiny_model(name)
    folder = write_hf(tmp_path / "model", config, ours)
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert theirs.config.model_type == MODELS[name][1]
    assert next(theirs.parameters()).dtype == torch.float32
    assert difference(ours, theirs, tokens(shape=(3, 32))) < 5e-6
    prompt = tokens(shape=(2, 9))
    generated = theirs.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False, eos_token_id=None
    )
    assert torch.equal(generated[:, 9:], greedy(ours, prompt, 12))


@pytest.mark.parametrize("name", MODELS)
def test_our_model_comes_back_bit_for_bit(tmp_path, name):
    config, ours = tiny_model(name)
    found, back = load_transformers(write_hf(tmp_path / "model", config, ours))
    weights, returned = ours.state_dict(), back.state_dict()
    assert weights.keys() == returned.keys()
    assert all(torch.equal(weights[key], returned[key]) for key in weights)
    assert end_token_id(tmp_path / "model") == 0
    assert found.model == dataclasses.replace(config.model, name="model", mla=found.model.mla)
    assert (found.router, found.experts.widths) == (config.router, config.experts.widths)
    if config.model.attention == "mla":
        assert found.model.mla == config.model.mla


def test_the_tokenizer_gives_our_ids(tmp_path):
    folder = write_hf(tmp_path / "model", *tiny_model("moe"))
    theirs, ours = AutoTokenizer.from_pretrained(folder), tiny_tokenizer()
    ours.encode_special_tokens = True  # as in training
    text = "Naïve words,\n\t x = 1234;  物理 🙂 <|endoftext|>\r\n\n  some "
    ids = ours.encode(text, add_special_tokens=False).ids
    assert theirs(text).input_ids == ids
    assert theirs.decode(ids) == text
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (0, 0, 0)
    assert theirs.model_max_length == 32


BEGIN = {"content": "<|begin|>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
BEGINNINGS: dict[str, tuple[dict[str, Any], dict[str, Any] | None, str | None]] = {
    "its name": ({"bos_token": "<|begin|>"}, None, "<|begin|>"),
    "its properties": ({"bos_token": {**BEGIN, "__type": "AddedToken"}}, None, "<|begin|>"),
    "null": ({"bos_token": None}, None, None),
    "nothing": ({}, None, None),
    "old file": ({}, {"bos_token": BEGIN}, "<|begin|>"),
    "old file prevails": ({"bos_token": "<|endoftext|>"}, {"bos_token": "<|begin|>"}, "<|begin|>"),
    "old file of something else": ({"bos_token": "<|begin|>"}, {"eos_token": "<|endoftext|>"}, "<|begin|>"),
    "old file is passed over": (
        {"bos_token": "<|endoftext|>", "added_tokens_decoder": {}},
        {"bos_token": "<|begin|>"},
        "<|endoftext|>",
    ),
}
"""tokenizer_config.json, special_tokens_map.json, and the token."""


@pytest.mark.parametrize("case", BEGINNINGS)
def test_the_token_that_begins_a_text_is_that_of_transformers(tmp_path, case):
    config, old, token = BEGINNINGS[case]
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens(["<|begin|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    if old is not None:
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(old))
    expected = None if token is None else tokenizer.token_to_id(token)
    assert begin_token_id(tmp_path) == expected
    assert AutoTokenizer.from_pretrained(tmp_path).bos_token_id == expected


def test_shared_experts_come_back_divided_as_the_run_had_them(tmp_path):
    config, ours = tiny_model("dense untied")
    folder = write_hf(tmp_path / "model", config, ours)
    alone, _ = load_transformers(folder)
    assert (alone.experts.shared, alone.experts.shared_width) == (1, 40)
    plain = TypeAdapter(TrainConfig).dump_python(config, mode="json", by_alias=True)
    (folder / "export.json").write_text(json.dumps({"config": plain}))
    found, back = load_transformers(folder)
    assert (found.experts.shared, found.experts.shared_width) == (2, 20)
    assert torch.equal(back(tokens()).logits_BSV, ours(tokens()).logits_BSV)


def test_the_card_says_what_the_model_is(tmp_path):
    stock = write_hf(tmp_path / "stock", *tiny_model("dense")) / "README.md"
    own = write_hf(tmp_path / "own", *tiny_model("mohge")) / "README.md"
    assert "| class | `LlamaForCausalLM` |" in stock.read_text()
    assert "trust_remote_code" not in stock.read_text()
    text = own.read_text()
    assert "3 groups of 2 SwiGLU experts of widths 8, 16, 24; a token uses 2 in 2 of the groups" in text
    assert text.count("from_pretrained('FOLDER', trust_remote_code=True)") == 2, "the tokenizer's too"
    parameters = sum(parameter.numel() for parameter in tiny_model("mohge")[1].parameters())
    assert f"| parameters | {parameters:,}; " in text


def exported_files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_only_our_own_class_comes_with_code(tmp_path):
    common = {"config.json", "generation_config.json", "model.safetensors", "README.md"}
    common |= {"tokenizer.json", "tokenizer_config.json"}
    assert exported_files(write_hf(tmp_path / "stock", *tiny_model("moe"))) == common
    own = exported_files(write_hf(tmp_path / "own", *tiny_model("mohge")))
    assert own == common | {"modeling_mohge.py", "configuration_mohge.py"}
