"""Comparisons of arms: differences in quality and cost, and their p."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from evaluation.statistics.seeds import holm
from evaluation.sweeps.cells import QUALITY
from evaluation.sweeps.layout import Noise, Pooled, pooled
from evaluation.sweeps.pairing import Estimate, Pairs, difference, same_training
from evaluation.sweeps.power import detectable
from evaluation.sweeps.study import Study

COSTS = ("total_parameters", "active_expected", "active_measured", "flops_measured", "tokens_per_second")
"""Figures whose relative change is told."""

Test = tuple[tuple[str, str], ...]
"""The ids of the cells that a difference is of, so that arms that share cells are one test."""


@dataclass(frozen=True)
class Comparison:
    """One or several pairs of arms, first less second, paired by seed."""

    name: str
    pairs: Pairs
    quality: Estimate | None
    """Difference in bits per byte, with its own deviation between seeds; below 0 the first is better."""
    pooled: Pooled | None
    """The same difference, with the noise of all arms together."""
    tests: int
    """How many make up the family that p is corrected for."""
    p_holm: float | None
    """Holm's p over the comparisons of one kind, or the one that the same difference has elsewhere."""
    p_pooled: float | None
    """Likewise, of p with the noise of all arms together."""
    detectable: float | None
    """The smallest true difference that the pooled test, so corrected, finds with 80% power."""
    costs: dict[str, Estimate]
    """Relative change of each of `COSTS`."""
    same: bool
    """Whether the arms of each pair are one training, which is no test."""


def compare(
    study: Study, named: Mapping[str, Pairs], noise: Noise | None, settled: Mapping[Test, Comparison]
) -> list[Comparison]:
    """Comparisons that are one family of tests: Holm's correction is over them.

    Args:
        study: the sweep.
        named: by name, pairs of arms whose differences are averaged.
        noise: of the sweep.
        settled: tests that were made before, of `settled_by`: a difference has one p, and one verdict.
    """
    quality = {name: difference(study, pairs, QUALITY) for name, pairs in named.items()}
    same = {name: all(same_training(study, *pair) for pair in pairs) for name, pairs in named.items()}
    together = {
        name: None if same[name] else pooled(study, pairs, quality[name], noise)
        for name, pairs in named.items()
    }
    tests = {name: _test(study, named[name], found) for name, found in quality.items()}
    own = _corrected(
        {
            tests[name]: None
            if found.low is None
            else found.p  # no spread, no test, though the difference is 0
            for name, found in quality.items()
            if found and not same[name]
        }
    )
    all_ = _corrected({tests[name]: found.p for name, found in together.items() if found})
    made = sum(p is not None for p in own.values())
    compared = []
    for name, pairs in named.items():
        test, of_all = tests[name], together[name]
        before = settled.get(test)
        number = before.tests if before else made
        compared.append(
            Comparison(
                name=name,
                pairs=pairs,
                quality=quality[name],
                pooled=of_all,
                tests=number,
                p_holm=None if same[name] else before.p_holm if before else own.get(test),
                p_pooled=None if same[name] else before.p_pooled if before else all_.get(test),
                detectable=detectable(of_all.error, of_all.freedom, number) if of_all else None,
                costs={
                    figure: found
                    for figure in COSTS
                    if (found := difference(study, pairs, figure, relative=True)) is not None
                },
                same=same[name],
            )
        )
    return compared


def settled_by(study: Study, comparisons: Iterable[Comparison]) -> dict[Test, Comparison]:
    """The first comparison that made each test."""
    found: dict[Test, Comparison] = {}
    for one in comparisons:
        if one.quality is not None and not one.same:
            found.setdefault(_test(study, one.pairs, one.quality), one)
    return found


def _corrected(p_values: Mapping[Test, float | None]) -> dict[Test, float | None]:
    by_name = holm({str(test): p for test, p in p_values.items()})
    return {test: by_name[str(test)] for test in p_values}


def _test(study: Study, pairs: Pairs, found: Estimate | None) -> Test:
    """Of a difference and of the same one the other way round."""
    seeds = found.by_seed if found else ()
    ids = [
        (cells[seed].id, others[seed].id)
        for cells, others in ((study.of(first), study.of(second)) for first, second in pairs)
        for seed in seeds
    ]
    return min(tuple(sorted(ids)), tuple(sorted((second, first) for first, second in ids)))
