"""The analysis of a sweep: arms, differences to the baseline, effects of factors, levels, and power."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from evaluation.sweeps.comparing import Comparison, compare, settled_by
from evaluation.sweeps.families import Family
from evaluation.sweeps.layout import Noise, noise_of
from evaluation.sweeps.pairing import Estimate, Pairs, of_arm
from evaluation.sweeps.sensitivity import Power, power_of
from evaluation.sweeps.study import Study


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

    name: str
    """The key, and of several families of one key their first arm."""
    key: str
    values: list[tuple[float, str]]
    comparisons: list[Comparison]
    """Of every other level."""


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
    asked: list[Comparison]
    """Pairs of `asking`."""
    noise: Noise | None
    power: Power | None

    @property
    def comparisons(self) -> list[Comparison]:
        """All, in the order in which one that comes again has its p of the first."""
        beside = [arm.beside_baseline for arm in self.arms.values() if arm.beside_baseline is not None]
        of_families = [one for family in self.families for one in family.comparisons]
        return [*beside, *self.effects, *self.levels, *of_families, *self.asked]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def analyse(study: Study) -> Analysis:
    """Everything that the tables and charts show, of bits per byte of the last validation and of cost."""
    base = study.plan.baseline
    others = [arm for arm in study.arms if arm != base]
    noise = noise_of(study)
    found = compare(study, {arm: [(arm, base)] for arm in others}, noise, {})
    beside = {one.name: one for one in found}
    effects = compare(study, study.plan.contrasts, noise, settled_by(study, found))
    found += effects
    levels = compare(study, grid_levels(study), noise, settled_by(study, found))
    found += levels
    families = []
    for family in study.families:
        families.append(_levels(study, family, noise, found))
        found += families[-1].comparisons
    return Analysis(
        name=study.plan.name,
        baseline=base,
        arms={name: _arm(study, name, beside.get(name)) for name in study.arms},
        effects=effects,
        levels=levels,
        families=families,
        asked=[],
        noise=noise,
        power=power_of(beside.values(), noise),
    )


def asking(study: Study, analysis: Analysis, pairs: dict[str, Pairs]) -> Analysis:
    """With the pairs that a reader asks for: one family of tests, with the p of before where one was made."""
    before = settled_by(study, analysis.comparisons)
    return replace(analysis, asked=compare(study, pairs, analysis.noise, before))


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


def _levels(study: Study, family: Family, noise: Noise | None, before: list[Comparison]) -> Levels:
    """Each level of a family against the smallest."""
    (_, lowest), *others = family.levels
    named: dict[str, Pairs] = {f"{value:g}": [(arm, lowest)] for value, arm in others}
    compared = compare(study, named, noise, settled_by(study, before))
    return Levels(family.name, family.key, family.levels, compared)


def _arm(study: Study, name: str, beside: Comparison | None) -> Arm:
    cells = study.of(name)
    figures = dict.fromkeys(figure for cell in cells.values() for figure in cell.figures)
    estimates = {figure: found for figure in figures if (found := of_arm(study, name, figure)) is not None}
    return Arm(name, estimates, next(iter(cells.values())).texts, beside)
