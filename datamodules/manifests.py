"""What a prepared folder says about itself: sources, licences, versions, checksums and counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mohge.errors import UserError

MANIFEST_NAME = "manifest.json"
Split = Literal["train", "validation"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Record):
    """One origin of text."""

    name: str
    """Package, folder, dataset or interpreter."""
    version: str
    """Version of the origin, or "" where it has none."""
    licence: str
    """Short name of the licence, or where it is written."""
    sha256: str | None = None
    """Checksum of the fetched file, where one was fetched."""


class FileRecord(_Record):
    """Size and checksum of a file of the prepared folder."""

    bytes: int
    sha256: str


class CorpusManifest(_Record):
    """A folder of documents: documents.jsonl with an object {text, source, domain, key} per line."""

    format: Literal[1] = 1
    name: str
    """Kind of corpus."""
    identity: dict[str, object]
    """All that determines the documents; its digest names the folder."""
    sources: tuple[Source, ...]
    documents: dict[str, int]
    """Documents by domain."""
    bytes: dict[str, int]
    """UTF-8 bytes of text by domain."""
    duplicates: int
    """Documents left out because an earlier one has the same normalised text."""
    file: FileRecord
    """documents.jsonl."""


class Count(_Record):
    """Size of one domain of one split."""

    documents: int = 0
    bytes: int = 0
    """UTF-8 bytes of text; end-of-document tokens have none."""
    tokens: int = 0
    """Tokens, end-of-document tokens included."""


class Manifest(_Record):
    """A token store: tokens.bin, documents.npy and tokenizer.json."""

    format: Literal[1] = 1
    corpus: CorpusManifest
    settings: dict[str, object]
    """All that, with the corpus, determines the tokens; its digest names the folder."""
    tokenizer: str
    """Where the tokenizer comes from."""
    vocab_size: int
    """Entries of the tokenizer; token ids are below it."""
    end_token: str
    """The special token that ends each document."""
    dtype: Literal["uint16", "uint32"]
    """Little-endian type of tokens.bin."""
    domains: tuple[str, ...]
    counts: dict[Split, dict[str, Count]]
    """Sizes by split and domain."""
    files: dict[str, FileRecord]
    fingerprint: str
    """Digest of the files' checksums: two stores with equal fingerprints hold equal tokens."""

    def tokens(self, split: Split) -> int:
        """Tokens of a split, over all domains."""
        return sum(count.tokens for count in self.counts[split].values())


_R = TypeVar("_R", CorpusManifest, Manifest)


def read_manifest(kind: type[_R], folder: Path, remedy: str) -> _R:
    """The manifest of a prepared folder.

    Raises:
        UserError: it is missing, is not JSON, or lacks a field; the sentence ends with `remedy`.
    """
    path = folder / MANIFEST_NAME
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {remedy}.") from error
    except ValidationError as error:
        raise UserError(f"{path} is damaged: {remedy}.") from error


def manifest_text(manifest: CorpusManifest | Manifest) -> str:
    """The manifest as indented JSON."""
    return json.dumps(manifest.model_dump(), indent=1, ensure_ascii=False) + "\n"
