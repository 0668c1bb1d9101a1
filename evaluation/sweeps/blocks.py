"""The tables and sentences of a sweep by name: what a document may hold, and all that a report shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from evaluation.benchmarks.markup import marked
from evaluation.benchmarks.sheet import Sheet
from evaluation.sweeps import detail_sheets, sheets
from evaluation.sweeps.analysis import Analysis, Levels
from evaluation.sweeps.comparing import Comparison
from evaluation.sweeps.pairing import Pairs
from evaluation.sweeps.sentences import (
    family_sentence,
    finding,
    nothing_in_common,
    power_sentence,
    remarks,
    summary,
)
from evaluation.sweeps.study import Study
from evaluation.sweeps.wording import listed
from mohge.errors import UserError

_LESS = " less "
_OF_ARMS: dict[str, Callable[[Analysis, Sequence[str]], Sheet]] = {
    "arms": sheets.arms,
    "quality": sheets.quality,
    "costs": sheets.costs,
    "changes": sheets.changes,
    "deviations": detail_sheets.deviations,
    "domains": detail_sheets.domains,
    "experts": detail_sheets.experts,
    "ranks": detail_sheets.ranks,
    "losses": detail_sheets.losses,
    "cells": detail_sheets.by_seed,
    "training": detail_sheets.training,
}
"""Tables with a row for each arm."""
PAIRS = ("pairs", "finding")
"""Tables and sentences whose arguments are pairs of arms."""
_TABLES = (*_OF_ARMS, "pairs", "effects", "levels", "family", "power")
_SENTENCES = ("summary", "finding", "power", "family", "remarks")


def all_sheets(analysis: Analysis) -> list[Sheet]:
    """Every table that has something to show, in reading order."""
    names = list(analysis.arms)
    found = [make(analysis, names) for make in _OF_ARMS.values()]
    found[3:3] = [
        sheets.comparisons(analysis, "effects", "Effects of factors", analysis.effects, "factor"),
        sheets.comparisons(analysis, "levels", "Levels of the grid", analysis.levels, "level"),
        *(sheets.levels(analysis, family) for family in analysis.families),
    ]
    found.append(sheets.powers(analysis))
    return [sheet for sheet in found if sheet.rows]


def pairs_named(study: Study, given: Sequence[str]) -> dict[str, Pairs]:
    """Pairs of arms, each `FIRST less SECOND`, by what was given.

    Raises:
        UserError: one names no two arms.
    """
    return {one: [_pair(study, one)] for one in given}


def table(study: Study, analysis: Analysis, name: str, given: Sequence[str]) -> Sheet:
    """A table by its name.

    Args:
        study: the sweep.
        analysis: of it, with the pairs that are asked for.
        name: one of those above.
        given: the arms to show, in order (all by default); for pairs, each `FIRST less SECOND`; for family
            the key.

    Raises:
        UserError: there is no such table, arm or family.
    """
    if name in _OF_ARMS:
        return _of_arms(study, analysis, name, given)
    if name == "pairs":
        return sheets.comparisons(analysis, "pairs", "Pairs", _asked(analysis, given), "pair")
    if name == "effects":
        return sheets.comparisons(analysis, "effects", "Effects of factors", analysis.effects, "factor")
    if name == "levels":
        return sheets.comparisons(analysis, "levels", "Levels of the grid", analysis.levels, "level")
    if name == "family":
        family = _family(study, analysis, given)
        return Sheet("family", "", "", [], []) if family is None else sheets.levels(analysis, family)
    if name == "power":
        return sheets.powers(analysis)
    raise UserError(f"there is no table {name}: choose one of {', '.join(_TABLES)}")


def sentence(study: Study, analysis: Analysis, name: str, given: Sequence[str]) -> str:
    """A sentence, or a list of them, by its name.

    Args:
        study: the sweep.
        analysis: of it, with the pairs that are asked for.
        name: summary, finding, power, family or remarks.
        given: for finding, `FIRST less SECOND`, one or several; for family the key.

    Raises:
        UserError: there is no such sentence, arm or family.
    """
    if name == "finding":
        return _findings(study, analysis, given)
    if name == "remarks":
        said = [f"- {marked(remark)}" for remark in remarks(study, analysis)]
        return "\n".join(said) or "Every cell is finished."
    if name == "summary":
        return marked(summary(study))
    if name == "power":
        return marked(power_sentence(analysis))
    if name == "family":
        family = _family(study, analysis, given)
        if family is None:
            return f"Nothing can be told yet: fewer than three values of {marked(given[0])} are finished."
        return marked(family_sentence(family))
    raise UserError(f"there is no sentence {name}: choose one of {', '.join(_SENTENCES)}")


def _of_arms(study: Study, analysis: Analysis, name: str, given: Sequence[str]) -> Sheet:
    for arm in given:
        _known(study, arm)
    chosen = list(given) or list(study.plan.arms)
    sheet = _OF_ARMS[name](analysis, [arm for arm in chosen if arm in analysis.arms])
    lacking = [arm for arm in chosen if arm not in analysis.arms]
    if not lacking or not sheet.rows:
        return sheet
    return replace(sheet, note=f"{sheet.note} Not finished yet: {listed(lacking)}.")


def _asked(analysis: Analysis, given: Sequence[str]) -> list[Comparison]:
    by_name = {one.name: one for one in analysis.asked}
    return [by_name[one] for one in given]


def _findings(study: Study, analysis: Analysis, given: Sequence[str]) -> str:
    """A paragraph for each pair that is compared, and one for all that are not."""
    found = _asked(analysis, given)
    told = [finding(study, one) for one in found if one.quality is not None]
    lacking = [nothing_in_common(study, *one.pairs[0]) for one in found if one.quality is None]
    return "\n\n".join(map(marked, [*told, *([" ".join(lacking)] if lacking else [])]))


def _known(study: Study, name: str) -> str:
    if name not in study.plan.arms:
        raise UserError(f"{study.plan.name} has no arm {name}: choose of {', '.join(study.plan.arms)}")
    return name


def _pair(study: Study, given: str) -> tuple[str, str]:
    first, less, second = given.partition(_LESS)
    if not less:
        raise UserError(f"{given} names no pair of arms: write FIRST{_LESS}SECOND")
    return _known(study, first.strip()), _known(study, second.strip())


def _family(study: Study, analysis: Analysis, given: Sequence[str]) -> Levels | None:
    """The family that is meant; None where arms with its key are not finished."""
    name = given[0] if len(given) == 1 else None
    for family in analysis.families:
        if family.name == name:
            return family
    several = [family.name for family in analysis.families if family.key == name]
    if several:
        raise UserError(f"family of {name} is one of several: choose one of {', '.join(several)}")
    waiting = [arm for arm in study.plan.arms if arm not in analysis.arms]
    if any(
        override.lstrip("+").startswith(f"{name}=") for arm in waiting for override in _set_by(study, arm)
    ):
        return None
    known = ", ".join(family.name for family in analysis.families) or "none in this sweep"
    raise UserError(f"family of {', '.join(given) or 'nothing'} is unknown: choose one of {known}")


def _set_by(study: Study, arm: str) -> list[str]:
    planned = study.plan.arms[arm]
    return [*planned.overrides, *(f"{key}={value}" for key, value in planned.factors.items())]
