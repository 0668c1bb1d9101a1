"""Our own class of transformers: cache, padding, losses, and loading where this package is not installed."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hf_folders import greedy, tiny_model, tiny_tokenizer, tokens, write_hf
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

from mohge.errors import UserError
from mohge.interchange import load_transformers, register
from mohge.interchange.configuration_mohge import MohgeConfig
from mohge.interchange.modeling_mohge import MohgeForCausalLM

ATTENTIONS = ["mohge", "latent"]
PAD = 0


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    register()


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """By the name of a tiny model: ours, and the same in transformers."""

    def both(name: str) -> tuple[Any, Any]:
        config, ours = tiny_model(name)
        folder = write_hf(tmp_path / name, config, ours)
        return ours, AutoModelForCausalLM.from_pretrained(folder).eval()

    return both


def generate(model: Any, ids: Tensor, **settings: object) -> Tensor:
    mask = (ids != PAD).long()
    out = model.generate(
        ids, attention_mask=mask, max_new_tokens=10, do_sample=False, eos_token_id=None, **settings
    )
    new: Tensor = out[:, ids.shape[1] :]
    return new


@pytest.mark.parametrize("name", ATTENTIONS)
@torch.no_grad()
def test_logits_with_a_cache_are_those_without(load, name):
    _, model = load(name)
    ids, cache = tokens(), DynamicCache(config=model.config)
    whole = model(ids).logits
    parts = [
        model(part, past_key_values=cache, use_cache=True).logits
        for part in ids.split([5, 1, 1, 7, 3], dim=1)
    ]
    assert cache.get_seq_length() == 17
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=2e-5)
    assert torch.equal(generate(model, ids, use_cache=True), generate(model, ids, use_cache=False))


@torch.no_grad()
def test_the_latent_cache_holds_what_was_compressed(load):
    _, model = load("latent")
    cache = model(tokens(), use_cache=True).past_key_values
    layer = cache.layers[0]
    assert (layer.keys.shape, layer.values.shape) == ((3, 1, 17, 8), (3, 1, 17, 4))


def padded(texts: list[Tensor], side: str) -> Tensor:
    longest = max(map(len, texts))
    pad = [torch.full((longest - len(text),), PAD) for text in texts]
    return torch.stack(
        [torch.cat((p, t) if side == "left" else (t, p)) for p, t in zip(pad, texts, strict=True)]
    )


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ATTENTIONS)
@torch.no_grad()
def test_padding_changes_nothing(load, name, side):
    ours, model = load(name)
    texts = [tokens()[0], tokens()[1, :4], tokens()[2, :9]]
    ids = padded(texts, side)
    logits = model(ids, attention_mask=(ids != PAD).long()).logits
    assert torch.isfinite(logits).all()
    for row, text in enumerate(texts):
        alone = ours(text[None]).logits_BSV[0]
        torch.testing.assert_close(logits[row, ids[row] != PAD], alone, rtol=0, atol=2e-5)
    if side == "left":
        alone = torch.cat([greedy(ours, text[None], 10) for text in texts])
        assert torch.equal(generate(model, ids), alone)


def test_the_loss_is_the_cross_entropy_of_the_next_token_and_has_gradients(load):
    ours, model = load("mohge")
    ids = tokens()
    loss = model(ids, labels=ids).loss
    expected = F.cross_entropy(ours(ids).logits_BSV[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert abs(float(loss - expected)) < 1e-5
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@torch.no_grad()
def test_some_logits_alone_and_tuples(load):
    _, model = load("mohge")
    whole = model(tokens()).logits
    torch.testing.assert_close(model(tokens(), logits_to_keep=2).logits, whole[:, -2:])
    torch.testing.assert_close(model(tokens(), logits_to_keep=torch.tensor([3])).logits, whole[:, [3]])
    torch.testing.assert_close(model(tokens(), return_dict=False)[0], whole)
    embedded = model.get_input_embeddings()(tokens())
    torch.testing.assert_close(model(inputs_embeds=embedded).logits, whole)
    with pytest.raises(ValueError, match="attention_mask has 4 axes"):
        model(tokens(), attention_mask=torch.ones(3, 1, 17, 17))


@torch.no_grad()
def test_the_bias_of_the_choice_is_at_work(load):
    """Or the tests that compare logits would not see it."""
    ours, model = load("moe loss-free")
    logits = model(tokens()).logits
    for block in ours.blocks:
        block.ffn.router.expert_bias.zero_()
    assert (logits - ours(tokens()).logits_BSV).abs().max() > 0.01


def test_a_folder_that_was_written_before_the_choice_had_keys_is_read(tmp_path):
    config, ours = tiny_model("mohge")
    folder = write_hf(tmp_path / "model", config, ours)
    keys = json.loads((folder / "config.json").read_text())
    assert (keys.pop("expert_selection"), keys.pop("selection_bias_rate")) == ("joint", 0.0)
    (folder / "config.json").write_text(json.dumps(keys))
    assert load_transformers(folder)[0].router == config.router
    assert AutoModelForCausalLM.from_pretrained(folder).config.expert_selection == "joint"


def test_a_router_of_a_users_own_has_no_class(tmp_path):
    config, ours = tiny_model("moe")
    own = dataclasses.replace(config, router=dataclasses.replace(config.router, target="mine.Router"))
    with pytest.raises(UserError, match=r"router\._target_=mine\.Router .* export with format=mohge"):
        write_hf(tmp_path / "model", own, ours)


@pytest.mark.parametrize("name", ["mohge", "mohge untied", "latent dense", "moe loss-free"])
@torch.no_grad()
def test_what_transformers_saves_of_it_comes_back(load, tmp_path, name):
    ours, model = load(name)
    model.save_pretrained(tmp_path / "saved")
    _, back = load_transformers(tmp_path / "saved")
    assert torch.equal(back(tokens()).logits_BSV, ours(tokens()).logits_BSV)


def test_a_new_model_has_weights_of_the_range_asked_for():
    torch.manual_seed(1)
    model = MohgeForCausalLM(MohgeConfig(vocab_size=300, num_hidden_layers=1, initializer_range=0.05))
    for name, parameter in model.named_parameters():
        wanted = 0.0 if parameter.dim() == 1 else 0.05
        assert abs(float(parameter.std()) - wanted) < 0.01, name


ELSEWHERE = """
import json, sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mohge", "evaluation", "callbacks", "datamodules", "lightning"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Nowhere())
import torch

