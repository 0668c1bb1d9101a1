"""Log-likelihood of continuations, in batches of sequences of similar lengths.

Shapes: B sequences of a batch, S positions, G width groups, K experts per token, T = B * S.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from evaluation.group_choices import group_choices
from mohge.model.cache import KeyValueCache
from mohge.model.head_loss import IGNORED
from mohge.model.transformer import ModelOutput, TransformerLM

_WORTH = 0.2
"""Share of positions that sharing contexts must save to be worth a second forward pass."""


@dataclass(frozen=True)
class Pair:
    """What is to be scored: a continuation after a context."""

    context: tuple[int, ...]
    """Token ids, at least one."""
    continuation: tuple[int, ...]
    """Token ids, at least one."""

    @property
    def positions(self) -> int:
        """Tokens that the model reads: all but the last."""
        return len(self.context) + len(self.continuation) - 1


@dataclass(frozen=True)
class Usage:
    """What answering took."""

    tokens: int
    """Positions that the model computed, without padding."""
    seconds: float
    """Of the model's time."""
    choices_G: tuple[int, ...]
    """Choices of experts of each width group, over all layers and those positions; empty without experts."""

    def __add__(self, other: Usage) -> Usage:
        """Both together."""
        longer, shorter = sorted((self.choices_G, other.choices_G), key=len, reverse=True)
        choices = [a + b for a, b in zip(longer, shorter or [0] * len(longer), strict=True)]
        return Usage(self.tokens + other.tokens, self.seconds + other.seconds, tuple(choices))


NOTHING = Usage(0, 0.0, ())


@dataclass(frozen=True)
class Score:
    """Of one pair."""

    log_likelihood: float
    """Natural logarithm of the continuation's probability."""
    greedy: bool
    """Whether each of its tokens has the largest logit."""
    usage: Usage


def fit(pair: Pair, context: int) -> list[Pair]:
    """The pair as the model can read it, with the context cut on the left; usually one pair, or none.

    A continuation that is longer than the context is scored in windows, each after the last token of the one
    before it, as lm-eval does with whole texts.

    Args:
        pair: of any length.
        context: tokens that the model reads at most.
    """
    whole, length = pair.context + pair.continuation, len(pair.continuation)
    if length == 0:
        return []
    if length <= context:
        kept = whole[-(context + 1) :]
        return [Pair(kept[: len(kept) - length], kept[len(kept) - length :])]
    start, windows = len(pair.context), []
    while start < len(whole):
        end = min(start + context, len(whole))
        windows.append(Pair(whole[start - 1 : start], whole[start:end]))
        start = end
    return windows


def batches_of(pairs: Sequence[Pair], batch_size: int) -> list[list[int]]:
    """Indices of the pairs in batches of similar lengths, the longest first.

    Memory runs out in the first batch or never, and estimates of the time that is left are not too small.
    Pairs of one context come into one batch, where they fit.
    """
    by_context: dict[tuple[int, ...], list[int]] = {}
    for index, pair in enumerate(pairs):
        by_context.setdefault(pair.context, []).append(index)
    longest = {context: max(pairs[i].positions for i in some) for context, some in by_context.items()}
    batches: list[list[int]] = []
    room = 0
    for context in sorted(by_context, key=lambda context: (-longest[context], context)):
        some = by_context[context]
        for start in range(0, len(some), batch_size):
            part = some[start : start + batch_size]
            if len(part) > room:
                batches.append([])
                room = batch_size
            batches[-1] += part
            room -= len(part)
    return batches


@torch.inference_mode()
def score_batch(model: TransformerLM, pairs: Sequence[Pair], *, lockstep: bool = False) -> list[Score]:
    """Score pairs together.

    A context that several pairs share is computed once, where that saves enough. What it takes is then told
    of the first of them.

    Args:
        model: in evaluation mode.
        pairs: no longer than the model's context.
        lockstep: make exactly one forward pass, for ranks that must all make as many.
    """
    started = time.perf_counter()
    owners: dict[tuple[int, ...], int] = {}
    for row, pair in enumerate(pairs):
        owners.setdefault(pair.context, row)
    first = [owners[pair.context] == row for row, pair in enumerate(pairs)]
    saved = sum(len(pair.context) - 1 for pair, own in zip(pairs, first, strict=True) if not own)
    if not lockstep and saved > _WORTH * sum(pair.positions for pair in pairs):
        found, tokens = _score_shared(model, pairs, owners, first)
    else:
        found, tokens = _score_whole(model, pairs)
    share = (time.perf_counter() - started) / sum(tokens)
    return [
        Score(sums, greedy, Usage(count, share * count, choices))
        for (sums, greedy, choices), count in zip(found, tokens, strict=True)
    ]


