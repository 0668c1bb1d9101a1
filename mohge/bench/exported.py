"""A model of ours and the same model in transformers, with the same weights."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mohge.bench.peers import IMPLEMENTATIONS, transformers_installed
from mohge.config.schema import TrainConfig
from mohge.interchange.describing import describe
from mohge.interchange.layouts import CLASSES, OWN, model_type_of
from mohge.interchange.writing import converted
from mohge.model.initialization import initialize
from mohge.model.transformer import TransformerLM, build_model

END = 0
"""Token id that ends documents in models that were never trained."""


def untrained(config: TrainConfig, context: int, device: torch.device) -> tuple[TrainConfig, TransformerLM]:
    """The configuration with a context of at least `context`, and its model, for inference.

    Positions have no parameters, so that the context changes nothing else.
    """
    model = dataclasses.replace(config.model, context=max(context, config.model.context))
    config = dataclasses.replace(config, model=model)
    ours = build_model(config)
    initialize(ours, config.seed)
    return config, ours.to(device).eval()


def peers(config: TrainConfig, ours: TransformerLM) -> dict[str, Any]:
    """The model as transformers computes it, by name; none where transformers is not installed.

    A mixture of experts comes once for each way that transformers has to compute experts, and a model that
    no class of transformers computes comes in the class that mohge-export format=hf writes.

    Args:
        config: of the model.
        ours: the model.
    """
    if not transformers_installed():
        return {}
    from transformers import AutoModelForCausalLM, logging

    from mohge.interchange import register

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    register()
    kind = model_type_of(config)
    ways = ("",) if kind in ("llama", OWN) else IMPLEMENTATIONS
    found = {}
    with tempfile.TemporaryDirectory(prefix="mohge-bench-") as folder:
        weights = {name: tensor.cpu() for name, tensor in ours.state_dict().items()}
        parts = {name: part.contiguous() for name, part in converted(config, ours, weights).items()}
        save_file(parts, Path(folder) / "model.safetensors", {"format": "pt"})
        description = describe(kind, config, END)
        (Path(folder) / "config.json").write_text(json.dumps(description), encoding="utf-8")
        for way in ways:
            more = {"experts_implementation": way} if way else {}
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **more)
            name = "_".join(
                part for part in ("transformers", CLASSES[kind].removesuffix("ForCausalLM"), way) if part
            )
            found[name] = model.to(ours.embedding.weight.device).eval()
    return found
