"""TextDataModule: batches of token windows from any of the corpora.

Legend: B sequences of a batch that this process reads (`data.batch_sequences`, or its part), S sequence
(`data.context`), V vocabulary of the tokenizer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.cache import remedy
from datamodules.manifests import Manifest
from datamodules.prepare import prepare
from datamodules.sampler import CountedBatches, Part, WindowOrder
from datamodules.store import TokenStore, open_store
from datamodules.tokenizer import encode, normalised, token_bytes
from datamodules.windows import TrainWindows, ValidationWindows, collate_validation
from mohge.config.schema import DataConfig
from mohge.errors import UserError

_COUNTED_AT_ONCE = 1 << 24
"""Tokens, in memory as int64."""


class TextDataModule(L.LightningDataModule):
    """Prepares a corpus once and gives its tokens in a counted order.

    `position` is the number of micro-batches that training has consumed. The training side calls
    `advance` after each of them, so that batches which loader processes have fetched ahead do not count;
    the position is part of every checkpoint, and iteration starts from it.

    Args:
        cfg: corpus, tokenizer, context and batch.
        seed: decides the order of training windows, together with the position alone.
    """

    def __init__(self, cfg: DataConfig, seed: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.seed = seed
        self.position = 0
        self.val_sequences: int | None = None
        """Held-out windows of each domain, at most; None for all."""
        self._part = Part()
        self._store: TokenStore | None = None

    def read_part(self, index: int, count: int) -> None:
        """Read part `index` of `count` of every batch, where so many processes train together."""
        self._part = Part(index, count)

    def prepare(self, progress: bool = True) -> Manifest:
        """Make the token store unless it is there, then open and check it.

        Idempotent, atomic, and safe to call from two processes at once.

        Raises:
            UserError: wrong input, a full disk, or a damaged store.
        """
        if self._store is None:  # Lightning's hooks come here twice more
            self._store = self._open(prepare(self.cfg, progress=progress))
        return self._store.manifest

    def prepare_data(self) -> None:
        """Lightning's hook for the process that prepares."""
        self.prepare()

    def setup(self, stage: str) -> None:
        """Open the store, making it first if it is not there; raises UserError as `prepare` does."""
        self.prepare()

    @property
    def store(self) -> TokenStore:
        """The opened token store; `prepare` or `setup` comes first."""
        assert self._store is not None, "call prepare() or setup() first"
        return self._store

    @property
    def manifest(self) -> Manifest:
        """What the store says about itself."""
        return self.store.manifest

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains; a batch's "domain" counts in this order."""
        return self.manifest.domains

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the store."""
        return self.store.tokenizer

    @property
    def end_token_id(self) -> int:
        """Id of the token that ends each document."""
        number = self.tokenizer.token_to_id(self.manifest.end_token)
        assert number is not None, "the store was made with this token"
        return number

    @property
    def token_bytes_V(self) -> Tensor:
        """Bytes of text that each token stands for: int64 (V,), 0 for special tokens."""
        return torch.from_numpy(token_bytes(self.tokenizer))

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Endless batches {"tokens": int64 (B, S+1)} that start at `position`."""
        windows = TrainWindows(self.store, self.cfg.context)
        order = WindowOrder(len(windows), self.cfg.batch_sequences, self.seed)
        return DataLoader(
            windows,
            batch_sampler=CountedBatches(order, lambda: self.position, self._part),
            generator=torch.Generator(),  # else each loader draws from the run's own generator
            num_workers=self.cfg.workers,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches {"tokens": int64 (B, S+1), "domain": int64 (B,)}, always the same ones.

        All windows are full, but for a domain with fewer than S + 1 held-out tokens: its one window is
        shorter and comes in a batch of windows of its length. The last batch of a length may be smaller.
        Where several processes read parts of a batch, some parts may be empty: all see as many batches.
        """
        windows = ValidationWindows(self.store, self.cfg.context, self.val_sequences)
        batches = [self._part.of(batch) for batch in windows.batches(self.cfg.batch_sequences)]
        return DataLoader(
            windows, batch_sampler=batches, generator=torch.Generator(), collate_fn=collate_validation
        )

    def validation_sample(self, tokens: int) -> DataLoader[dict[str, Tensor]]:
        """Batches as `val_dataloader` gives them, of windows spread evenly over the held-out text.

        Args:
            tokens: inputs in all windows, about; each domain gives the same number of windows, as far as it
                has them, and one at least.
        """
        windows = ValidationWindows(self.store, self.cfg.context, None)
        chosen = windows.spread(tokens // self.cfg.context)
        batches = windows.batches(self.cfg.batch_sequences, chosen)
        return DataLoader(
            windows, batch_sampler=batches, generator=torch.Generator(), collate_fn=collate_validation
        )

    def token_counts(self) -> Tensor:
        """Occurrences of each token in the training part: int64 (V,)."""
        store, total = self.store, self.store.train_tokens
        counts_V = np.zeros(self.manifest.vocab_size, np.int64)
        for start in range(0, total, _COUNTED_AT_ONCE):
            part = store.tokens.read(start, min(_COUNTED_AT_ONCE, total - start))
            counts_V += np.bincount(part, minlength=len(counts_V))
        return torch.from_numpy(counts_V)

    def encode(self, text: str) -> list[int]:
        """Ids of a text as the store would hold it, without the end token."""
        return encode(self.tokenizer, [normalised(self.tokenizer, text)])[0]

    def advance(self) -> None:
        """Count one micro-batch as consumed."""
        self.position += 1

    def state_dict(self) -> dict[str, Any]:
        """The position, and what gives it a meaning."""
        return {"position": self.position, **self._meaning()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the position from a checkpoint.

        Raises:
            UserError: the checkpoint's batches came from other data or were cut in another way.
        """
        for name, value in self._meaning().items():
            if state_dict[name] != value:
                raise UserError(
                    f"the checkpoint was trained with {name}={state_dict[name]}, and this run has {value}: "
                    "batches would not continue where they stopped, so restore the data and settings of "
                    "that run or start a new one."
                )
        self.position = state_dict["position"]

    def summary(self) -> dict[str, Any]:
        """Plain facts for tables: tokenizer, licences, and sizes by domain and split."""
        manifest = self.manifest
        return {
            "corpus": self.cfg.name,
            "folder": str(self.store.folder),
            "fingerprint": manifest.fingerprint,
            "tokenizer": {"source": manifest.tokenizer, "vocab_size": manifest.vocab_size},
            "sources": [source.model_dump() for source in manifest.corpus.sources],
            "licences": sorted({source.licence for source in manifest.corpus.sources}),
            "duplicates": manifest.corpus.duplicates,
            "domains": {
                name: {split: manifest.counts[split][name].model_dump() for split in manifest.counts}
                for name in manifest.domains
            },
            "train_tokens": manifest.tokens("train"),
            "validation_tokens": manifest.tokens("validation"),
        }

    def _meaning(self) -> dict[str, Any]:
        return {
            "data.fingerprint": self.manifest.fingerprint,
            "seed": self.seed,
            "data.context": self.cfg.context,
            "data.batch_sequences": self.cfg.batch_sequences,
        }

    def _open(self, folder: Path) -> TokenStore:
        store = open_store(folder, remedy(self.cfg, folder))
        for split in ("train", "validation"):
            tokens = store.manifest.tokens(split)
            if tokens < self.cfg.context + 1:
                raise UserError(
                    f"the {split} part of data={self.cfg.name} has {tokens} tokens, fewer than one window of "
                    f"data.context={self.cfg.context} needs: add text or set a smaller data.context."
                )
        return store
