"""What mohge-generate does once its input has been looked at.

Shapes: L layers, K experts per token, G width groups.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch

from evaluation.generation.decoding import stream
from evaluation.generation.rows import Generated, Piece
from evaluation.generation.sampling import Sampling
from evaluation.generation.screen import Screen
from evaluation.generation.widths import main_group, token_texts
from evaluation.language_model import LanguageModel, load_language_model
from mohge.config.generate_schema import GenerateConfig
from mohge.errors import UserError


def write(config: GenerateConfig, prompt: str) -> None:
    """Continue a prompt, and print text as it comes, or one JSON object.

    Args:
        config: of the command.
        prompt: the text to continue; an empty one starts a document.

    Raises:
        UserError: there is no such checkpoint or device, the prompt leaves no room in the context, or groups
            are asked of a dense model.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: there is no GPU that torch can use here: use device=cpu")
    on_gpu = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    try:
        settings = Sampling(
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
            stop=config.stop,
            seed=config.seed,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    named = load_language_model(config.checkpoint, "cuda" if on_gpu else "cpu")
    if config.groups and not named.config.experts.widths:
        raise UserError(
            f"groups=true has nothing to show, as checkpoint={config.checkpoint} is of a dense model: leave "
            "it out"
        )
    (tokens,) = named.prompts([prompt])
    if len(tokens) >= (context := named.config.model.context):
        raise UserError(
            f"the prompt of {len(tokens)} tokens leaves no room in the context of {context} tokens: give a "
            "shorter one"
        )
    begun = time.perf_counter()
    prompts = [tokens] * config.samples
    pieces = stream(
        named.model,
        named.tokenizer,
        prompts,
        settings,
        end_token_id=named.end_token_id,
        experts=config.groups,
    )
    if config.format == "json":
        samples = _finished(pieces)
        seconds = time.perf_counter() - begun
        print(json.dumps(_result(named, prompt, settings, samples, seconds), indent=2))
        return
    screen = Screen(config.samples, named.config.experts.widths if config.groups else ())
    samples = screen.show(prompt, pieces, named.config.experts.per_group)
    seconds = time.perf_counter() - begun
    total = sum(len(sample.tokens) for sample in samples)
    reasons = ", ".join(sample.reason for sample in samples)
    print(
        f"{total} tokens after a prompt of {len(tokens)} in {seconds:.2f} s, {total / seconds:.1f} tokens/s; "
        f"ended by: {reasons}",
        file=sys.stderr,
    )


def _finished(pieces: Iterator[Piece]) -> list[Generated]:
    """The samples in their order."""
    whole = {piece.row: piece.whole for piece in pieces if piece.whole is not None}
    return [whole[row] for row in sorted(whole)]


def _result(
    named: LanguageModel, prompt: str, settings: Sampling, samples: list[Generated], seconds: float
) -> dict[str, Any]:
    total = sum(len(sample.tokens) for sample in samples)
    return {
        "command": "mohge-generate",
        "checkpoint": str(named.source),
        "step": named.step,
        "prompt": prompt,
        "prompt_tokens": samples[0].prompt_tokens,
        "settings": asdict(settings),
        "seconds": seconds,
        "tokens_per_second": total / seconds,
        "widths": list(named.config.experts.widths),
        "samples": [_sample(named, sample) for sample in samples],
    }


def _sample(named: LanguageModel, sample: Generated) -> dict[str, Any]:
    plain = {"text": sample.text, "tokens": list(sample.tokens), "reason": sample.reason}
    if sample.experts is None:
        return plain
    widths, per_group = named.config.experts.widths, named.config.experts.per_group
    texts = token_texts(named.tokenizer, sample.tokens)
    routed = [
        {
            "text": text,
            "width": widths[main_group(experts_LK, per_group, len(widths))],
            "widths": [[widths[expert // per_group] for expert in layer] for layer in experts_LK.tolist()],
        }
        for text, experts_LK in zip(texts, sample.experts, strict=True)
    ]
    return {**plain, "groups": routed}
