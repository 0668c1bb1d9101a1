"""A model of ours and the same model in transformers, with the same weights."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mohge.bench.peers import IMPLEMENTATIONS, transformers_installed
from mohge.bench.rows import Row
from mohge.bench.timing import Variant, interleave
from mohge.config.bench_schema import TimedConfig
from mohge.config.schema import TrainConfig
from mohge.interchange.describing import describe
from mohge.interchange.layouts import CLASSES, OWN, model_type_of
from mohge.interchange.writing import converted
from mohge.model.initialization import initialize
from mohge.model.transformer import TransformerLM, build_model

OURS = "mohge"
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


def against_the_best(
    ways: Mapping[str, Callable[[], object]],
    tokens: int,
    bench: str,
    shape: str,
    config: TrainConfig,
    timed: TimedConfig,
    device: torch.device,
    parameters: int | None = None,
) -> list[Row]:
    """A row for each way to do the same, in tokens per second against the fastest that is not ours.

    Args:
        ways: by name; ours is `OURS`.
        tokens: that each way is through with.
        bench: name of the benchmark.
        shape: of the work, beside model and arch.
        config: of the model.
        timed: rounds.
        device: that is waited for.
        parameters: of the model.
    """
    timings = interleave(
        {name: Variant(way) for name, way in ways.items()},
        rounds=timed.rounds,
        warmup=timed.warmup,
        device=device,
    )
    best = min((name for name in ways if name != OURS), key=lambda name: timings[name].median, default=OURS)
    return [
        Row(
            bench=bench,
            shape=f"{config.model.name} {config.arch_name} {shape}",
            dtype="fp32",
            kernel=config.experts.kernel if name == OURS else None,
            peer=name,
            against=best,
            ratio=timings[best].median / timings[name].median,
            unit="tokens per second",
            timing=timings[name],
            threads=torch.get_num_threads(),
            tokens_per_second=tokens / timings[name].median,
            parameters=parameters,
        )
        for name in ways
    ]
