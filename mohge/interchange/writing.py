"""The files of a folder of transformers, for a model of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from mohge.budget import budget
from mohge.config.schema import TrainConfig
from mohge.end_token import END_TOKENS, end_token
from mohge.errors import UserError
from mohge.interchange.describing import CODE, describe
from mohge.interchange.folder import CONFIG, GENERATION, TOKENIZER, TOKENIZER_CONFIG
from mohge.interchange.layouts import CLASSES, OWN, layout, model_type_of, split
from mohge.model.transformer import TransformerLM

CARD = "README.md"


def write_description(folder: Path, config: TrainConfig, tokenizer: bytes, step: int, source: str) -> None:
    """Write all files of the folder but the weights.

    Args:
        folder: that exists.
        config: of the model.
        tokenizer: content of its tokenizer.json.
        step: of training.
        source: of the model, for messages.

    Raises:
        UserError: the tokenizer has no token that ends a document.
    """
    end = end_token(found := Tokenizer.from_buffer(tokenizer))
    end_id = None if end is None else found.token_to_id(end)
    if end is None or end_id is None:
        raise UserError(
            f"{source} cannot be exported with format=hf: its tokenizer has none of the end tokens "
            f"{', '.join(END_TOKENS)}; use format=mohge"
        )
    model_type = model_type_of(config)
    _write_json(folder / CONFIG, describe(model_type, config, end_id))
    # What is not here comes from config.json; the end token also starts documents, as in training.
    generation = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end_id)
    _write_json(folder / GENERATION, generation)
    (folder / TOKENIZER).write_bytes(tokenizer)
    _write_json(folder / TOKENIZER_CONFIG, _tokenizer_config(end, config.model.context))
    (folder / CARD).write_text(_card(config, model_type, step), encoding="utf-8")
    if model_type == OWN:
        for name in CODE:
            (folder / name).write_bytes(Path(__file__).with_name(name).read_bytes())


def converted(config: TrainConfig, model: TransformerLM, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names that transformers gives them, as views.

    Args:
        config: of the model.
        model: of that configuration; it may be on the meta device.
        weights: under our names.
    """
    return dict(split(layout(model_type_of(config), config, model), weights))


def loading_line(config: TrainConfig, folder: str) -> str:
    """Python that loads the model."""
    return f"AutoModelForCausalLM.from_pretrained({folder!r}{_trust(model_type_of(config))})"


def _trust(model_type: str) -> str:
    """Also for the tokenizer: transformers reads the configuration's class to find the tokenizer's."""
    return ", trust_remote_code=True" if model_type == OWN else ""


def _tokenizer_config(end: str, context: int) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "pad_token": end,
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,  # text that spells the end token is ordinary text, as in training
    }


def _card(config: TrainConfig, model_type: str, step: int) -> str:
    model, experts, router, cost = config.model, config.experts, config.router, budget(config)
    used = f"{round(cost.active_parameters.expected):,}"
    tags = ", ".join(dict.fromkeys((config.arch_name, model_type)))
    training = f"{step * config.tokens_per_step:,} tokens in {step:,} steps"
    if router.kind == "none":
        pool = f"one dense SwiGLU of width {experts.shared * experts.shared_width} in each layer"
    else:
        groups = f" in {router.group_top_k} of the groups" if router.kind == "two_level" else ""
        pool = (
            f"{experts.num_groups} groups of {experts.per_group} SwiGLU experts of widths "
            f"{', '.join(map(str, experts.widths))}; a token uses {router.expert_top_k}{groups}, and "
            f"{experts.shared} shared of width {experts.shared_width}"
        )
    note = (
        "Its class is not part of transformers: it comes with this folder, so that `trust_remote_code=True` "
        "is needed, for the tokenizer too. Read `modeling_mohge.py` before you trust it.\n"
        if model_type == OWN
        else "Its class is part of transformers.\n"
    )
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [{tags}]
---

# {config.arch_name}-{model.name}

A language model trained with the MoHGE experiment platform, exported for transformers.

| | |
|---|---|
| class | `{CLASSES[model_type]}` |
| parameters | {cost.parameters.total:,}; a token uses {used} if experts are picked equally often |
| layers | {model.layers} of width {model.d_model}, {model.heads} heads, attention {model.attention} |
| feed-forward | {pool} |
| context | {model.context} tokens |
| vocabulary | {model.vocab_size}, byte-level |
| trained on | {config.data.name}, {training}, seed {config.seed} |

    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = {loading_line(config, "FOLDER")}
    tokenizer = AutoTokenizer.from_pretrained('FOLDER'{_trust(model_type)})

{note}
Each document began after the end token, which is also the one for the beginning and for padding: put it
before a text that starts a document. `export.json` holds the whole configuration of the training run. The
model was trained on text alone, not to follow instructions.
"""


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
