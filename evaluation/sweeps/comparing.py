"""Comparisons of arms: differences in quality and cost, their p, and what so many seeds could have shown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from evaluation.statistics.seeds import holm
from evaluation.sweeps.cells import QUALITY
from evaluation.sweeps.pairing import Estimate, Pairs, difference, same_training
from evaluation.sweeps.power import detectable, seeds_needed
from evaluation.sweeps.study import Study

COSTS = ("total_parameters", "active_expected", "active_measured", "flops_measured", "tokens_per_second")
"""Figures whose relative change is told."""
_WANTED = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002)
"""Differences, in bits per byte, for which the seeds that they need are told."""

Test = tuple[tuple[str, str], ...]
"""The ids of the cells that a difference is of, so that arms that share cells are one test."""


@dataclass(frozen=True)
class Comparison:
    """One or several pairs of arms, first less second, paired by seed."""

    name: str
    pairs: Pairs
    quality: Estimate | None
    """Difference in bits per byte; below 0 the first is better."""
    p_holm: float | None
    """Holm's p over the comparisons of one kind, or the one that the same difference has elsewhere."""
    detectable: float | None
    """The smallest true difference that so many seeds show with 80% power, deviating as `Power` says."""
    costs: dict[str, Estimate]
    """Relative change of each of `COSTS`."""
    same: bool
    """Whether the arms of each pair are one training, which is no test."""


@dataclass(frozen=True)
class Power:
    """What the sweep could have shown."""

    seeds: int
    """That most arms have in common with the baseline."""
    deviation: float
    """Of a difference to the baseline between seeds, pooled over arms: √(Σ(n-1)s² / Σ(n-1))."""
    detectable: float
    needed: dict[float, int]
    """For differences in bits per byte, the seeds that show them with 80% power."""


def compare(
    study: Study, named: Mapping[str, Pairs], power: Power | None, settled: Mapping[Test, float | None]
) -> list[Comparison]:
    """Comparisons that are one family of tests: Holm's correction is over them.

    Args:
        study: the sweep.
        named: by name, pairs of arms whose differences are averaged.
        power: of the sweep.
        settled: p of tests that were made before, of `settled_by`: a difference has one p, and one verdict.
    """
    quality = {name: difference(study, pairs, QUALITY) for name, pairs in named.items()}
    same = {name: all(same_training(study, *pair) for pair in pairs) for name, pairs in named.items()}
    tests = {name: _test(study, named[name], found) for name, found in quality.items()}
    p_values = {tests[name]: found.p for name, found in quality.items() if found and not same[name]}
    adjusted = holm({str(test): p for test, p in p_values.items()})
    return [
        Comparison(
            name=name,
            pairs=pairs,
            quality=quality[name],
            p_holm=None if same[name] else settled.get(tests[name], adjusted.get(str(tests[name]))),
            detectable=None if same[name] else _detectable(quality[name], power),
            costs={
                figure: found
                for figure in COSTS
                if (found := difference(study, pairs, figure, relative=True)) is not None
            },
            same=same[name],
        )
        for name, pairs in named.items()
    ]


def settled_by(study: Study, comparisons: Iterable[Comparison]) -> dict[Test, float | None]:
    """The corrected p of each test that was made; of several the first."""
    found: dict[Test, float | None] = {}
    for one in comparisons:
        if one.quality is not None and not one.same:
            found.setdefault(_test(study, one.pairs, one.quality), one.p_holm)
    return found


def pooled_power(study: Study, arms: Iterable[str]) -> Power | None:
    """The power of differences to the baseline; None where none has a deviation above 0.

    Args:
        study: the sweep.
        arms: that deviations are pooled over; those that share all their cells count once.
    """
    known: dict[Test, Estimate] = {}
    for arm in arms:
        pair = (arm, study.plan.baseline)
        found = difference(study, [pair], QUALITY)
        if found is not None and found.seeds > 1 and not same_training(study, *pair):
            known.setdefault(_test(study, [pair], found), found)
    freedom = sum(found.seeds - 1 for found in known.values())
    squares = math.fsum((found.seeds - 1) * (found.deviation or 0) ** 2 for found in known.values())
    if not squares:
        return None
    deviation = math.sqrt(squares / freedom)
    seeds = statistics.mode(found.seeds for found in known.values())
    needed = {wanted: seeds_needed(wanted, deviation) for wanted in _WANTED}
    return Power(seeds, deviation, detectable(deviation, seeds), needed)


def _test(study: Study, pairs: Pairs, found: Estimate | None) -> Test:
    """Of a difference and of the same one the other way round."""
    seeds = found.by_seed if found else ()
    ids = [
        (cells[seed].id, others[seed].id)
        for cells, others in ((study.of(first), study.of(second)) for first, second in pairs)
        for seed in seeds
    ]
    return min(tuple(sorted(ids)), tuple(sorted((second, first) for first, second in ids)))


def _detectable(found: Estimate | None, power: Power | None) -> float | None:
    if found is None or power is None or found.seeds < 2:
        return None
    return detectable(power.deviation, found.seeds)
