"""Log-likelihoods against a plain forward pass, however pairs are batched."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_language_model import tiny_language_model

from evaluation.harness import scoring
from evaluation.harness.scoring import NOTHING, Pair, Usage, batches_of, fit, score_batch

CONTEXT = 32
MODELS = {
    "mohge": tiny_language_model(),
    "dense": tiny_language_model(arch="dense"),
    "latent": tiny_language_model("model.attention=mla"),
}
ids = st.lists(st.integers(0, 299), min_size=1, max_size=12).map(tuple)


def by_hand(model, pair):
    """One sequence at a time, all logits, a loop over positions."""
    whole = pair.context + pair.continuation
    with torch.no_grad():
        output = model(torch.tensor([whole[:-1]]))
    total, greedy = 0.0, True
    for position in range(len(pair.context) - 1, len(whole) - 1):
        logits_V = output.logits_BSV[0, position].double()
        total += float(logits_V.log_softmax(0)[whole[position + 1]])
        greedy &= int(logits_V.argmax()) == whole[position + 1]
    counts = [0] * (output.decisions[0].num_groups if output.decisions else 0)
    for decision in output.decisions:
        for expert in decision.expert_ids_TK.flatten().tolist():
            counts[expert // decision.experts_per_group] += 1
    return total, greedy, tuple(counts)


def likeliest(model, context, length):
    """The greedy continuation."""
    whole = list(context)
    with torch.no_grad():
        for _ in range(length):
            whole.append(int(model(torch.tensor([whole])).logits_BSV[0, -1].argmax()))
    return Pair(tuple(context), tuple(whole[len(context) :]))


@pytest.mark.parametrize("name", MODELS)
@given(pairs=st.lists(st.builds(Pair, ids, ids), min_size=1, max_size=6, unique_by=lambda pair: pair.context))
@settings(max_examples=10, deadline=None)
def test_a_batch_scores_each_pair_as_it_is_scored_alone(name, pairs):
    model = MODELS[name].model
    for pair, score in zip(pairs, score_batch(model, pairs), strict=True):
        total, greedy, counts = by_hand(model, pair)
        assert score.log_likelihood == pytest.approx(total, abs=2e-4, rel=1e-5)
        assert score.greedy == greedy
        assert score.usage.tokens == pair.positions
        assert score.usage.choices_G == counts


@pytest.mark.parametrize("name", MODELS)
def test_a_shared_context_is_computed_once_and_changes_no_score(name, monkeypatch):
    model = MODELS[name].model
    rng = random.Random(3)
    contexts = [tuple(rng.choices(range(300), k=length)) for length in (20, 9, 20)]
    pairs = [
        Pair(context, tuple(rng.choices(range(300), k=rng.randint(1, 5))))
        for context in contexts
        for _ in range(4)
    ]
    rng.shuffle(pairs)
    shared = score_batch(model, pairs)
    monkeypatch.setattr(scoring, "_WORTH", 2.0)
    whole = score_batch(model, pairs)
    for one, other in zip(shared, whole, strict=True):
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-4)
        assert one.greedy == other.greedy
    computed = sum(score.usage.tokens for score in shared)
    assert computed == sum(len(context) - 1 for context in contexts) + sum(len(p.continuation) for p in pairs)
    assert computed < 0.5 * sum(score.usage.tokens for score in whole)
    if name != "dense":
        routed = MODELS[name].config.router.expert_top_k * MODELS[name].config.model.layers
        assert sum(sum(score.usage.choices_G) for score in shared) == computed * routed


def test_the_greedy_continuation_is_known_as_such():
    model = MODELS["mohge"].model
    right = likeliest(model, (5, 6, 7), 4)
    wrong = Pair(right.context, (*right.continuation[:-1], (right.continuation[-1] + 1) % 300))
    assert [score.greedy for score in score_batch(model, [right, wrong])] == [True, False]


def test_context_is_cut_on_the_left_and_the_whole_continuation_is_scored():
    pair = Pair(tuple(range(50)), tuple(range(100, 110)))
    (cut,) = fit(pair, CONTEXT)
    assert cut.positions == CONTEXT
    assert cut.continuation == pair.continuation
    assert cut.context == tuple(range(27, 50))
    (exact,) = fit(Pair(tuple(range(23)), tuple(range(10))), CONTEXT)
    assert len(exact.context) == 23


def test_a_continuation_of_the_whole_context_keeps_one_token_before_it():
    (pair,) = fit(Pair((1, 2, 3), tuple(range(CONTEXT))), CONTEXT)
    assert pair.context == (3,)
    assert pair.positions == CONTEXT


def test_a_longer_continuation_is_scored_in_windows_each_token_once():
    continuation = tuple(range(100, 100 + 2 * CONTEXT + 5))
    windows = fit(Pair((1, 2), continuation), CONTEXT)
    assert [len(window.continuation) for window in windows] == [CONTEXT, CONTEXT, 5]
    assert sum((window.continuation for window in windows), ()) == continuation
    assert [window.context for window in windows] == [(2,), (131,), (163,)]


def test_nothing_to_score_needs_no_forward_pass():
    assert fit(Pair((1, 2), ()), CONTEXT) == []


@given(pairs=st.lists(st.builds(Pair, ids, ids), max_size=40), size=st.integers(1, 9))
def test_batches_hold_every_pair_once_and_contexts_together_where_they_fit(pairs, size):
    batches = batches_of(pairs, size)
    assert sorted(index for batch in batches for index in batch) == list(range(len(pairs)))
    assert all(0 < len(batch) <= size for batch in batches)
    for context in {pair.context for pair in pairs}:
        homes = {at for at, batch in enumerate(batches) for i in batch if pairs[i].context == context}
        number = sum(pair.context == context for pair in pairs)
        assert len(homes) == -(-number // size)


def test_the_longest_come_first():
    pairs = [Pair((1,) * length, (2,)) for length in (3, 9, 5, 7)]
    assert batches_of(pairs, 2) == [[1, 3], [2, 0]]


def test_usage_adds_up():
    assert Usage(2, 0.5, (1, 2)) + Usage(3, 0.25, (4, 5)) == Usage(5, 0.75, (5, 7))
    assert NOTHING + Usage(3, 0.25, (4, 5)) == Usage(3, 0.25, (4, 5))