ids = torch.tensor(json.loads(sys.argv[1]))
CARD
model.eval()
mask = torch.ones_like(ids)
new = model.generate(ids, attention_mask=mask, max_new_tokens=10, do_sample=False, eos_token_id=None)
with torch.no_grad():
    logits = model(ids).logits
print(json.dumps({"new": new[:, ids.shape[1]:].tolist(), "logits": logits[0, -1].tolist(),
                  "ids": tokenizer("some words").input_ids, "module": type(model).__module__}))
"""


@pytest.mark.slow
def test_it_loads_without_this_package_as_its_card_says(tmp_path):
    config, ours = tiny_model("mohge")
    folder = write_hf(tmp_path / "model", config, ours)
    lines = (folder / "README.md").read_text().splitlines()
    card = "\n".join(line.strip() for line in lines if line.startswith("    "))
    prompt = tokens(shape=(2, 6))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            ELSEWHERE.replace("CARD", card.replace("FOLDER", str(folder))),
            json.dumps(prompt.tolist()),
        ],
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,  # transformers asks there where the flag is missing
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["module"].startswith("transformers_modules.")
    assert found["new"] == greedy(ours, prompt, 10).tolist()
    logits = ours(prompt).logits_BSV[0, -1]
    torch.testing.assert_close(torch.tensor(found["logits"]), logits, rtol=0, atol=2e-5)
    assert found["ids"] == tiny_tokenizer().encode("some words").ids
