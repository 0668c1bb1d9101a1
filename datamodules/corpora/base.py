"""What every corpus offers to the preparation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from datamodules.manifests import Source


@dataclass(frozen=True, slots=True)
class Document:
    """A text with its origin."""

    text: str
    source: str
    """Where the text comes from, for a reader."""
    domain: str
    key: str
    """Split key: documents with one key are all training or all validation."""


class Corpus(Protocol):
    """A source of documents. Constructing one is cheap and touches no data."""

    def check(self) -> None:
        """Look, in well under a second, for what would make `documents` fail; raises UserError."""

    def identity(self) -> dict[str, object]:
        """JSON-able facts that determine the documents; known without fetching anything."""

    def documents(self, *, progress: bool) -> Iterator[Document]:
        """All documents, in a fixed order; duplicates are allowed. Raises UserError."""

    def sources(self) -> tuple[Source, ...]:
        """Origins and licences; complete once `documents` is exhausted."""


def clean_domain(name: str) -> str:
    """A domain name that can be part of a metric's name, whatever the tracker: no slash, no sign."""
    return re.sub(r"[^\w.\- ]", "_", name).strip() or "unnamed"
