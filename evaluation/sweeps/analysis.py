"""The analysis of a sweep: arms, differences to the baseline, effects of factors, levels, and power."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.statistics.seeds import holm
from evaluation.sweeps.cells import QUALITY
from evaluation.sweeps.families import Family
from evaluation.sweeps.pairing import Estimate, Pairs, difference, of_arm, same_training
from evaluation.sweeps.power import detectable, seeds_needed
from evaluation.sweeps.study import Study

COSTS = ("total_parameters", "active_expected", "active_measured", "flops_measured", "tokens_per_second")
"""Figures whose relative change is told."""
_WANTED = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002)
"""Differences, in bits per byte, for which the seeds that they need are told."""


@dataclass(frozen=True)
class Comparison:
    """One or several pairs of arms, first less second, paired by seed."""

    name: str
    pairs: Pairs
    quality: Estimate | None
    """Difference in bits per byte; below 0 the first is better."""
    p_holm: float | None
    """Holm's p over the comparisons of one kind."""
    detectable: float | None
    """The smallest true difference that so many seeds, with this deviation, show with 80% power."""
    costs: dict[str, Estimate]
    """Relative change of each of `COSTS`."""


@dataclass(frozen=True)
class Arm:
    """One design."""

    name: str
    figures: dict[str, Estimate]
    texts: dict[str, str]
    """Of its first cell."""
    beside_baseline: Comparison | None
    """None for the baseline."""


@dataclass(frozen=True)
class Levels:
    """A number that some arms differ in, against its smallest value."""

    key: str
    values: list[tuple[float, str]]
    comparisons: list[Comparison]
    """Of every other level."""


@dataclass(frozen=True)
class Power:
    """What the sweep could have shown."""

    seeds: int
    """That most arms have in common with the baseline."""
    deviation: float
    """Of a difference to the baseline between seeds: root of the mean variance over arms."""
    detectable: float
    needed: dict[float, int]
    """For differences in bits per byte, the seeds that show them with 80% power."""


@dataclass(frozen=True)
class Analysis:
    """All results of a sweep."""

    name: str
    baseline: str
    arms: dict[str, Arm]
    effects: list[Comparison]
    """Of the plan's contrasts."""
    levels: list[Comparison]
    """Of a grid: each level less the first, over the other factors."""
    families: list[Levels]
    power: Power | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def analyse(study: Study) -> Analysis:
    """Everything that the tables and charts show, of bits per byte of the last validation and of cost."""
    base = study.plan.baseline
    others = [arm for arm in study.arms if arm != base]
    beside = {one.name: one for one in compare(study, {arm: [(arm, base)] for arm in others})}
    arms = {name: _arm(study, name, beside.get(name)) for name in study.arms}
    return Analysis(
        name=study.plan.name,
        baseline=base,
        arms=arms,
        effects=compare(study, study.plan.contrasts),
        levels=compare(study, grid_levels(study)),
        families=[family_levels(study, family) for family in study.families],
        power=_power(beside.values()),
    )


def compare(study: Study, named: Mapping[str, Pairs]) -> list[Comparison]:
    """Comparisons that are one family of tests: Holm's correction is over them.

    Args:
        study: the sweep.
        named: by name, pairs of arms whose differences are averaged.
    """
    quality = {name: difference(study, pairs, QUALITY) for name, pairs in named.items()}
    tested = {
        name: found.p if found and not all(same_training(study, *pair) for pair in named[name]) else None
        for name, found in quality.items()
    }
    adjusted = holm(tested)
    return [
        Comparison(
            name=name,
            pairs=pairs,
            quality=quality[name],
            p_holm=adjusted[name],
            detectable=_detectable(quality[name]),
            costs={
                figure: found
                for figure in COSTS
                if (found := difference(study, pairs, figure, relative=True)) is not None
            },
        )
        for name, pairs in named.items()
    ]


def grid_levels(study: Study) -> dict[str, Pairs]:
    """Of a grid, by `key=value`, the pairs of arms at a level and at the key's first one, all else equal."""
    arms = {name: arm for name, arm in study.plan.arms.items() if arm.factors}
    found: dict[str, Pairs] = {}
    for key in dict.fromkeys(key for arm in arms.values() for key in arm.factors):
        values = list(dict.fromkeys(arm.factors[key] for arm in arms.values() if key in arm.factors))
        at = {
            (
                arm.of,
                *((name, value) for name, value in arm.factors.items() if name != key),
                arm.factors[key],
            ): name
            for name, arm in arms.items()
            if key in arm.factors
        }
        for value in values[1:]:
            pairs = [
                (name, at[(*rest, values[0])])
                for (*rest, level), name in at.items()
                if level == value and (*rest, values[0]) in at
            ]
            if pairs:
                found[f"{key}={value}"] = pairs
    return found


def family_levels(study: Study, family: Family) -> Levels:
    """Each level of a family against the smallest."""
    (_, lowest), *others = family.levels
    named: dict[str, Pairs] = {f"{value:g}": [(arm, lowest)] for value, arm in others}
    return Levels(family.key, family.levels, compare(study, named))


def _arm(study: Study, name: str, beside: Comparison | None) -> Arm:
    cells = study.of(name)
    figures = dict.fromkeys(figure for cell in cells.values() for figure in cell.figures)
    estimates = {figure: found for figure in figures if (found := of_arm(study, name, figure)) is not None}
    return Arm(name, estimates, next(iter(cells.values())).texts, beside)


def _detectable(found: Estimate | None) -> float | None:
    return detectable(found.deviation, found.seeds) if found is not None and found.deviation else None


def _power(beside: Any) -> Power | None:
    known: Sequence[Estimate] = [
        one.quality for one in beside if one.quality is not None and one.quality.deviation
    ]
    if not known:
        return None
    deviation = math.sqrt(sum((found.deviation or 0) ** 2 for found in known) / len(known))
    seeds = statistics.mode(found.seeds for found in known)
    needed = {wanted: seeds_needed(wanted, deviation) for wanted in _WANTED}
    return Power(seeds, deviation, detectable(deviation, seeds), needed)
