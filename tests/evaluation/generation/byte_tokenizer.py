"""A tokenizer whose tokens are bytes: token 0 ends a document, and token n + 1 is byte n."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

END = 0


def byte_tokenizer() -> Tokenizer:
    # The alphabet's characters stand for bytes; printable ones for themselves, others in order from U+0100.
    others = iter(range(256, 512))
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    alphabet = [chr(byte if byte in printable else next(others)) for byte in range(256)]
    words = {"<|endoftext|>": END} | {letter: byte + 1 for byte, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(words, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    return tokenizer


def ids(text: str) -> list[int]:
    return [byte + 1 for byte in text.encode()]
