"""What lm-eval's requests mean for our models: texts as token ids, and the settings of a generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from evaluation.generation import Sampling
from evaluation.language_model import LanguageModel


def encode(model: LanguageModel, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text, after what the model wants before every text."""
    return [[*model.begin, *ids] for ids in model.encode(texts)]


def encode_pairs(model: LanguageModel, texts: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
    """Ids of contexts and continuations, by the rules of lm-eval's `TemplateLM`.

    Spaces at the end of a context belong to the continuation, and the continuation's ids are those by which
    the whole text is longer than the context.
    """
    moved = []
    for context, continuation in texts:
        kept = context.rstrip()
        moved.append((kept, context[len(kept) :] + continuation))
    wholes = encode(model, [context + continuation for context, continuation in moved])
    contexts = encode(model, [context for context, _ in moved])
    pairs = []
    for (context, continuation), whole, before in zip(moved, wholes, contexts, strict=True):
        if context == "":
            before, after = [model.prefix_token_id], whole[len(model.begin) :]
            if len(after) > 1 and after[0] == model.prefix_token_id:
                after = after[1:]
        elif len(whole) > len(before):
            after = whole[len(before) :]
        else:  # the two grow together into fewer tokens
            (after,) = model.encode([continuation])
        pairs.append((before, after))
    return pairs


def sampling(arguments: Mapping[str, Any], max_length: int, new_tokens: int) -> Sampling:
    """The settings of a generation.

    Args:
        arguments: `generation_kwargs` of a task.
        max_length: tokens of context.
        new_tokens: most new tokens, where the task does not say how many.
    """
    known = normalize_gen_kwargs(dict(arguments), new_tokens)
    asked = int(known["max_gen_toks"])
    greedy = not known.get("do_sample") or not known.get("temperature")
    return Sampling(
        max_new_tokens=asked if asked < max_length else max_length // 2,
        temperature=0.0 if greedy else float(known["temperature"]),
        top_k=None if greedy else known.get("top_k") or None,  # 0 is transformers' word for none
        top_p=None if greedy else known.get("top_p"),
        stop=tuple(stop for stop in handle_stop_sequences(known.get("until"), eos=None) if stop),
        seed=0,
    )
