"""The HTML page of runs: a template filled with sections."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from evaluation.report.frame import framed
from evaluation.report.look import MANY
from evaluation.report.tables import Chart

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class PageTable:
    """A table of the page; the first cell of a row is its header."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | dict[str, Any]]]
    """Text, or `text` with `parts`: (share, colour) of a bar below it."""
    wrapped: frozenset[int] = frozenset()
    """Columns of sentences, which may break into lines."""
    folded: bool = False
    """Whether the reader has to open it."""


@dataclass(frozen=True)
class Fragment:
    """HTML that is there already, to be opened by the reader."""

    title: str
    note: str
    html: Markup
    open: bool = False


Item = Chart | PageTable | Fragment


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading."""

    id: str
    title: str
    text: Sequence[str] = ()
    items: list[Item] = field(default_factory=list)


def render(
    title: str,
    answers: Sequence[dict[str, Any]],
    sections: Sequence[Section],
    remarks: Sequence[str],
) -> str:
    """The whole page.

    Args:
        title: of the page.
        answers: for each run its `name` and `answers`, each a `question` and an `answer`.
        sections: in reading order; those without items and text are left out.
        remarks: sentences about runs that are damaged or not finished.
    """
    return framed(
        _HERE,
        drawn=True,
        title=title,
        made=datetime.datetime.now().strftime("%d %B %Y, %H:%M"),
        answers=answers,
        sections=[section for section in sections if section.items or section.text],
        remarks=remarks,
        open_runs=MANY,
    )