_Found = list[tuple[float, bool, tuple[int, ...]]]


def _score_whole(model: TransformerLM, pairs: Sequence[Pair]) -> tuple[_Found, list[int]]:
    """Log-likelihood, greedy or not, and choices of groups of each pair; positions computed for each.

    Sequences are filled up on the right, which causal attention never looks at.
    """
    wholes = [(*pair.context, *pair.continuation) for pair in pairs]
    lengths = [pair.positions for pair in pairs]
    targets = [[IGNORED] * (len(pair.context) - 1) + list(pair.continuation) for pair in pairs]
    output = _forward(model, [whole[:-1] for whole in wholes], targets)
    choices = _choices(output, lengths)
    return [(*score, row) for score, row in zip(_scores(output, targets), choices, strict=True)], lengths


def _score_shared(
    model: TransformerLM,
    pairs: Sequence[Pair],
    owners: dict[tuple[int, ...], int],
    first: Sequence[bool],
) -> tuple[_Found, list[int]]:
    """The same, with each context but its last token computed once and kept for all its continuations.

    Args:
        model: in evaluation mode.
        pairs: to score.
        owners: the first row of each context, in order of rows.
        first: whether a pair is the first of its context.
    """
    before = [list(context[:-1]) for context in owners]
    cache = KeyValueCache(len(before))
    lengths = [len(some) for some in before]
    computed = _forward(model, before, [[IGNORED] * length for length in lengths], cache, lengths)
    choices_of_context = _choices(computed, lengths)
    place = {context: number for number, context in enumerate(owners)}
    cache.keep([place[pair.context] for pair in pairs])

    new = [[pair.context[-1], *pair.continuation[:-1]] for pair in pairs]
    targets = [list(pair.continuation) for pair in pairs]
    counts = [len(some) for some in new]
    output = _forward(model, new, targets, cache, counts)
    choices = _choices(output, counts)
    found: _Found = []
    tokens = []
    for row, (score, own) in enumerate(zip(_scores(output, targets), choices, strict=True)):
        shared = place[pairs[row].context]
        if first[row]:
            own = tuple(a + b for a, b in zip(own, choices_of_context[shared], strict=True))
        tokens.append(counts[row] + lengths[shared] * first[row])
        found.append((*score, own))
    return found, tokens


def _forward(
    model: TransformerLM,
    inputs: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    cache: KeyValueCache | None = None,
    lengths: Sequence[int] | None = None,
) -> ModelOutput:
    """Rows of different lengths, filled up on the right, in one forward pass."""
    device = model.embedding.weight.device
    longest = max(len(row) for row in inputs)
    inputs_BS = torch.tensor([[*row, *[0] * (longest - len(row))] for row in inputs])
    targets_BS = torch.tensor([[*row, *[IGNORED] * (longest - len(row))] for row in targets])
    output: ModelOutput = model(
        inputs_BS.to(device), targets_BS.to(device), reduction="score", cache=cache, lengths=lengths
    )
    return output


def _scores(output: ModelOutput, targets: Sequence[Sequence[int]]) -> list[tuple[float, bool]]:
    """Log-likelihood of each row, and whether all its targets are the likeliest."""
    assert output.loss is not None, "targets were given"
    assert output.top_BS is not None, "it was asked for"
    sums = (-output.loss.double().sum(dim=1)).tolist()
    right = output.top_BS.sum(dim=1).tolist()
    scored = [sum(target != IGNORED for target in row) for row in targets]
    return [(sums[row], right[row] == scored[row]) for row in range(len(sums))]


def _choices(output: ModelOutput, lengths: Sequence[int]) -> list[tuple[int, ...]]:
    """Choices of width groups by each row."""
    return [tuple(row) for row in group_choices(output.decisions, lengths, max(lengths)).tolist()]
