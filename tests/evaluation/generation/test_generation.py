"""Batches of prompts, each continued as if alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from byte_tokenizer import END, byte_tokenizer, ids
from torch import Tensor

from evaluation.generation import Generated, Sampling, generate, stream
from mohge.config.schema import ExpertsConfig, ModelConfig, RouterConfig
from mohge.model.initialization import initialize
from mohge.model.transformer import TransformerLM

TOKENIZER = byte_tokenizer()
MODEL = ModelConfig(
    name="test", vocab_size=257, context=40, d_model=32, layers=2, heads=4, kv_heads=2, init_std=0.3
)
POOL = ExpertsConfig(widths=(16, 32), per_group=3, kernel="loop")
TWO_LEVEL = RouterConfig(kind="two_level", group_top_k=2, expert_top_k=2)
PROMPTS = [ids("a prompt"), ids("b"), [], ids("another, longer prompt")]


@pytest.fixture(scope="module")
def model() -> TransformerLM:
    network = TransformerLM(MODEL, POOL, TWO_LEVEL)
    initialize(network, seed=3)
    return network.double().eval()


def make(
    model: TransformerLM, prompts: Sequence[Sequence[int]], settings: Sampling, **more: Any
) -> list[Generated]:
    return generate(model, TOKENIZER, prompts, settings, end_token_id=END, **more)


@torch.inference_mode()
def slowly(model: TransformerLM, prompt: Sequence[int], most: int) -> list[int]:
    """The most probable tokens, by reading everything again for each."""
    tokens = list(prompt) or [END]
    new: list[int] = []
    while len(new) < most and len(tokens) < MODEL.context:
        new.append(int(model(torch.tensor([tokens])).logits_BSV[0, -1].argmax()))
        tokens.append(new[-1])
        if new[-1] == END:
            return new[:-1]
    return new


def test_greedy_text_is_that_of_the_uncached_model(model: TransformerLM):
    settings = Sampling(max_new_tokens=30)
    found = make(model, PROMPTS, settings)
    for prompt, row in zip(PROMPTS, found, strict=True):
        assert list(row.tokens) == slowly(model, prompt, 30)
        assert row.text == TOKENIZER.decode(list(row.tokens))
        assert row.prompt_tokens == (len(prompt) or 1)
    assert [row.reason for row in found] == ["length", "length", "length", "context"]
    assert len(found[3].tokens) == MODEL.context - len(PROMPTS[3])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_does_not_depend_on_its_batch(model: TransformerLM, temperature: float):
    settings = Sampling(max_new_tokens=12, temperature=temperature, top_p=0.9, seed=1)
    together = make(model, PROMPTS, settings)
    alone = [make(model, [prompt], settings, indices=[place])[0] for place, prompt in enumerate(PROMPTS)]
    assert together == alone
    if temperature:
        assert together != make(model, PROMPTS, replace(settings, seed=2))


def test_reasons_to_end(model: TransformerLM):
    """The second and third token of the greedy text, made the end token and a stop string."""
    first, second, third = slowly(model, PROMPTS[0], 3)
    assert len({first, second, third}) == 3
    ended = generate(model, TOKENIZER, PROMPTS[:1], Sampling(max_new_tokens=9), end_token_id=second)[0]
    assert (ended.reason, ended.tokens) == ("end", (first,))
    stop = TOKENIZER.decode([first, second, third])[-1:]
    stopped = make(model, PROMPTS[:1], Sampling(max_new_tokens=9, stop=(stop,)))[0]
    assert stopped.reason == "stop"
    assert stop not in stopped.text
    full = make(model, [list(range(1, 41))], Sampling(max_new_tokens=9))[0]
    assert (full.reason, full.tokens, full.text) == ("context", (), "")
    with pytest.raises(ValueError, match=r"41 tokens exceeds the context, model\.context=40"):
        make(model, [list(range(1, 42))], Sampling(max_new_tokens=9))


def test_rows_that_have_ended_are_not_computed(model: TransformerLM):
    seen: list[int] = []
    handle = model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[0]))
    lengths = [len(row.tokens) for row in make(model, [ids("x") * 38, ids("y"), ids("z") * 36], SIX)]
    handle.remove()
    assert lengths == [2, 6, 4]
    assert seen == [3, 3, 2, 2, 1, 1]


SIX = Sampling(max_new_tokens=6)


def test_experts_are_those_of_reading_the_whole_text(model: TransformerLM):
    for prompt, row in zip(PROMPTS, make(model, PROMPTS, SIX, experts=True), strict=True):
        start = [*prompt] or [END]
        with torch.inference_mode():
            decisions = model(torch.tensor([[*start, *row.tokens]])).decisions
        expected = torch.stack([decision.expert_ids_TK for decision in decisions], dim=1)[len(start) :]
        assert row.experts is not None
        assert torch.equal(row.experts, expected)
    assert make(model, PROMPTS, SIX)[0].experts is None


def test_observed_choices_are_those_of_real_positions(model: TransformerLM):
    counts, tokens = torch.zeros(4, 2, dtype=torch.int64), [0] * 4

    def observe(rows: Sequence[int], counts_RG: Tensor, tokens_R: Sequence[int]) -> None:
        for place, row in enumerate(rows):
            counts[row] += counts_RG[place]
            tokens[row] += tokens_R[place]

    found = make(model, PROMPTS, SIX, observe=observe)
    for place, (prompt, row) in enumerate(zip(PROMPTS, found, strict=True)):
        read = [*([*prompt] or [END]), *row.tokens[:-1]]  # the last token is never read
        assert tokens[place] == len(read)
        with torch.inference_mode():
            decisions = model(torch.tensor([read])).decisions
        groups = torch.cat([decision.expert_ids_TK.flatten() // 3 for decision in decisions])
        assert counts[place].tolist() == [(groups == 0).sum(), (groups == 1).sum()]


def test_a_dense_model_has_no_choices():
    dense = ExpertsConfig(shared=1, shared_width=16)
    network = TransformerLM(MODEL, dense, RouterConfig(kind="none"))
    initialize(network, seed=3)
    seen = []
    found = make(network.eval(), PROMPTS, SIX, experts=True, observe=lambda *all: seen.append(all))
    assert seen[0][1].shape == (4, 0)
    assert all(row.experts is not None and row.experts.shape == (6, 0, 0) for row in found)


def test_ranks_agree_on_the_number_of_forward_passes(model: TransformerLM):
    """This rank has one row of three tokens, another has work for five passes, and a third none at all."""
    calls: list[bool] = []

    def agree(mine: bool) -> bool:
        calls.append(mine)
        return len(calls) <= 5

    passes: list[int] = []
    handle = model.register_forward_pre_hook(lambda *_: passes.append(1))
    three = Sampling(max_new_tokens=3)
    assert make(model, [ids("y")], three, agree=agree) == make(model, [ids("y")], three)
    assert calls == [True, True, True, False, False, False]
    assert len(passes) == 5 + 3
    calls.clear()
    assert make(model, [], three, agree=agree) == []
    handle.remove()
    assert calls == [False] * 6
    assert len(passes) == 5 + 3 + 5


@pytest.mark.parametrize("experts", [False, True])
def test_pieces_make_up_the_text(model: TransformerLM, experts: bool):
    settings = Sampling(max_new_tokens=20, temperature=1.0, stop=("a", "bc"), seed=5)
    whole = make(model, PROMPTS, settings)
    texts, ends = [""] * 4, [0] * 4
    for piece in stream(model, TOKENIZER, PROMPTS, settings, end_token_id=END, experts=experts):
        assert not ends[piece.row], "the last piece is the last"
        assert (piece.experts is not None) == (experts and piece.whole is None)
        texts[piece.row] += piece.text
        if piece.whole is not None:
            assert replace(piece.whole, experts=None) == whole[piece.row]
            ends[piece.row] = 1
    assert texts == [row.text for row in whole]
    assert ends == [1] * 4


def test_a_consumer_of_pieces_may_compute_gradients(model: TransformerLM):
    for _ in stream(model, TOKENIZER, PROMPTS[:1], SIX, end_token_id=END):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
