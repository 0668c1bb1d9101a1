"""Which token comes next.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mohge.errors import RunError

_COLDEST = 1e-6
"""Least temperature above 0: below it, differences of logits would not be finite."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How text is continued, and when it ends.

    Raises:
        ValueError: A number that means nothing, or an empty stop string.
    """

    max_new_tokens: int
    """Most tokens of a row."""
    temperature: float = 0.0
    """What logits are divided by before a token is drawn; 0 takes the most probable one."""
    top_k: int | None = None
    """Draw from this many of the most probable tokens."""
    top_p: float | None = None
    """Draw from the fewest most probable tokens whose probabilities sum to this (Holtzman et al., arXiv
    1904.09751); after `top_k`."""
    stop: tuple[str, ...] = ()
    """Strings that end the text; they may begin and end within tokens, and are not part of it."""
    seed: int = 0
    """With a row's own index it gives all that is drawn for the row, whatever the batch."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens} generates nothing: give at least 1")
        if not (self.temperature == 0 or _COLDEST <= self.temperature < float("inf")):
            raise ValueError(
                f"temperature={self.temperature} is no temperature: give 0, or {_COLDEST} and more"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} leaves no token: give at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} is no share: give more than 0 and at most 1")
        if "" in self.stop:
            raise ValueError("an empty stop string would end every text at once: leave it out")


class Draws:
    """Uniform numbers of one row: the same ones for the same seed and index, one after another."""

    def __init__(self, seed: int, index: int) -> None:
        digest = hashlib.sha256(f"{seed}/{index}".encode()).digest()
        self._generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def next(self) -> float:
        """In [0, 1)."""
        return torch.rand((), generator=self._generator, dtype=torch.float64).item()


@torch.inference_mode()
def next_tokens(logits_BV: Tensor, settings: Sampling, draws: Sequence[Draws]) -> list[int]:
    """The next token of each row.

    A row's token is a function of its own logits and draw alone: tokens are laid on [0, 1) by decreasing
    probability, and the draw picks the one it falls on.

    Args:
        logits_BV: Scores of the next token.
        settings: Temperature, and which tokens to draw from.
        draws: Of each row.

    Raises:
        RunError: Logits that are not a number, as of a model that has diverged.
    """
    if bool(logits_BV.isnan().any()):
        raise RunError("the model's logits are not numbers: it has diverged, use an earlier checkpoint")
    if settings.temperature == 0:
        tokens: list[int] = logits_BV.argmax(dim=1).tolist()
        return tokens
    wide_BV = logits_BV.double()
    # Less the largest first: at a low temperature the others then vanish, and nothing overflows.
    scaled_BV = (wide_BV - wide_BV.amax(dim=1, keepdim=True)) / settings.temperature
    k = min(settings.top_k or scaled_BV.shape[1], scaled_BV.shape[1])
    best_BK, ids_BK = (
        scaled_BV.topk(k, dim=1) if k < scaled_BV.shape[1] else scaled_BV.sort(1, descending=True)
    )
    probability_BK = best_BK.softmax(dim=1)
    ends_BK = probability_BK.cumsum(dim=1)
    if settings.top_p is not None:
        # A token stays if those before it do not reach the share yet.
        probability_BK = probability_BK.masked_fill(ends_BK - probability_BK >= settings.top_p, 0.0)
        ends_BK = probability_BK.cumsum(dim=1)
    uniform_B1 = torch.tensor([[each.next()] for each in draws], dtype=torch.float64, device=logits_BV.device)
    place_B1 = torch.searchsorted(ends_BK, uniform_B1 * ends_BK[:, -1:], right=True)
    # Rounding could lead behind the last token of any probability.
    place_B1 = place_B1.minimum((probability_BK > 0).sum(dim=1, keepdim=True) - 1)
    drawn: list[int] = ids_BK.gather(1, place_B1).squeeze(1).tolist()
    return drawn
