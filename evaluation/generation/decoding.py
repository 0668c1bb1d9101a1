"""Continuing a batch of prompts, each as if it were alone.

Shapes: B rows, S new positions of each row, V vocabulary, R rows that were told of, G width groups, L layers,
K experts per token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from evaluation.generation.rows import Generated, Piece, Row
from evaluation.generation.sampling import Draws, Sampling, next_tokens
from evaluation.group_choices import group_choices
from mohge.model.cache import KeyValueCache
from mohge.model.transformer import TransformerLM
from mohge.moe.decision import RoutingDecision

Observe = Callable[[Sequence[int], Tensor, Sequence[int]], None]
"""Called after each forward pass with the places of its prompts, the routed choices per width group of each
(R, G; int64 on the CPU, summed over layers; G is 0 for a dense model), and how many positions of each were
computed. Padding is not counted: choices of a row sum to positions * L * K."""
Agree = Callable[[bool], bool]
"""Told whether this rank has work, says whether any has: asked before each forward pass, and at the end."""


def generate(
    model: TransformerLM,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    settings: Sampling,
    *,
    end_token_id: int,
    indices: Sequence[int] | None = None,
    experts: bool = False,
    observe: Observe | None = None,
    agree: Agree | None = None,
) -> list[Generated]:
    """Continue prompts, in one batch; rows that have ended leave it.

    Args:
        model: In evaluation mode.
        tokenizer: Of the prompts' tokens, to find stop strings by.
        prompts: Token ids, of any lengths up to the context; an empty one starts at the end token.
        settings: How to choose tokens, and when to end.
        end_token_id: Of the token that ends a document, and the text.
        indices: What a row's draws depend on beside the seed; its place by default. With the numbers of the
            prompts in a longer list, samples do not depend on how the list is split into batches.
        experts: Keep the experts of each generated token, which costs one forward pass more.
        observe: Told what each forward pass has computed.
        agree: Where experts are spread over ranks, which all have to make the same number of forward passes:
            a rank without work then computes one token that nobody wants. A rank may have no prompts.

    Returns:
        In the order of the prompts.

    Raises:
        ValueError: A prompt is longer than the context.
    """
    rows = _rows(model, tokenizer, prompts, settings, end_token_id, indices, experts)
    for _ in _steps(model, rows, settings, end_token_id, observe, agree):
        pass
    return [row.generated() for row in rows]


def stream(
    model: TransformerLM,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    settings: Sampling,
    *,
    end_token_id: int,
    experts: bool = False,
) -> Iterator[Piece]:
    """As `generate`, and yields pieces of text as soon as no later token can take them back.

    The texts of a row's pieces make up its text. Pieces of different rows come in turns.
    """
    rows = _rows(model, tokenizer, prompts, settings, end_token_id, None, experts)
    told = [row for row in rows if not row.working]  # a prompt that fills the context
    for row in told:
        yield from row.pieces()
    for computed in _steps(model, rows, settings, end_token_id, None, None):
        for row in computed:
            yield from row.pieces()


def _rows(
    model: TransformerLM,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    settings: Sampling,
    end_token_id: int,
    indices: Sequence[int] | None,
    experts: bool,
) -> list[Row]:
    context = model.config.context
    rows = []
    for place, prompt in enumerate(prompts):
        if len(prompt) > context:
            raise ValueError(f"a prompt of {len(prompt)} tokens exceeds the context, model.context={context}")
        draws = Draws(settings.seed, place if indices is None else indices[place])
        tokens = prompt or [end_token_id]
        rows.append(Row(place, tokens, draws, tokenizer, settings, context, experts))
    return rows


def _steps(
    model: TransformerLM,
    rows: Sequence[Row],
    settings: Sampling,
    end_token_id: int,
    observe: Observe | None,
    agree: Agree | None,
) -> Iterator[list[Row]]:
    """Make forward passes to the end; after each, the rows that took part."""
    batch = [row for row in rows if row.working]
    room = max((len(row.unread) for row in batch), default=0) + settings.max_new_tokens
    cache = KeyValueCache(len(batch), min(room, model.config.context))
    while agree(bool(batch)) if agree is not None else batch:
        if not batch:
            _compute_for_others(model, end_token_id)
            continue
        computed = batch
        batch = _step(model, batch, cache, settings, end_token_id, observe)
        yield computed


# Not around the whole of `_steps`: the mode would then hold between its yields, in the caller's own code.
@torch.inference_mode()
def _step(
    model: TransformerLM,
    batch: list[Row],
    cache: KeyValueCache,
    settings: Sampling,
    end_token_id: int,
    observe: Observe | None,
) -> list[Row]:
    """One forward pass and the tokens that come next; the rows that go on."""
    lengths = [len(row.unread) for row in batch]
    longest = max(lengths)
    tokens = [row.unread + [0] * (longest - len(row.unread)) for row in batch]
    tokens_BS = torch.tensor(tokens, device=model.embedding.weight.device)
    output = model(tokens_BS, cache=cache, lengths=lengths, last=True)
    if observe is not None:
        observe([row.place for row in batch], group_choices(output.decisions, lengths, longest), lengths)
    experts_BLK = _last_experts(output.decisions, lengths, longest) if batch[0].with_experts else None
    for number, row in enumerate(batch):
        row.read(None if experts_BLK is None else experts_BLK[number])
    going = [number for number, row in enumerate(batch) if row.reason is None]
    if going:
        logits_BV = output.logits_BSV[:, 0]
        if len(going) < len(batch):
            logits_BV = logits_BV[torch.tensor(going, device=logits_BV.device)]
        chosen = next_tokens(logits_BV, settings, [batch[number].draws for number in going])
        for number, token in zip(going, chosen, strict=True):
            batch[number].add(token, end_token_id)
    left = [number for number, row in enumerate(batch) if row.working]
    if len(left) < len(batch):
        cache.keep(left)
    return [batch[number] for number in left]


@torch.inference_mode()
def _compute_for_others(model: TransformerLM, token: int) -> None:
    """Take part in the exchanges of a forward pass."""
    model(torch.tensor([[token]], device=model.embedding.weight.device), last=True)


def _last_experts(decisions: Sequence[RoutingDecision], lengths: Sequence[int], longest: int) -> Tensor:
    """Experts of each row's last position (B, L, K), on the CPU."""
    rows = len(lengths)
    if not decisions:
        return torch.zeros(rows, 0, 0, dtype=torch.int64)
    at_B = torch.tensor([row * longest + length - 1 for row, length in enumerate(lengths)])
    at_B = at_B.to(decisions[0].expert_ids_TK.device)
    return torch.stack([each.expert_ids_TK[at_B] for each in decisions], dim=1).cpu()
