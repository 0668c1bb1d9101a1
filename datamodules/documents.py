"""Documents on disk: written once without duplicates, then read by position."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from datamodules.corpora.base import Document
from mohge.errors import UserError

DOCUMENTS_NAME = "documents.jsonl"
MOST_DOMAINS = 1000
"""Domains are reported one by one: more of them are a mistake in `data.domain_field`."""


def normalised_digest(text: str) -> bytes:
    """Equal for texts that differ in case and white space alone; 16 bytes."""
    normalised = " ".join(text.casefold().split())
    return hashlib.blake2b(normalised.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class DocumentWriter:
    """Appends documents to a file as JSON lines, leaving out empty ones and repetitions."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._seen: set[bytes] = set()
        self.documents: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.duplicates = 0

    def add(self, document: Document) -> None:
        """Write one document.

        Raises:
            UserError: the text holds half of a surrogate pair, or there are too many domains.
        """
        if not document.text or document.text.isspace():
            return
        identity = normalised_digest(document.text)
        if identity in self._seen:
            self.duplicates += 1
            return
        self._seen.add(identity)
        try:
            size = len(document.text.encode())
        except UnicodeEncodeError as error:
            raise UserError(
                f"{document.source} holds an unpaired surrogate (\\u{ord(document.text[error.start]):04x}), "
                "which is not text: remove it or correct the file's encoding."
            ) from error
        record = {
            "text": document.text,
            "source": document.source,
            "domain": document.domain,
            "key": document.key,
        }
        self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self.documents[document.domain] += 1
        self.bytes[document.domain] += size
        if len(self.documents) > MOST_DOMAINS:
            raise UserError(
                f"the corpus has more than {MOST_DOMAINS} domains, the last one {document.domain!r}: choose "
                "a data.domain_field with fewer values, or null."
            )


@dataclass(frozen=True)
class DocumentIndex:
    """Where each document of a documents.jsonl is, and what decides its split, order and selection."""

    path: Path
    offsets: np.ndarray
    """Byte position of each line, int64."""
    lengths: np.ndarray
    """Bytes of each line, int64."""
    bytes: np.ndarray
    """UTF-8 bytes of each text, int64."""
    domains: np.ndarray
    """Number of each document's domain in `domain_names`, int64."""
    keys: list[str]
    domain_names: tuple[str, ...]
    """Sorted."""

    def texts(self, order: np.ndarray) -> Iterator[str]:
        """Texts in the order of the given document numbers, read one at a time."""
        with self.path.open("rb") as file:
            for number in order:
                file.seek(self.offsets[number])
                yield json.loads(file.read(self.lengths[number]))["text"]


def index_documents(path: Path) -> DocumentIndex:
    """Read a documents.jsonl once, keeping all but the texts."""
    offsets, lengths, sizes, domains, keys = [], [], [], [], []
    position = 0
    with path.open("rb") as file:
        for line in file:
            record = json.loads(line)
            offsets.append(position)
            lengths.append(len(line))
            sizes.append(len(record["text"].encode()))
            domains.append(record["domain"])
            keys.append(f"{record['key']}")
            position += len(line)
    names = tuple(sorted(set(domains)))
    numbers = {name: number for number, name in enumerate(names)}
    return DocumentIndex(
        path=path,
        offsets=np.array(offsets, np.int64),
        lengths=np.array(lengths, np.int64),
        bytes=np.array(sizes, np.int64),
        domains=np.array([numbers[name] for name in domains], np.int64),
        keys=keys,
        domain_names=names,
    )
