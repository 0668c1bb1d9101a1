"""Which part of text a token is."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer

from datamodules.tokenizer import encode, train_tokenizer
from evaluation.tokens.parts import PARTS, parts_of, token_texts


def parts(*texts: str) -> list[str]:
    found_P = parts_of(np.arange(len(texts)), np.zeros(len(texts), int), texts)
    return [PARTS[part] for part in found_P]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        *((text, "number") for text in ("7", " 12", "3.14", "1,000", ".5", "٣")),
        *((text, "word") for text in ("the", " The", "\n naïve", "物理", "e\u0301")),
        *((text, "word continuation") for text in ("'s", "'t", "\u2019re")),
        *((text, "punctuation") for text in ("(", " ==", "):", '"""', "€", "🙂", ".", " \\")),
        *((text, "whitespace") for text in (" ", "\n", "\n    ", "\t", "\r\n")),
        *((text, "other") for text in ("x1", "a.b", "", "\\xe7", "\x00", " of_", "1.5a")),
    ],
)
def test_the_part_of_a_token_that_nothing_precedes(text, part):
    assert parts(text) == [part]


def test_letters_continue_a_word_unless_a_space_or_another_sign_is_between():
    assert parts(" walk", "ing", " walk", "_", "ing", "7", "th", "e") == [
        *("word", "word continuation", "word", "punctuation", "word", "number", "word", "word continuation")
    ]


def test_a_sequence_does_not_continue_the_one_before():
    found = parts_of(np.array([0, 1, 1]), np.array([0, 0, 1]), [" walk", "ing"])
    assert [PARTS[part] for part in found] == ["word", "word continuation", "word"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["some text " * 50], 280)


def test_texts_of_tokens_join_to_the_text_they_spell(tokenizer):
    texts = token_texts(tokenizer, 300)
    ascii_only = "some text, 12\n\tdone "
    assert "".join(texts[number] for number in encode(tokenizer, [ascii_only])[0]) == ascii_only
    assert texts[0] == "<|endoftext|>"
    assert texts[290:] == [""] * 10, "ids without a token"


def test_bytes_of_a_character_that_several_tokens_spell_are_written_as_numbers(tokenizer):
    texts = token_texts(tokenizer, 300)
    assert [texts[number] for number in encode(tokenizer, ["理"])[0]] == ["\\xe7", "\\x90", "\\x86"]
