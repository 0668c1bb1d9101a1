"""What a token is in a text: number, word, continuation of a word, punctuation, white space, or other.

Decided from the decoded text of the token and, since a word need not start after a space, of the token
before it. Leading and trailing white space of a token counts only where there is nothing else.

number             digits, with points and commas between or around them at most
word               letters alone, unless the token before ends in a letter and this one has no space
word continuation  those other letters; also the endings 's, 't, 're and the like
punctuation        punctuation and symbols alone: brackets, operators, quotes, emoji
whitespace         spaces, tabs, line breaks
other              mixtures, the end of a document, bytes of a character that several tokens spell

Shapes: P positions, V vocabulary.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

PARTS = ("number", "word", "word continuation", "punctuation", "whitespace", "other")
NUMBER, WORD, CONTINUATION, PUNCTUATION, WHITESPACE, OTHER = range(len(PARTS))

_NUMBER = re.compile(r"[.,]*\d[\d.,]*")
_ENDING = re.compile("['\u2019][^\\W\\d_]{1,2}")


def token_texts(tokenizer: Tokenizer, vocab_size: int) -> list[str]:
    """The text of each token of a byte-level BPE; \\xe7 for a byte that is no character by itself.

    Args:
        tokenizer: as the run has it.
        vocab_size: V, above every id.
    """
    byte_of = _byte_of_character()
    added = {number: token.content for number, token in tokenizer.get_added_tokens_decoder().items()}
    texts = []
    for number in range(vocab_size):
        entry = tokenizer.id_to_token(number)
        if number in added or entry is None:
            texts.append(added.get(number, ""))
            continue
        texts.append(bytes(byte_of[character] for character in entry).decode("utf-8", "backslashreplace"))
    return texts


def parts_of(tokens_P: np.ndarray, sequence_P: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """The part of text of each position, as an index of `PARTS`: int8 (P,).

    Args:
        tokens_P: ids.
        sequence_P: sequence of each position; the first token of one has none before it.
        texts: of each id, by `token_texts`.
    """
    kind_V = np.array([_kind(text) for text in texts], np.int8)
    ends_in_letter_V = np.array([text[-1:].isalpha() for text in texts])
    starts_with_space_V = np.array([text[:1].isspace() for text in texts])
    part_P = kind_V[tokens_P]
    follows_letter_P = np.zeros(len(tokens_P), bool)
    follows_letter_P[1:] = ends_in_letter_V[tokens_P[:-1]] & (sequence_P[1:] == sequence_P[:-1])
    continues_P = (part_P == WORD) & follows_letter_P & ~starts_with_space_V[tokens_P]
    return np.where(continues_P, CONTINUATION, part_P).astype(np.int8)


def _kind(text: str) -> int:
    """The part of a token that nothing precedes."""
    core = text.strip()
    if not core:
        return WHITESPACE if text else OTHER
    if _NUMBER.fullmatch(core):
        return NUMBER
    if _ENDING.fullmatch(text):
        return CONTINUATION
    # Marks (M) are accents written as characters of their own.
    kinds = {unicodedata.category(character)[0] for character in core}
    if kinds <= {"L", "M"} and "L" in kinds:
        return WORD
    return PUNCTUATION if kinds <= {"P", "S"} else OTHER


def _byte_of_character() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + number): byte for number, byte in enumerate(others)
    }
