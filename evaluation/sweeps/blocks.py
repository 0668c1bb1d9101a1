"""The tables and sentences of a sweep by name: what a document may hold, and all that a report shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from evaluation.benchmarks.sheet import Sheet
from evaluation.sweeps import detail_sheets, sheets
from evaluation.sweeps.analysis import Analysis, compare
from evaluation.sweeps.sentences import family_sentence, finding, power_sentence, remarks, summary
from evaluation.sweeps.study import Study
from mohge.errors import UserError

_LESS = " less "
_OF_ARMS: dict[str, Callable[[Analysis, Sequence[str]], Sheet]] = {
    "arms": sheets.arms,
    "quality": sheets.quality,
    "costs": sheets.costs,
    "changes": sheets.changes,
    "power": sheets.powers,
    "domains": detail_sheets.domains,
    "experts": detail_sheets.experts,
    "losses": detail_sheets.losses,
    "cells": detail_sheets.by_seed,
    "training": detail_sheets.training,
}
"""Tables with a row for each arm."""
_TABLES = (*_OF_ARMS, "pairs", "effects", "levels", "family", "seeds_needed")
_SENTENCES = ("summary", "finding", "power", "family", "remarks")


def all_sheets(analysis: Analysis) -> list[Sheet]:
    """Every table that has something to show, in reading order."""
    names = list(analysis.arms)
    found = [make(analysis, names) for make in _OF_ARMS.values()]
    found[3:3] = [
        sheets.comparisons("effects", "Effects of factors", analysis.effects, "factor"),
        sheets.comparisons("levels", "Levels of the grid", analysis.levels, "level"),
        *(sheets.levels(analysis, family) for family in analysis.families),
    ]
    found.append(sheets.needed(analysis))
    return [sheet for sheet in found if sheet.rows]


def table(study: Study, analysis: Analysis, name: str, given: Sequence[str]) -> Sheet:
    """A table by its name.

    Args:
        study: the sweep.
        analysis: of it.
        name: one of those above.
        given: the arms to show, in order (all by default); for pairs, each `FIRST less SECOND`; for family
            the key.

    Raises:
        UserError: there is no such table, arm or family.
    """
    if name in _OF_ARMS:
        return _OF_ARMS[name](analysis, _finished(study, analysis, given))
    if name == "pairs":
        named = {one: [_pair(study, one)] for one in given}
        return sheets.comparisons("pairs", "Pairs", compare(study, named), "pair")
    if name == "effects":
        return sheets.comparisons("effects", "Effects of factors", analysis.effects, "factor")
    if name == "levels":
        return sheets.comparisons("levels", "Levels of the grid", analysis.levels, "level")
    if name == "family":
        families = {family.key: family for family in analysis.families}
        return sheets.levels(analysis, families[_key(families, given)])
    if name == "seeds_needed":
        return sheets.needed(analysis)
    raise UserError(f"there is no table {name}: choose one of {', '.join(_TABLES)}")


def sentence(study: Study, analysis: Analysis, name: str, given: Sequence[str]) -> str:
    """A sentence, or a list of them, by its name.

    Args:
        study: the sweep.
        analysis: of it.
        name: summary, finding, power, family or remarks.
        given: for finding, `FIRST less SECOND`, one or several; for family the key.

    Raises:
        UserError: there is no such sentence, arm or family.
    """
    if name == "summary":
        return summary(study)
    if name == "finding":
        return "\n\n".join(finding(study, *_pair(study, one)) for one in given)
    if name == "power":
        return power_sentence(analysis)
    if name == "family":
        families = {family.key: family for family in analysis.families}
        return family_sentence(families[_key(families, given)])
    if name == "remarks":
        return "\n".join(f"- {remark}" for remark in remarks(study, analysis)) or "Every cell is finished."
    raise UserError(f"there is no sentence {name}: choose one of {', '.join(_SENTENCES)}")


def _finished(study: Study, analysis: Analysis, given: Sequence[str]) -> list[str]:
    for name in given:
        _known(study, name)
    return [name for name in given or analysis.arms if name in analysis.arms]


def _known(study: Study, name: str) -> str:
    if name not in study.plan.arms:
        raise UserError(f"{study.plan.name} has no arm {name}: choose of {', '.join(study.plan.arms)}")
    return name


def _pair(study: Study, given: str) -> tuple[str, str]:
    first, less, second = given.partition(_LESS)
    if not less:
        raise UserError(f"{given} names no pair of arms: write FIRST{_LESS}SECOND")
    return _known(study, first.strip()), _known(study, second.strip())


def _key(families: Mapping[str, object], given: Sequence[str]) -> str:
    if len(given) != 1 or given[0] not in families:
        known = ", ".join(families) or "none in this sweep"
        raise UserError(f"family of {', '.join(given) or 'nothing'} is unknown: choose one of {known}")
    return given[0]
