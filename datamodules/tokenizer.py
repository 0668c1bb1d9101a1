"""Byte-level BPE: trained on the corpus, or a user's tokenizer.json checked for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mohge.end_token import END_TOKEN, END_TOKENS, end_token
from mohge.errors import UserError

SMALLEST_VOCABULARY = 257
"""All bytes and the end token."""
_PROBE = "Naïve 'déjà vu',\n\t x = 1234;  # 物理 🙂\r\n\n    done\x00 "


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE of at most `vocab_size` entries, the first of which is `<|endoftext|>`.

    Digits are tokens of their own, and words are cut as in GPT-2. The same texts give the same tokenizer.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load_tokenizer(path: Path, vocab_size: int) -> Tokenizer:
    """A user's tokenizer.json.

    Raises:
        UserError: it is missing or is no tokenizer, is not a byte-level BPE that gives text back
            unchanged, has more than `vocab_size` entries, or has no end-of-document token.
    """
    name = f"data.tokenizer={path}"
    remedy = "give a tokenizer.json of the tokenizers library, or null to train one"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UserError(f"{name} cannot be read ({reason}): {remedy}.") from error
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{name} is not a tokenizer: {remedy}.") from error
    tokenizer.no_padding()  # a file keeps the settings that its writer last encoded with
    tokenizer.no_truncation()
    if not isinstance(tokenizer.model, models.BPE) or not isinstance(tokenizer.decoder, decoders.ByteLevel):
        kind = type(tokenizer.model).__name__
        raise UserError(f"{name} is not a byte-level BPE (its model is {kind}): {remedy}.")
    if (size := vocabulary_size(tokenizer)) > vocab_size:
        raise UserError(
            f"{name} has {size} entries, more than data.vocab_size={vocab_size}: set model.vocab_size={size} "
            "or choose a smaller tokenizer."
        )
    find_end_token(tokenizer, name)
    probe = normalised(tokenizer, _PROBE)
    if tokenizer.decode(encode(tokenizer, [probe])[0], skip_special_tokens=False) != probe:
        raise UserError(f"{name} is not a byte-level BPE that gives text back unchanged: {remedy}.")
    return tokenizer


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """The smallest number above every token id; ids need not be without gaps."""
    return max(tokenizer.get_vocab().values()) + 1


def find_end_token(tokenizer: Tokenizer, name: str) -> str:
    """The special token that ends a document; UserError, naming the tokenizer, without one."""
    found = end_token(tokenizer)
    if found is not None:
        return found
    raise UserError(
        f"{name} has no special token that ends a document: add {END_TOKEN} to it (or one of "
        f"{', '.join(END_TOKENS[1:])}), or set data.tokenizer=null to train one."
    )


def normalised(tokenizer: Tokenizer, text: str) -> str:
    """The text that the tokenizer's ids stand for: itself, unless the tokenizer has a normaliser."""
    return tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text


def encode(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Ids of each text. Text that spells a special token is encoded as ordinary text."""
    tokenizer.encode_special_tokens = True
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def token_bytes(tokenizer: Tokenizer) -> np.ndarray:
    """Bytes of text that each token stands for: int64 (V,), 0 for special tokens.

    In a byte-level vocabulary each character of an entry stands for one byte; added tokens are written
    as plain text.
    """
    sizes = np.zeros(vocabulary_size(tokenizer), np.int64)
    for entry, number in tokenizer.get_vocab(with_added_tokens=False).items():
        sizes[number] = len(entry)
    for number, token in tokenizer.get_added_tokens_decoder().items():
        sizes[number] = 0 if token.special else len(token.content.encode())
    return sizes
