"""The token store: one memory-mapped file of tokens with an index of its documents.

tokens.bin       little-endian uint16 or uint32; training documents first, in packing order, then the
                 validation documents domain by domain; each document ends with the end token
documents.npy    one record per document, in the same order: start, length (tokens, end token
                 included), bytes (UTF-8 bytes of text), domain, validation
tokenizer.json   of the tokenizers library
manifest.json    `datamodules.manifests.Manifest`
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from datamodules.manifests import Manifest, read_manifest
from mohge.errors import UserError
from mohge.files import sha256_of

TOKENS_NAME = "tokens.bin"
INDEX_NAME = "documents.npy"
TOKENIZER_NAME = "tokenizer.json"
INDEX_DTYPE = np.dtype(
    [("start", "<i8"), ("length", "<i8"), ("bytes", "<i8"), ("domain", "<u2"), ("validation", "?")]
)
_FULLY_CHECKED_BYTES = 1 << 30
"""Larger files are checked by size alone when a store is opened: reading them would take seconds."""


class TokenFile:
    """The memory map of tokens.bin. Pickles as its path, so that loader processes share one file."""

    def __init__(self, path: Path, dtype: str) -> None:
        self.path, self.dtype = path, dtype
        self._tokens = np.memmap(path, np.dtype(dtype).newbyteorder("<"), mode="r")

    def __reduce__(self) -> tuple[type[TokenFile], tuple[Path, str]]:
        return TokenFile, (self.path, self.dtype)

    def __len__(self) -> int:
        return len(self._tokens)

    def read(self, start: int, length: int) -> np.ndarray:
        """`length` tokens from `start` on, as int64 in memory."""
        return self._tokens[start : start + length].astype(np.int64)


@dataclass(frozen=True)
class TokenStore:
    """An opened and checked store."""

    folder: Path
    manifest: Manifest
    tokens: TokenFile
    documents: np.ndarray
    """Records of INDEX_DTYPE in the order of tokens.bin."""
    tokenizer: Tokenizer

    @property
    def train_tokens(self) -> int:
        """Length of the training part, which starts at token 0."""
        return self.manifest.tokens("train")

    def validation_range(self, domain: int) -> tuple[int, int]:
        """Start and length, in tokens, of a domain's validation part."""
        chosen = self.documents[self.documents["validation"] & (self.documents["domain"] == domain)]
        return int(chosen["start"][0]), int(chosen["length"].sum())


def open_store(folder: Path, remedy: str) -> TokenStore:
    """Open a store whose files have the recorded sizes and checksums.

    Raises:
        UserError: a file is missing, truncated or altered; the sentence names it and ends with `remedy`.
    """
    manifest = read_manifest(Manifest, folder, remedy)
    for name, recorded in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing: {remedy}.")
        size = path.stat().st_size
        if size != recorded.bytes:
            raise UserError(f"{path} has {size} bytes instead of {recorded.bytes}: {remedy}.")
        if size <= _FULLY_CHECKED_BYTES and sha256_of(path) != recorded.sha256:
            raise UserError(f"{path} has changed since it was made (wrong checksum): {remedy}.")
    return TokenStore(
        folder=folder,
        manifest=manifest,
        tokens=TokenFile(folder / TOKENS_NAME, manifest.dtype),
        documents=np.load(folder / INDEX_NAME, allow_pickle=False),
        tokenizer=Tokenizer.from_file(str(folder / TOKENIZER_NAME)),
    )
