"""The report of a sweep as one HTML page, in the look of the other reports; it needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.benchmarks.sheet import Sheet
from evaluation.report.frame import framed
from evaluation.report.tables import Chart

_HERE = Path(__file__).parent
_SECTIONS = {
    "quality": ("Quality", ("quality", "arms", "power", "deviations"), ("differences",)),
    "effects": ("Effects", ("effects", "levels", "family_"), ("family_",)),
    "cost": ("Cost", ("costs", "changes"), ("pareto_",)),
    "curves": ("Over the training", (), ("learning_curves", "difference_curves", "active_curves")),
    "experts": ("Experts and domains", ("experts", "ranks", "domains"), ()),
    "cells": ("Each training", ("cells", "losses", "training"), ()),
}
"""By anchor: heading, names of tables and of charts, or what they begin with."""


def as_page(
    title: str,
    summary: str,
    answers: Sequence[dict[str, str]],
    remarks: Sequence[str],
    tables: Sequence[Sheet],
    charts: Sequence[Chart],
) -> str:
    """The whole page; names and errors in it are escaped.

    Args:
        title: of the page.
        summary: a sentence below it.
        answers: each a `question` and an `answer`.
        remarks: sentences about what lacks.
        tables: any; they are put into the sections that they belong to.
        charts: likewise; the page links to their files in charts/.
    """
    sections: list[tuple[str, str, list[Any], list[Any]]] = [
        (anchor, heading, _named(tables, names), _named(charts, drawn))
        for anchor, (heading, names, drawn) in _SECTIONS.items()
    ]
    return framed(
        _HERE,
        drawn=bool(charts),
        title=title,
        summary=summary,
        answers=answers,
        remarks=remarks,
        sections=sections,
    )


def _named(items: Sequence[Any], names: Sequence[str]) -> list[Any]:
    return [
        item
        for name in names
        for item in items
        if item.name == name or (name.endswith("_") and item.name.startswith(name))
    ]
