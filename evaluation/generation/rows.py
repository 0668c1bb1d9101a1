"""One prompt and what has been generated after it.

Shapes: P generated tokens, L layers, K experts per token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from tokenizers import Tokenizer
from torch import Tensor

from evaluation.generation.sampling import Draws, Sampling
from evaluation.generation.text import GrowingText

Reason = Literal["end", "stop", "length", "context"]


@dataclass(frozen=True)
class Generated:
    """What a prompt has been continued with."""

    prompt_tokens: int
    """Tokens of the prompt."""
    tokens: tuple[int, ...]
    """Generated, those of a stop string among them; the token that ends a document is left out."""
    text: str
    """Of the tokens, without special ones, cut before the first stop string; U+FFFD for what is no UTF-8."""
    reason: Reason
    """Why it ended: the token that ends a document, a stop string, enough tokens, or a full context."""
    experts: Tensor | None
    """int64 (P, L, K), experts that each generated token was sent to when it was read; if asked for."""


@dataclass(frozen=True)
class Piece:
    """Text that is final."""

    row: int
    """Place of its prompt."""
    text: str
    """Follows that of the row's earlier pieces."""
    experts: Tensor | None
    """int64 (L, K), experts of the token that the text belongs to; if asked for."""
    whole: Generated | None
    """With the last piece of a row: all of it. That piece has no text of its own."""


class Row:
    """A prompt under way.

    Args:
        place: of the prompt among all.
        prompt: its tokens, at least one.
        draws: of the row.
        tokenizer: of the tokens.
        settings: when to end.
        context: most tokens of prompt and text together.
        with_experts: whether every generated token is to be read, even the last, and its experts kept.
    """

    def __init__(
        self,
        place: int,
        prompt: Sequence[int],
        draws: Draws,
        tokenizer: Tokenizer,
        settings: Sampling,
        context: int,
        with_experts: bool,
    ) -> None:
        self.place, self.draws = place, draws
        self.unread = list(prompt)
        """Tokens that the model has not read yet."""
        self.tokens: list[int] = []
        self.experts: list[Tensor] = []
        self._prompt_tokens = len(prompt)
        self.with_experts = with_experts
        self._text = GrowingText(tokenizer, settings.stop)
        self._most = min(settings.max_new_tokens, context - len(prompt))
        self._at_most: Reason = "length" if self._most == settings.max_new_tokens else "context"
        self.reason: Reason | None = None if self._most else "context"
        self._told_tokens = self._told = 0

    @property
    def working(self) -> bool:
        """Whether the model has something to do for it."""
        return self.reason is None or (self.with_experts and len(self.experts) < len(self.tokens))

    def read(self, experts_LK: Tensor | None) -> None:
        """The model has read the unread tokens, the last of which went to these experts."""
        self.unread = []
        if experts_LK is not None and self.tokens:
            self.experts.append(experts_LK)

    def add(self, token: int, end_token_id: int) -> None:
        """The next token."""
        if token == end_token_id:
            self.reason = "end"
        else:
            self.unread = [token]
            self.tokens.append(token)
            self._text.add(token)
            if self._text.stopped:
                self.reason = "stop"
            elif len(self.tokens) == self._most:
                self.reason = self._at_most
        if self.reason is not None:
            self._text.finish()

    def pieces(self) -> Iterator[Piece]:
        """Text that has become final since the last call, token by token."""
        final = self._text.final if self.reason is None else len(self._text.text)
        known = len(self.experts) if self.with_experts else len(self.tokens)
        while self._told_tokens < known:
            end = self._text.end_of(self._told_tokens)
            text = self._text.text[self._told : min(end, final)]
            if text:
                experts = self.experts[self._told_tokens] if self.with_experts else None
                yield Piece(self.place, text, experts, None)
                self._told += len(text)
            if end > final or (self.reason is None and self._told_tokens == len(self.tokens) - 1):
                return  # the last token may still get more text, for a character that it does not complete
            self._told_tokens += 1
        if not self.working:
            yield Piece(self.place, "", None, self.generated())

    def generated(self) -> Generated:
        """All of it, once it has ended."""
        assert self.reason is not None
        return Generated(
            prompt_tokens=self._prompt_tokens,
            tokens=tuple(self.tokens),
            text=self._text.text,
            reason=self.reason,
            experts=_stacked(self.experts) if self.with_experts else None,
        )


def _stacked(experts: list[Tensor]) -> Tensor:
    return torch.stack(experts) if experts else torch.zeros(0, 0, 0, dtype=torch.int64)
