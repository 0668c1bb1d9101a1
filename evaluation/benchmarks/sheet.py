"""A table of a comparison as text: the terminal, Markdown, LaTeX and HTML show the same cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sheet:
    """A table; the first column names its rows."""

    name: str
    title: str
    note: str
    """How to read it."""
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: frozenset[int] = frozenset()
    """Columns after the first that are set flush left."""
    in_terminal: bool = True
    """Whether it fits a terminal of 110 columns."""


def task_name(facts: Mapping[str, Any], metric: str | None = None) -> str:
    """`PIQA (acc)`, `MMLU (acc, 5-shot)`.

    Args:
        facts: of a task of a comparison.
        metric: to name; by default the primary one.
    """
    shots = f", {facts['fewshot']}-shot" if facts["fewshot"] else ""
    return f"{facts['label']} ({metric or facts['primary']}{shots})"


def macro_name(comparison: Mapping[str, Any]) -> str:
    """`macro average of 5`."""
    return f"macro average of {len(comparison['macro_tasks'])}"
