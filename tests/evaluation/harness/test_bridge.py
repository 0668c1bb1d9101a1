"""The model that lm-eval asks."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import get_model
from tiny_language_model import tiny_language_model

from evaluation.harness import bridge
from evaluation.harness.bridge import MohgeLM
from evaluation.harness.requests import encode_pairs, sampling
from mohge.errors import UserError

MODEL = tiny_language_model()
PROMPTS = ["the quick brown fox", "seven small cats", "", "count 12 grey stones.", "the lazy dog " * 12]


def bridge_of(**settings) -> MohgeLM:
    return MohgeLM(language_model=MODEL, **settings)


def ask(kind: str, *texts) -> list[Instance]:
    return [Instance(kind, {}, text if isinstance(text, tuple) else (text,), 0) for text in texts]


def generations(prompts, lm=None, **arguments):
    lm = lm or bridge_of()
    return lm.generate_until(
        ask("generate_until", *[(prompt, {"until": [], **arguments}) for prompt in prompts])
    )


def test_lm_eval_knows_it_by_name():
    assert get_model("mohge") is MohgeLM


@pytest.mark.parametrize(
    "pair",
    [
        ("the quick brown", " fox"),
        ("the quick brown ", "fox"),  # the blank belongs to the continuation
        ("the quick brown \n", " fox jumps"),
        ("seven", "small cats count"),
        ("a", " "),
        ("the lazy dog " * 30, "while seven"),
    ],
)
def test_contexts_and_continuations_are_cut_as_lm_eval_cuts_them(pair):
    lm = bridge_of()
    assert encode_pairs(MODEL, [pair]) == [TemplateLM._encode_pair(lm, *pair)]


def test_an_empty_context_is_the_end_of_another_document():
    (pair,) = encode_pairs(MODEL, [("", "the fox")])
    assert pair == ([0], MODEL.encode(["the fox"])[0])


def test_blanks_alone_are_no_context():
    (pair,) = encode_pairs(MODEL, [("  ", "the fox")])
    assert pair == ([0], MODEL.encode(["  the fox"])[0])


def test_a_continuation_that_grows_into_the_context_is_scored_by_itself():
    (whole,) = [word for word in ("qu", "th", "br") if len(MODEL.encode([word])[0]) == 1][:1]
    ((context, continuation),) = encode_pairs(MODEL, [(whole[0], whole[1])])
    assert (MODEL.decode(context), MODEL.decode(continuation)) == (whole[0], whole[1])


def test_nothing_to_continue_is_certain():
    assert bridge_of().loglikelihood(ask("loglikelihood", ("the fox", ""))) == [(0.0, True)]


def test_a_text_that_spells_the_end_token_is_text():
    ids = bridge_of().tok_encode("<|endoftext|>")
    assert 0 not in ids
    assert MODEL.decode(ids) == "<|endoftext|>"


def test_answers_come_in_the_order_of_requests_and_equal_ones_are_asked_once(monkeypatch):
    asked = []
    real = bridge.score_batch

    def counted(model, pairs, **settings):
        asked.extend(pairs)
        return real(model, pairs, **settings)

    monkeypatch.setattr(bridge, "score_batch", counted)
    requests = [("the quick", " brown fox"), ("seven", " small cats count 12"), ("the quick", " brown fox")]
    lm = bridge_of(batch_size=2)
    together = lm.loglikelihood(ask("loglikelihood", *requests))
    assert len(asked) == 2
    assert together[0] == together[2]
    for request, answer in zip(requests, together, strict=True):
        ((alone, greedy),) = bridge_of().loglikelihood(ask("loglikelihood", request))
        assert answer[0] == pytest.approx(alone, abs=1e-4)
        assert answer[1] == greedy


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_greedy_texts_are_those_of_a_model_without_a_cache(batch_size):
    texts = generations(PROMPTS, bridge_of(batch_size=batch_size), max_gen_toks=8)
    for prompt, text in zip(PROMPTS, texts, strict=True):
        ids = (MODEL.encode([prompt])[0] or [0])[-(32 - 8) :]
        new: list[int] = []
        with torch.no_grad():
            while len(new) < 8:
                best = int(MODEL.model(torch.tensor([ids + new])).logits_BSV[0, -1].argmax())
                if best == 0:
                    break
                new.append(best)
        assert text == MODEL.tokenizer.decode(new)


def test_a_generation_as_long_as_the_context_leaves_half_of_it_to_the_prompt():
    lm = bridge_of()
    settings = sampling({"until": "\n", "max_gen_toks": 500}, 32, 256)
    assert (settings.max_new_tokens, settings.stop) == (16, ("\n",))
    assert sampling({"max_gen_toks": 31}, 32, 256).max_new_tokens == 31
    (prompt,) = lm._prompts(["the lazy dog " * 12], settings)
    assert len(prompt) == 16
    assert lm.take_usage()[1] == 1  # it was cut


def test_samples_of_one_prompt_differ_and_are_the_same_again():
    settings = {"max_gen_toks": 10, "do_sample": True, "temperature": 1.0}
    five = generations(["the quick"] * 5, bridge_of(batch_size=2), **settings)
    assert len(set(five)) > 1
    assert generations(["the quick"] * 5, bridge_of(batch_size=5), **settings) == five


def test_stop_strings_are_cut():
    (whole,) = generations(["the quick"], max_gen_toks=20)
    stop = whole[3:5]
    (text,) = generations(["the quick"], max_gen_toks=20, until=[stop])
    assert text == whole[: whole.index(stop)]


def test_a_shorter_context_may_be_asked_for_and_a_longer_one_not():
    assert bridge_of(max_length=16).max_length == 16
    with pytest.raises(UserError, match="max_length=33 is not between 2 and the model's context of 32"):
        bridge_of(max_length=33)


def test_an_argument_that_means_nothing_here_is_refused():
    with pytest.raises(UserError, match="no argument dtype"):
        bridge_of(dtype="float32")


@pytest.mark.parametrize("arguments", [{"until": None}, {"until": ""}, {"until": ["", "x"], "top_k": 0}])
def test_settings_that_transformers_takes_are_taken(arguments):
    settings = sampling({**arguments, "do_sample": True, "temperature": 1.0}, 32, 8)
    assert settings.stop == (("x",) if "top_k" in arguments else ())
    assert settings.top_k is None


def test_a_sample_does_not_depend_on_the_requests_beside_it():
    settings = {"max_gen_toks": 10, "do_sample": True, "temperature": 1.0}
    alone = generations(["the quick"], **settings)
    assert generations(["seven", "the quick"], **settings)[1:] == alone


def test_batch_size_and_device_of_lm_evals_command_line_are_understood():
    assert bridge_of(batch_size="auto:4").batch_size == bridge.BATCH_SIZE
    assert bridge_of(batch_size="7").batch_size == 7
    if not torch.cuda.is_available():
        assert bridge._device("cuda:0") == "cpu"


def test_another_tokenizer_end_or_setting_has_other_answers():
    other = dataclasses.replace(MODEL, end_token_id=5)
    router = dataclasses.replace(MODEL.config.router, expert_weighting="post_softmax")
    changed = dataclasses.replace(MODEL, config=dataclasses.replace(MODEL.config, router=router))
    assert len({MODEL.digest, other.digest, changed.digest, tiny_language_model().digest}) == 3
