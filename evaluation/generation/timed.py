"""Our generation as mohge-bench calls it.

Shapes: B batch, S sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from tokenizers import Tokenizer, decoders, models
from torch import Tensor

from evaluation.generation.decoding import generate
from evaluation.generation.sampling import Sampling
from mohge.model.transformer import TransformerLM


def greedy(model: TransformerLM, prompts_BS: Tensor, new_tokens: int) -> Callable[[], Tensor]:
    """What continues prompts by the most probable tokens, text included; no token ends it.

    Args:
        model: for inference, of any vocabulary.
        prompts_BS: token ids.
        new_tokens: of each row.

    Returns:
        A function that gives (B, new tokens).
    """
    words = {f"Ġw{number}": number for number in range(model.config.vocab_size)}
    tokenizer = Tokenizer(models.BPE(words, []))
    tokenizer.decoder = decoders.ByteLevel()
    settings, prompts = Sampling(max_new_tokens=new_tokens), prompts_BS.tolist()

    def run() -> Tensor:
        made = generate(model, tokenizer, prompts, settings, end_token_id=-1)
        return torch.tensor([row.tokens for row in made], device=prompts_BS.device)

    return run


def scores(
    model: TransformerLM, pairs: Sequence[tuple[list[int], list[int]]], batch: int
) -> Callable[[], list[float]]:
    """What scores continuations after their contexts, as the lm-eval bridge does.

    Args:
        model: for inference.
        pairs: token ids of contexts and continuations.
        batch: sequences of a forward pass.

    Returns:
        A function that gives the log-likelihoods, in order.
    """
    from evaluation.harness.scoring import Pair, batches_of, score_batch

    asked = [Pair(tuple(context), tuple(continuation)) for context, continuation in pairs]

    def run() -> list[float]:
        found = [0.0] * len(asked)
        for indices in batches_of(asked, batch):
            answers = score_batch(model, [asked[index] for index in indices])
            for index, answer in zip(indices, answers, strict=True):
                found[index] = answer.log_likelihood
        return found

    return run
