"""Windows of tokens as torch datasets.

Legend: S sequence length (`data.context`); a window holds S + 1 tokens, S of them inputs, S targets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from datamodules.store import TokenFile, TokenStore


class TrainWindows(Dataset[dict[str, Tensor]]):
    """Slices of S + 1 tokens of the training part that advance by S: each token is a target once."""

    def __init__(self, store: TokenStore, context: int) -> None:
        self._tokens: TokenFile = store.tokens
        self._context = context
        self._count = max(0, (store.train_tokens - 1) // context)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, window: int) -> dict[str, Tensor]:
        """{"tokens": int64 (S+1,)}."""
        return {"tokens": torch.from_numpy(self._tokens.read(window * self._context, self._context + 1))}


class ValidationWindows(Dataset[dict[str, Tensor]]):
    """Slices of held-out text, at most `per_domain` from each domain, none across two domains.

    A domain with fewer than S + 1 held-out tokens gives one shorter window.
    """

    def __init__(self, store: TokenStore, context: int, per_domain: int | None) -> None:
        self._tokens: TokenFile = store.tokens
        self._document_starts = store.documents["start"]
        self._windows: list[tuple[int, int, int]] = []
        """Start, length and domain of each window."""
        for domain in range(len(store.manifest.domains)):
            start, length = store.validation_range(domain)
            count = (length - 1) // context
            if per_domain is not None:
                count = min(count, per_domain)
            for window in range(count):
                self._windows.append((start + window * context, context + 1, domain))
            if count == 0:
                self._windows.append((start, length, domain))

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, window: int) -> dict[str, Tensor]:
        """{"tokens": int64 (S+1,) or shorter, "domain": int64 ()}."""
        start, length, domain = self._windows[window]
        return {"tokens": torch.from_numpy(self._tokens.read(start, length)), "domain": torch.tensor(domain)}

    def document(self, window: int) -> int:
        """Number of the document that the middle of a window is of."""
        start, length, _ = self._windows[window]
        return int(np.searchsorted(self._document_starts, start + length // 2, side="right")) - 1

    def spread(self, count: int) -> list[int]:
        """Numbers of about `count` windows: equally many of each domain, at least one, evenly spaced.

        A domain that has fewer gives all of them, and the others more.
        """
        domains: dict[int, list[int]] = {}
        for number, (_, _, domain) in enumerate(self._windows):
            domains.setdefault(domain, []).append(number)
        chosen: list[int] = []
        for done, numbers in enumerate(sorted(domains.values(), key=len)):
            share = min(len(numbers), max(1, (count - len(chosen)) // (len(domains) - done)))
            chosen += [numbers[place * len(numbers) // share] for place in range(share)]
        return sorted(chosen)

    def batches(self, batch_sequences: int, among: Sequence[int] | None = None) -> list[list[int]]:
        """Window numbers, all or those `among` them, cut into batches of windows of one length."""
        numbers = range(len(self)) if among is None else among
        batches: list[list[int]] = []
        for length in sorted({self._windows[number][1] for number in numbers}, reverse=True):
            same = [number for number in numbers if self._windows[number][1] == length]
            batches += [same[at : at + batch_sequences] for at in range(0, len(same), batch_sequences)]
        return batches


def collate_validation(windows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A batch of validation windows of one length; of no windows, one without sequences."""
    if not windows:
        return {
            "tokens": torch.empty(0, 2, dtype=torch.int64),
            "domain": torch.empty(0, dtype=torch.int64),
        }
    batch: dict[str, Tensor] = default_collate(windows)
    return batch
