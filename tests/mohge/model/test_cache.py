"""Generation step by step gives what reading the whole text at once gives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mohge.config.schema import ExpertsConfig, LatentAttentionConfig, ModelConfig, RouterConfig
from mohge.model.cache import KeyValueCache
from mohge.model.initialization import initialize
from mohge.model.transformer import TransformerLM

GROUPED = ModelConfig(
    name="test",
    vocab_size=48,
    context=24,
    d_model=32,
    layers=2,
    heads=4,
    kv_heads=2,
    init_std=0.3,
    mla=LatentAttentionConfig(kv_rank=12, nope_dim=8, rope_dim=4, value_dim=6),
)
LATENT = replace(GROUPED, attention="mla", tied_head=False)
POOL = ExpertsConfig(widths=(16, 32), per_group=3, shared=1, shared_width=16, kernel="loop")
TWO_LEVEL = RouterConfig(kind="two_level", group_top_k=2, expert_top_k=2)
FLAT = RouterConfig(kind="top_k", expert_top_k=2)
DENSE = RouterConfig(kind="none")
MODELS = (GROUPED, replace(GROUPED, kv_heads=4), LATENT)
EVERY_KIND = [(model, router) for model in MODELS for router in (TWO_LEVEL, FLAT, DENSE)]
EXACT = {"rtol": 1e-9, "atol": 1e-11}


def build(model: ModelConfig, router: RouterConfig) -> TransformerLM:
    network = TransformerLM(model, POOL, router)
    initialize(network, seed=0)
    return network.double().eval()


def tokens(rows: int = 3, length: int = 24) -> Tensor:
    return torch.randint(48, (rows, length), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("model", "router"), EVERY_KIND)
@pytest.mark.parametrize("parts", [[24], [1] * 24, [5, 1, 1, 4, 13], [12, 12]], ids=str)
@torch.inference_mode()
def test_any_split_of_a_text_gives_its_logits(model: ModelConfig, router: RouterConfig, parts: list[int]):
    network, text = build(model, router), tokens()
    cache, logits = KeyValueCache(3), []
    for part in text.split(parts, dim=1):
        logits.append(network(part, cache=cache).logits_BSV)
    torch.testing.assert_close(torch.cat(logits, dim=1), network(text).logits_BSV, **EXACT)
    assert cache.lengths == [24, 24, 24]


@pytest.mark.parametrize(("model", "router"), EVERY_KIND)
@torch.inference_mode()
def test_rows_of_different_lengths_are_as_if_alone(model: ModelConfig, router: RouterConfig):
    """Prompts of 3, 7 and 5 tokens, single steps, a chunk of 3, 1 and 2, and rows that leave."""
    network, text = build(model, router), tokens()
    whole_BSV = network(text).logits_BSV
    cache, at = KeyValueCache(3), [0, 0, 0]

    def feed(rows: list[int], lengths: list[int], last: bool = False) -> Tensor:
        batch = torch.zeros(len(rows), max(lengths), dtype=torch.int64)  # token 0 is as wrong as any other
        for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            batch[place, :length] = text[row, at[row] : at[row] + length]
        logits: Tensor = network(batch, cache=cache, lengths=lengths, last=last).logits_BSV
        for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            here = whole_BSV[row, at[row] : at[row] + length]
            given = logits[place, :1] if last else logits[place, :length]
            torch.testing.assert_close(given, here[-1:] if last else here, **EXACT)
            at[row] += length
        return logits

    assert feed([0, 1, 2], [3, 7, 5], last=True).shape == (3, 1, 48)
    for _ in range(3):
        feed([0, 1, 2], [1, 1, 1])
    feed([0, 1, 2], [3, 1, 2])
    assert cache.lengths == [9, 11, 10]
    cache.keep([2, 0])
    feed([2, 0], [1, 1], last=True)
    feed([2, 0], [1, 2])
    assert cache.lengths == [12, 12]
    feed([2, 0], [1, 1])
    cache.keep([1])
    feed([0], [4])


@torch.inference_mode()
def test_a_context_is_read_once_for_several_continuations():
    network, text = build(GROUPED, TWO_LEVEL), tokens()
    cache = KeyValueCache(1)
    network(text[:1, :6], cache=cache)
    cache.keep([0, 0, 0])
    endings = text[:, 6:9]
    targets = torch.randint(48, (3, 3), generator=torch.Generator().manual_seed(1))
    found = network(endings, targets, reduction="score", cache=cache)
    whole = torch.cat((text[:1, :6].expand(3, -1), endings), dim=1)
    expected = network(whole).logits_BSV[:, 6:].log_softmax(2).gather(2, targets[..., None]).squeeze(2)
    torch.testing.assert_close(found.loss, -expected, **EXACT)


@torch.inference_mode()
def test_the_cache_holds_what_its_description_says():
    """Layers * rows * room * numbers of a token * 8 bytes."""
    for model, numbers in ((GROUPED, 2 * 2 * 8), (LATENT, 12 + 4)):
        cache = KeyValueCache(3, capacity=10)
        build(model, DENSE)(tokens(length=4), cache=cache)
        assert cache.nbytes == 2 * 3 * 10 * numbers * 8


@torch.inference_mode()
def test_room_grows_by_doubling():
    network, cache = build(replace(GROUPED, context=200), DENSE), KeyValueCache(3, capacity=4)
    text = torch.randint(GROUPED.vocab_size, (3, 200), generator=torch.Generator().manual_seed(1))
    rooms, logits = [], []
    for token in text.split(1, dim=1):
        logits.append(network(token, cache=cache).logits_BSV)
        rooms.append(cache.capacity)
    assert rooms == [4] * 4 + [64] * 60 + [128] * 64 + [256] * 72
    torch.testing.assert_close(torch.cat(logits, dim=1), network(text).logits_BSV)


@torch.inference_mode()
def test_float32_and_bfloat16_stay_close():
    for model in (GROUPED, LATENT):
        network = build(replace(model, init_std=0.05), FLAT).float()
        with torch.autocast("cpu", torch.bfloat16):
            cache, logits = KeyValueCache(3), []
            for part in tokens().split([9] + [1] * 15, dim=1):
                logits.append(network(part, cache=cache).logits_BSV)
        expected = network(tokens()).logits_BSV
        torch.testing.assert_close(torch.cat(logits, dim=1).float(), expected, rtol=0.1, atol=0.05)


@torch.inference_mode()
def test_the_context_is_a_limit_for_the_longest_row():
    network, cache = build(GROUPED, DENSE), KeyValueCache(2)
    network(tokens(2, 20), cache=cache, lengths=[20, 3])
    with pytest.raises(ValueError, match=r"25 tokens exceed the context, model\.context=24"):
        network(tokens(2, 5), cache=cache)
    assert cache.lengths == [20, 3]
    network(tokens(2, 5), cache=cache, lengths=[4, 5])
    assert cache.lengths == [24, 8]


def test_gradients_are_refused():
    with pytest.raises(ValueError, match="no gradients"):
        build(GROUPED, DENSE)(tokens(), cache=KeyValueCache(3))
