"""Text that grows token by token, and the strings that end it."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class GrowingText:
    """The text of a row's tokens, cut before the first stop string.

    A character of several tokens belongs to the token that completes it.

    Args:
        tokenizer: Of the tokens; special tokens have no text.
        stop: Strings that end the text, none of them empty.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._longest = max(map(len, stop), default=0)
        self._tokens: list[int] = []
        self._ends: list[int] = []
        self.text = ""
        """So far, without the bytes of a character that is not complete."""
        self.stopped = False
        """Whether a stop string has come; the text is then complete."""

    def add(self, token: int) -> None:
        """Append a token."""
        assert not self.stopped
        piece = self._decoder.step(self._tokenizer, token)
        self._tokens.append(token)
        self._append(piece or "")
        self._ends.append(len(self.text))

    def finish(self) -> None:
        """No token will come: what is left of a character that is not complete becomes U+FFFD."""
        if self.stopped:
            return
        whole = self._tokenizer.decode(self._tokens, skip_special_tokens=True)
        if whole.startswith(self.text) and len(whole) > len(self.text):
            self._append(whole[len(self.text) :])
            self._ends[-1] = len(self.text)

    def end_of(self, token: int) -> int:
        """Number of characters of the text up to and with the token of this number."""
        return min(self._ends[token], len(self.text))

    @property
    def final(self) -> int:
        """Number of characters that no token to come can take back."""
        if self.stopped:
            return len(self.text)
        held = (
            length
            for length in range(min(self._longest - 1, len(self.text)), 0, -1)
            if any(stop.startswith(self.text[-length:]) for stop in self._stop)
        )
        return len(self.text) - next(held, 0)

    def _append(self, piece: str) -> None:
        searched = max(0, len(self.text) - self._longest + 1)
        self.text += piece
        found = [place for stop in self._stop if (place := self.text.find(stop, searched)) >= 0]
        if found:
            self.text = self.text[: min(found)]
            self.stopped = True
