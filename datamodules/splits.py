"""Which documents are used, which of them are held out, and in which order they are packed.

All of it follows from hashes of the split keys, so that it depends neither on the machine nor on other
documents, and a document keeps its side when the corpus grows.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

from datamodules.documents import DocumentIndex
from mohge.errors import UserError


def unit_hash(purpose: str, key: str) -> float:
    """A number in [0, 1) that looks random and depends on its arguments alone."""
    digest = hashlib.blake2b(f"{purpose}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def shuffled(index: DocumentIndex) -> np.ndarray:
    """All document numbers in a fixed order that looks random; parts of one key are shuffled too."""
    # The position within the key tells parts apart; it does not change when other keys come or go.
    parts: dict[str, int] = {}
    ranks = np.empty(len(index.keys))
    for number, key in enumerate(index.keys):
        part = parts[key] = parts.get(key, -1) + 1
        ranks[number] = unit_hash(f"order {index.domains[number]} {part}", key)
    return np.argsort(ranks, kind="stable")


def within_budget(index: DocumentIndex, order: np.ndarray, max_bytes: int | None) -> np.ndarray:
    """The documents of `order` that fit into `max_bytes`, each domain keeping its share of the bytes.

    Every domain keeps two documents at least, one for each split, even where that exceeds the budget.
    """
    total = int(index.bytes.sum())
    if max_bytes is None or total <= max_bytes:
        return order
    kept = np.zeros(len(order), bool)
    for domain in range(len(index.domain_names)):
        places = np.flatnonzero(index.domains[order] == domain)
        sizes = index.bytes[order[places]]
        budget = max_bytes * sizes.sum() / total
        kept[places[np.cumsum(sizes) <= budget]] = True
        kept[places[:2]] = True
    return order[kept]


def held_out(index: DocumentIndex, order: np.ndarray, fraction: float) -> np.ndarray:
    """Whether each document of `order` is validation.

    Documents with one key go to one side, chosen by the key's hash. A domain that would miss a side gets
    one key moved. A domain made of one key in several parts, a single long file for instance, holds out
    its last parts.

    Raises:
        UserError: a domain consists of one document, which cannot be on both sides.
    """
    domain_keys: list[dict[str, float]] = [{} for _ in index.domain_names]
    for number in order:
        key = index.keys[number]
        domain_keys[index.domains[number]].setdefault(key, unit_hash("split", key))
    validation = {key for keys in domain_keys for key, value in keys.items() if value < fraction}
    for keys in domain_keys:
        if len(keys) > 1 and not validation & keys.keys():
            validation.add(min(keys, key=keys.__getitem__))
        if len(keys) > 1 and keys.keys() <= validation:
            validation.discard(max(keys, key=keys.__getitem__))
    is_validation = np.array([index.keys[number] in validation for number in order], bool)
    for domain, keys in enumerate(domain_keys):
        places = np.flatnonzero(index.domains[order] == domain)
        if len(keys) == 1:
            in_file_order = places[np.argsort(order[places])]
            is_validation[places] = False
            is_validation[in_file_order[-math.ceil(fraction * len(places)) :]] = True
        if is_validation[places].all() or not is_validation[places].any():
            raise UserError(
                f"domain {index.domain_names[domain]!r} of the corpus is too small to be split into training "
                f"and validation documents (it has {len(places)}): add text to it or remove it."
            )
    return is_validation
