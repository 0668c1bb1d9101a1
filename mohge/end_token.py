"""The token that ends a document."""

from __future__ import annotations

from tokenizers import Tokenizer

END_TOKEN = "<|endoftext|>"
END_TOKENS = (END_TOKEN, "<|end_of_text|>", "<|eot|>", "<eos>", "</s>")
"""Names under which a given tokenizer may hold its end-of-document token, by preference."""


def end_token(tokenizer: Tokenizer) -> str | None:
    """The special token that ends a document, if the tokenizer has one."""
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    return next((token for token in END_TOKENS if token in special), None)
