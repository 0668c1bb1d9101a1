"""The analysis of a sweep: arms, differences to the baseline, effects of factors, levels, and power."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.sweeps.beginnings import begun_as
from evaluation.sweeps.comparing import Comparison, compare
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
    """Pairs that a reader asks for beside those."""
    noise: Noise | None
    power: Power | None
    begun_as: dict[str, str]
    """For each arm the first one that is the same training at first, or itself."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def analyse(study: Study, asked: Mapping[str, Pairs] | None = None) -> Analysis:
    """Everything that the tables and charts show, of bits per byte of the last validation and of cost.

    Args:
        study: the sweep.
        asked: pairs to compare beside those of the plan, by name. All tests are one family.
    """
    base = study.plan.baseline
    noise, begun = noise_of(study), begun_as(study)
    kinds: dict[str, Mapping[str, Pairs]] = {
        "arms": {arm: [(arm, base)] for arm in study.plan.arms if arm != base},
        "effects": study.plan.contrasts,
        "levels": grid_levels(study),
        "asked": asked or {},
    }
    kinds |= {_kind(family): _against_lowest(family) for family in study.families}
    found = compare(study, kinds, noise, begun)
    beside = {one.name: one for one in found["arms"]}
    return Analysis(
        name=study.plan.name,
        baseline=base,
        arms={name: _arm(study, name, beside.get(name)) for name in study.arms},
        effects=found["effects"],
        levels=found["levels"],
        families=[Levels(one.name, one.key, one.levels, found[_kind(one)]) for one in study.families],
        asked=found["asked"],
        noise=noise,
        power=power_of(beside.values(), noise),
        begun_as=begun,
    )


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


def _kind(family: Family) -> str:
    return f"family {family.name}"


def _against_lowest(family: Family) -> dict[str, Pairs]:
    """Each level of a family against the smallest."""
    (_, lowest), *others = family.levels
    return {f"{value:g}": [(arm, lowest)] for value, arm in others}


def _arm(study: Study, name: str, beside: Comparison | None) -> Arm:
    cells = study.of(name)
    figures = dict.fromkeys(figure for cell in cells.values() for figure in cell.figures)
    estimates = {figure: found for figure in figures if (found := of_arm(study, name, figure)) is not None}
    return Arm(name, estimates, next(iter(cells.values())).texts, beside)
