from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from datamodules.tokenizer import (
    encode,
    load_tokenizer,
    normalised,
    token_bytes,
    train_tokenizer,
    vocabulary_size,
)
from mohge.errors import UserError

TEXTS = ["the router gives the expert a token, and the expert gives it back 1234\n" * 3, "naïve 物理 🙂"] * 5
TOKENIZER = train_tokenizer(TEXTS, 300)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_tokens_account_for_every_byte(text: str) -> None:
    (ids,) = encode(TOKENIZER, [text])
    assert int(token_bytes(TOKENIZER)[ids].sum()) == len(text.encode())
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text


def test_training_is_deterministic_and_the_end_token_is_first() -> None:
    assert train_tokenizer(TEXTS, 300).to_str() == TOKENIZER.to_str()
    assert TOKENIZER.token_to_id("<|endoftext|>") == 0
    assert token_bytes(TOKENIZER)[0] == 0
    assert vocabulary_size(TOKENIZER) <= 300


def test_text_that_spells_the_end_token_is_text() -> None:
    (ids,) = encode(TOKENIZER, ["a<|endoftext|>b"])
    assert 0 not in ids
    assert token_bytes(TOKENIZER)[ids].sum() == 15


def test_padding_and_truncation_that_a_file_has_kept_are_left_out(tmp_path: Path) -> None:
    padded = copy()
    padded.enable_padding(pad_id=0, pad_token="<|endoftext|>")
    padded.enable_truncation(max_length=4)
    loaded = load_tokenizer(save(padded, tmp_path / "tokenizer.json"), 300)
    assert encode(loaded, TEXTS) == encode(copy(), TEXTS)
    assert loaded.to_str() == TOKENIZER.to_str()


def test_digits_are_single_tokens() -> None:
    (ids,) = encode(TOKENIZER, ["1234"])
    assert len(ids) == 4


def save(tokenizer: Tokenizer, path: Path) -> Path:
    tokenizer.save(str(path))
    return path


def copy() -> Tokenizer:
    return Tokenizer.from_str(TOKENIZER.to_str())


def test_a_given_tokenizer_is_loaded_with_added_tokens_and_normaliser(tmp_path: Path) -> None:
    tokenizer = copy()
    tokenizer.add_tokens([AddedToken("    ", normalized=False)])
    tokenizer.normalizer = normalizers.NFC()
    loaded = load_tokenizer(save(tokenizer, tmp_path / "t.json"), 400)
    text = normalised(loaded, "a    e\u0301")
    assert text == "a    \u00e9"
    (ids,) = encode(loaded, [text])
    assert token_bytes(loaded)[ids].sum() == len(text.encode()) == 7
    assert token_bytes(loaded)[loaded.token_to_id("    ")] == 4


def test_wrong_tokenizers_are_refused_in_one_sentence(tmp_path: Path) -> None:
    prefixed = copy()
    prefixed.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    without_end = Tokenizer.from_str(TOKENIZER.to_str().replace("<|endoftext|>", "<|begin|>"))
    (tmp_path / "text.json").write_text("not json")
    (tmp_path / "object.json").write_text('{"model": 3}')
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe{}")
    cases = {
        tmp_path / "missing.json": "cannot be read",
        tmp_path / "text.json": "is not a tokenizer",
        tmp_path / "object.json": "is not a tokenizer",
        tmp_path / "bytes.json": "not UTF-8",
        save(
            Tokenizer(models.WordLevel({"a": 0}, "a")), tmp_path / "words.json"
        ): r"not a byte-level BPE \(its model is WordLevel\)",
        save(prefixed, tmp_path / "prefixed.json"): "gives text back unchanged",
        save(without_end, tmp_path / "endless.json"): "no special token that ends a document",
    }
    for path, expected in cases.items():
        with pytest.raises(UserError, match=expected) as caught:
            load_tokenizer(path, 400)
        assert str(path) in str(caught.value)
        assert str(caught.value).count("\n") == 0
    with pytest.raises(UserError, match=r"has \d+ entries, more than data.vocab_size=280"):
        load_tokenizer(save(copy(), tmp_path / "large.json"), 280)
