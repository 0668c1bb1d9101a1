"""A tiny language model in memory, with random weights: what evaluation needs, without a run."""

from __future__ import annotations

from pathlib import Path

from composing import composed
from omegaconf import OmegaConf
from pydantic import TypeAdapter
from tiny_runs import TINY_EXPERTS, TINY_MODEL, TINY_ROUTER
from tokenizers import Tokenizer

from datamodules.tokenizer import train_tokenizer
from evaluation.language_model import LanguageModel
from mohge.config.schema import TrainConfig
from mohge.model.initialization import initialize
from mohge.model.transformer import build_model

TEXT = "the quick brown fox jumps over the lazy dog while seven small cats count 12 grey stones."


def tiny_tokenizer() -> Tokenizer:
    tokenizer = train_tokenizer([TEXT], 300)
    tokenizer.encode_special_tokens = True
    return tokenizer


def tiny_language_model(*overrides: str, arch: str = "mohge", scale: float = 8.0) -> LanguageModel:
    """Weights are drawn larger than for training, so that tokens differ clearly in their logits."""
    routed = (*TINY_EXPERTS, *TINY_ROUTER) if arch == "mohge" else ()
    plain = OmegaConf.to_container(composed(f"arch={arch}", *TINY_MODEL, *routed, *overrides), resolve=True)
    # Without the checks of a configuration that is to be trained: ranks may evaluate it.
    config = TypeAdapter(TrainConfig).validate_python(plain)
    model = build_model(config)
    initialize(model, seed=1)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(scale)
    return LanguageModel(
        config=config,
        model=model.eval(),
        tokenizer=tiny_tokenizer(),
        end_token_id=0,
        source=Path("tiny"),
        step=None,
        tokens=None,
        run=None,
        corpus=None,
    )
