"""Texts and types that the tests of the data share."""

from __future__ import annotations

import random
from collections.abc import Callable

from mohge.config.schema import DataConfig

Configure = Callable[..., DataConfig]
_WORDS = [
    "expert",
    "group",
    "router",
    "width",
    "token",
    "loss",
    "é",
    "物",
    "x = 12;",
    "\n\n",
    "    return",
    "🙂",
]


def words(seed: int, count: int) -> str:
    """Text that looks a little like text, the same for the same seed."""
    return " ".join(random.Random(seed).choices(_WORDS, k=count)) + f" ({seed})"
