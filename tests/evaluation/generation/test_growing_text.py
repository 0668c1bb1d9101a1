"""Text that grows byte by byte."""

from __future__ import annotations

import random

import pytest
from byte_tokenizer import byte_tokenizer, ids

from evaluation.generation.text import GrowingText

TOKENIZER = byte_tokenizer()


def grown(text: str, *stop: str) -> tuple[GrowingText, list[str]]:
    """The text after all its bytes, or up to a stop string, and what was final after each."""
    growing, finals = GrowingText(TOKENIZER, stop), []
    for token in ids(text):
        growing.add(token)
        finals.append(growing.text[: growing.final])
        if growing.stopped:
            break
    return growing, finals


def test_a_character_comes_whole():
    growing, finals = grown("aé€!")
    assert finals == ["a", "a", "aé", "aé", "aé", "aé€", "aé€!"]
    assert [growing.end_of(token) for token in range(7)] == [1, 1, 2, 2, 2, 3, 4]


def test_a_stop_string_is_cut_and_never_told():
    growing, finals = grown("one\nQ: two", "\nQ:")
    assert growing.stopped
    assert growing.text == "one"
    assert finals == ["o", "on", "one", "one", "one", "one"]


def test_what_only_looks_like_a_stop_string_is_told_later():
    growing, finals = grown("a\nQb", "\nQ:")
    assert finals == ["a", "a", "a", "a\nQb"]
    assert not growing.stopped


def test_the_first_of_several_stop_strings_counts():
    assert grown("abcdef", "cd", "ef", "bcx")[0].text == "ab"


def test_an_unfinished_character_becomes_a_replacement():
    growing = GrowingText(TOKENIZER, ())
    for token in ids("a€")[:-1]:
        growing.add(token)
    assert growing.text == "a"
    growing.finish()
    assert growing.text == "a\ufffd"
    assert growing.end_of(2) == 2


@pytest.mark.parametrize("seed", range(30))
def test_any_bytes_give_what_decoding_all_of_them_gives(seed: int):
    """What is final stays, and the end is the text of all tokens, cut before the first stop string."""
    rng = random.Random(seed)
    tokens = [rng.choice([rng.randrange(256), rng.choice(list("ab€é".encode()))]) + 1 for _ in range(60)]
    stop = ("ab", "ba\n", "€€", "a€b")
    growing, told = GrowingText(TOKENIZER, stop), ""
    used = []
    for token in tokens:
        growing.add(token)
        used.append(token)
        assert growing.text[: growing.final].startswith(told)
        told = growing.text[: growing.final]
        if growing.stopped:
            break
    growing.finish()
    whole = TOKENIZER.decode(used, skip_special_tokens=True)
    cut = min((whole.find(each) for each in stop if each in whole), default=len(whole))
    assert growing.text == whole[:cut]
    assert growing.text.startswith(told)
