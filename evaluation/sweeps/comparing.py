"""Comparisons of arms: differences in quality and cost, and their p."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evaluation.statistics.seeds import holm
from evaluation.sweeps.beginnings import share_noise
from evaluation.sweeps.cells import DOMAIN, QUALITY
from evaluation.sweeps.layout import Noise, Pooled, pooled
from evaluation.sweeps.pairing import Estimate, Pairs, difference, same_training
from evaluation.sweeps.power import detectable
from evaluation.sweeps.study import Study

COSTS = ("total_parameters", "active_expected", "active_measured", "flops_measured")
"""Figures whose relative change is told."""

Test = tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
"""The cells that a difference is of, so that arms that share cells are one test."""


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
    """How many make up the family that p is corrected for: all of an analysis."""
    p_holm: float | None
    """Holm's p; None where there is no test, or it would be of some of the planned seeds alone."""
    p_pooled: float | None
    """Likewise, of p with the noise of all arms together."""
    detectable: float | None
    """The smallest true difference that the pooled test, so corrected, finds with 80% power; None of arms
    that begin alike, whose differences are less noisy than it takes them to be."""
    costs: dict[str, Estimate]
    """Relative change of each of `COSTS`."""
    domains: dict[str, Estimate]
    """Difference in bits per byte of each domain of the held-out text."""
    same: bool
    """Whether the arms of each pair are one training, which is no test."""
    lacking: str
    """What its planned seeds lack: of `Study.lacking`."""


@dataclass(frozen=True)
class _Measured:
    test: Test
    quality: Estimate | None
    pooled: Pooled | None
    same: bool
    lacking: str

    def p(self, found: Estimate | Pooled | None) -> float | None:
        """As a member of the family: 1 of a test that is not made yet, or never will be."""
        if self.same:
            return None
        if self.lacking:
            return 1.0
        no_spread = self.quality is None or self.quality.low is None
        return None if no_spread or found is None else found.p  # no spread, no test, though it may be 0


def compare(
    study: Study,
    kinds: Mapping[str, Mapping[str, Pairs]],
    noise: Noise | None,
    begun: Mapping[str, str],
) -> dict[str, list[Comparison]]:
    """Comparisons of all kinds, which are one family of tests: Holm's correction is over them all.

    A test is made once all planned seeds of its arms are finished: who looks at each new seed until there is
    something to see finds too much. Until then it is counted, so that no p changes when it comes.

    Args:
        study: the sweep.
        kinds: by kind and name, pairs of arms whose differences are averaged.
        noise: of the sweep.
        begun: of `begun_as`.
    """
    found = {
        (kind, name): _measured(study, pairs, noise)
        for kind, named in kinds.items()
        for name, pairs in named.items()
    }
    domains = dict.fromkeys(
        figure for cell in study.cells for figure in cell.figures if figure.startswith(DOMAIN)
    )
    own = holm({one.test: one.p(one.quality) for one in found.values()})
    all_ = holm({one.test: one.p(one.pooled) for one in found.values()})
    number = sum(p is not None for p in own.values())

    def comparison(kind: str, name: str, pairs: Pairs) -> Comparison:
        one = found[kind, name]
        judged = not one.same and not one.lacking
        return Comparison(
            name=name,
            pairs=pairs,
            quality=one.quality,
            pooled=one.pooled,
            tests=number,
            p_holm=own[one.test] if judged else None,
            p_pooled=all_[one.test] if judged else None,
            detectable=detectable(one.pooled.error, one.pooled.freedom, number)
            if one.pooled and judged and not share_noise(begun, pairs)
            else None,
            costs={
                figure: change
                for figure in COSTS
                if (change := difference(study, pairs, figure, relative=True)) is not None
            },
            domains={
                figure.removeprefix(DOMAIN): change
                for figure in domains
                if (change := difference(study, pairs, figure)) is not None
            },
            same=one.same,
            lacking=one.lacking,
        )

    return {
        kind: [comparison(kind, name, pairs) for name, pairs in named.items()]
        for kind, named in kinds.items()
    }


def _measured(study: Study, pairs: Pairs, noise: Noise | None) -> _Measured:
    quality = difference(study, pairs, QUALITY)
    same = all(same_training(study, *pair) for pair in pairs)
    together = None if same else pooled(study, pairs, quality, noise)
    return _Measured(
        _test(study, pairs), quality, together, same, study.lacking({arm for pair in pairs for arm in pair})
    )


def _test(study: Study, pairs: Pairs) -> Test:
    """Of a difference and of the same one the other way round."""
    there = [(tuple(study.plan.ids(first)), tuple(study.plan.ids(second))) for first, second in pairs]
    back = [(second, first) for first, second in there]
    return min(tuple(sorted(there)), tuple(sorted(back)))
