"""Tiny models of ours, and folders of transformers for them."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from composing import composed
from safetensors.torch import save_file
from tiny_runs import TINY_EXPERTS, TINY_MODEL, TINY_ROUTER
from tokenizers import Tokenizer
from torch import Tensor

from datamodules.tokenizer import train_tokenizer
from mohge.config.load import typed
from mohge.config.schema import TrainConfig
from mohge.interchange.writing import converted, write_description
from mohge.model.transformer import TransformerLM, build_model

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: nothing here asks the hub

MOHGE = (*TINY_MODEL, *TINY_EXPERTS, *TINY_ROUTER, "model.layers=2")
MOE = ("arch=moe", *TINY_MODEL, "model.layers=2", "experts.widths=[12]", "experts.per_group=6")
TOP_2 = ("router.expert_top_k=2",)
DENSE = ("arch=dense", *TINY_MODEL, "model.layers=2", "experts.shared_width=20")
LATENT = ("model.attention=mla", "model.mla={kv_rank:8,nope_dim:4,rope_dim:4,value_dim:6}")
MODELS = {
    "dense": (DENSE, "llama"),
    "dense untied": ((*DENSE, "model.tied_head=false", "experts.shared=2"), "llama"),
    "moe": ((*MOE, *TOP_2, "experts.shared=0", "experts.shared_width=0"), "mixtral"),
    "moe untied": (
        (*MOE, *TOP_2, "experts.shared=0", "experts.shared_width=0", "model.tied_head=false"),
        "mixtral",
    ),
    "moe shared": ((*MOE, *TOP_2, "experts.shared_width=10"), "granitemoeshared"),
    "moe post-softmax": ((*MOE, *TOP_2, "router.expert_weighting=post_softmax"), "mohge"),
    "moe of two widths": ((*MOE, *TOP_2, "experts.widths=[8,16]", "experts.per_group=3"), "mohge"),
    "mohge": ((*MOHGE, "experts.widths=[8,16,24]", "router.group_top_k=2"), "mohge"),
    "mohge untied": (
        (*MOHGE, "model.tied_head=false", "experts.shared=0", "experts.shared_width=0"),
        "mohge",
    ),
    "mohge released": (("arch=mohge_released", *MOHGE, "router.group_top_k=2"), "mohge"),
    "mohge one sigmoid": (("arch=mohge_released", *MOHGE), "mohge"),
    "moe loss-free": ((*MOE, *TOP_2, "router.bias_rate=1e-3"), "mohge"),
    "moge": (
        (*MOE, *TOP_2, "router.selection=per_group", "experts.widths=[12,12]", "experts.per_group=3"),
        "mohge",
    ),
    "fixed per group": (
        (*MOHGE, "experts.widths=[8,16,24]", "router.group_top_k=2", "router.selection=per_group"),
        "mohge",
    ),
    "latent": ((*MOHGE, *LATENT), "mohge"),
    "latent dense": ((*DENSE, *LATENT), "mohge"),
}
"""Overrides, and the model_type that computes them."""


def tiny_model(name: str) -> tuple[TrainConfig, TransformerLM]:
    """One of `MODELS`, with weights large enough that experts differ and norms matter."""
    config = typed(TrainConfig, composed("logger=none", *MODELS[name][0]))
    model = build_model(config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                parameter.normal_(std=0.25, generator=generator)
        for buffer in model.buffers():  # the bias of the choice, large enough to change it
            buffer.normal_(std=0.3, generator=generator)
    return config, model.eval()


def tiny_tokenizer() -> Tokenizer:
    """Byte-level, of 300 entries; its end token is 0."""
    return train_tokenizer(["some words and some more words, 12 of them, or some such number"] * 3, 300)


def write_hf(folder: Path, config: TrainConfig, model: TransformerLM) -> Path:
    """What mohge-export format=hf writes of a model, but for export.json."""
    folder.mkdir(parents=True)
    write_description(folder, config, tiny_tokenizer().to_str().encode(), 10, "the test")
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    save_file(converted(config, model, weights), folder / "model.safetensors", {"format": "pt"})
    return folder


def tokens(vocabulary: int = 300, shape: tuple[int, int] = (3, 17)) -> Tensor:
    """Made-up token ids, none of which is the end token."""
    return torch.randint(1, vocabulary, shape, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def greedy(model: TransformerLM, prompt_BS: Tensor, new: int) -> Tensor:
    """The new tokens (B, new), each by a pass over all that went before."""
    ids = prompt_BS
    for _ in range(new):
        logits_BSV = model(ids).logits_BSV
        assert logits_BSV is not None
        ids = torch.cat((ids, logits_BSV[:, -1:].argmax(dim=-1)), dim=1)
    return ids[:, prompt_BS.shape[1] :]
