"""Tables of a sweep, as text: of arms, their cost and quality, of differences, effects, levels and power."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evaluation.benchmarks.figures import NONE, digits, probability, with_interval
from evaluation.benchmarks.sheet import Sheet
from evaluation.sweeps.analysis import Analysis, Arm, Levels
from evaluation.sweeps.cells import QUALITY
from evaluation.sweeps.comparing import COSTS, Comparison
from evaluation.sweeps.pairing import Estimate
from evaluation.sweeps.wording import (
    BITS,
    WORDS,
    change,
    interval,
    pairs_text,
    percent_change,
    percentage,
    seeds_text,
    short,
    verdict,
)

_SIZES = ("total_parameters", "active_measured")
_CHANGES = (*_SIZES, "flops_measured")
_SPEED = "tokens_per_second"
INTERVALS = "In brackets: 95% t intervals over seeds."
_JUDGED = ("p, Holm", "pooled (95%)", "p, pooled", "finding")
_NOT_JUDGED = 1 + len(_JUDGED)
"""Cells of an arm that is not compared."""


def arms(analysis: Analysis, names: Sequence[str]) -> Sheet:
    """A row for each arm: size, measured cost, quality, and the difference to the baseline."""
    base = analysis.baseline
    rows = []
    for name in names:
        arm = analysis.arms[name]
        means = {figure: found.mean for figure, found in arm.figures.items()}
        beside = arm.beside_baseline
        rows.append(
            [
                *(
                    _named(analysis, name),
                    seeds_text(_seeds(arm)),
                    *(short(means.get(figure)) for figure in _SIZES),
                ),
                interval(arm.figures.get(QUALITY)),
                *(_judged(beside) if beside else [NONE] * _NOT_JUDGED),
            ]
        )
    header = ["arm", "seeds", *(WORDS[figure] for figure in _SIZES)]
    header += [f"{BITS} (95%)", f"less {base} (95%)", *_JUDGED]
    note = (
        f"Bits per byte of held-out text, less is better. {INTERVALS} Differences are paired by seed: "
        "arms of different seeds are compared by them, not by their means. Active parameters are measured "
        f"over the last tenth of the training. {_p_note(analysis)}"
    )
    return Sheet("arms", "Arms", note, header, rows, frozenset({1, 9}), in_terminal=False)


def quality(analysis: Analysis, names: Sequence[str]) -> Sheet:
    """A row for each arm: bits per byte, difference to the baseline by both tests, and what it shows."""
    rows = []
    for name in names:
        arm = analysis.arms[name]
        row = [_named(analysis, name), seeds_text(_seeds(arm)), interval(arm.figures.get(QUALITY))]
        beside = arm.beside_baseline
        if beside is None:
            row += [""] * (1 + _NOT_JUDGED)
        else:
            difference, *judged = _judged(beside)
            own = beside.quality.p if beside.quality and beside.p_holm is not None else None
            row += [difference, probability(own), *judged]
        rows.append(row)
    header = ["arm", "seeds", f"{BITS} (95%)", f"less {analysis.baseline} (95%)", "p", *_JUDGED]
    note = (
        f"Bits per byte of held-out text, less is better. {INTERVALS} Differences are paired by seed (paired "
        f"t test). {_p_note(analysis)}"
    )
    return Sheet("quality", "Quality", note, header, rows, frozenset({1, 8}))


def costs(analysis: Analysis, names: Sequence[str]) -> Sheet:
    """A row for each arm: parameters, FLOPs and speed, with the change against the baseline."""
    rows = []
    for name in names:
        arm = analysis.arms[name]
        cells = [_named(analysis, name)]
        for figure in (*COSTS, _SPEED):
            found = arm.figures.get(figure)
            shown = short(found.mean if found else None)
            told = arm.beside_baseline.costs.get(figure) if arm.beside_baseline else None
            cells.append(f"{shown} ({percentage(told)})" if told else shown)
        rows.append(cells)
    note = (
        f"Means over seeds; in brackets the change against {analysis.baseline}. Measured: over the last "
        "tenth of the training. Speed is not compared: it depends on what else the machine did."
    )
    return Sheet("costs", "Cost", note, ["arm", *(WORDS[figure] for figure in (*COSTS, _SPEED))], rows)


def changes(analysis: Analysis, names: Sequence[str]) -> Sheet:
    """A row for each arm but the baseline: relative changes of cost with intervals."""
    rows = [
        [name, *(change(beside.costs.get(figure), percent=True) for figure in _CHANGES)]
        for name in names
        if (beside := analysis.arms[name].beside_baseline) is not None
    ]
    header = ["arm", *(f"{WORDS[figure]}, %" for figure in _CHANGES)]
    note = f"Change against {analysis.baseline} in percent, paired by seed. {INTERVALS}"
    return Sheet("changes", "Changes of cost", note, header, rows, in_terminal=False)


def comparisons(
    analysis: Analysis,
    name: str,
    title: str,
    found: Sequence[Comparison],
    first: str,
) -> Sheet:
    """A row for each comparison: what it compares, quality and cost; none where no two arms are paired.

    Args:
        analysis: of the sweep.
        name: of the sheet.
        title: of the sheet.
        found: the comparisons.
        first: heading of the first column.
    """
    rows = [
        [
            *(one.name, pairs_text(one.pairs), seeds_text(one.quality.by_seed if one.quality else ())),
            *_judged(one),
            *(percent_change(one.costs.get(figure)) for figure in _SIZES),
        ]
        for one in found
        if any(other.quality is not None for other in found)
    ]
    header = [first, "compared", "seeds", f"{BITS} (95%)", *_JUDGED, *(WORDS[figure] for figure in _SIZES)]
    words = {1, 2, 7}
    if all(row[0] == row[1] for row in rows):  # a name that says it all
        header, rows, words = [header[0], *header[2:]], [[row[0], *row[2:]] for row in rows], {1, 6}
    note = (
        f"First less second, paired by seed, the mean over pairs; below 0 the first is better. {INTERVALS} "
        f"{_p_note(analysis)} Cost: change of the first against the second."
    )
    return Sheet(name, title, note, header, rows, frozenset(words))


def levels(analysis: Analysis, family: Levels) -> Sheet:
    """A row for each value of the key that a family of arms differs in."""
    lowest = f"{family.values[0][0]:g}"
    against = {one.name: one for one in family.comparisons}
    rows = []
    for value, name in family.values:
        figures = analysis.arms[name].figures
        one = against.get(f"{value:g}")
        active = figures.get("active_measured")
        rows.append(
            [
                *(f"{value:g}", name, seeds_text(_seeds(analysis.arms[name]))),
                interval(figures.get(QUALITY)),
                *(_judged(one) if one else [""] * _NOT_JUDGED),
                short(active.mean if active else None),
                change(one.costs.get("active_measured"), percent=True) if one else "",
                _mean(figures, "mean_width", digits),
            ]
        )
    header = [family.key, "arm", "seeds", f"{BITS} (95%)", f"less that at {lowest} (95%)", *_JUDGED]
    header += [WORDS["active_measured"], "change, %", "mean width"]
    note = (
        f"{INTERVALS} Differences and changes are against {family.key}={lowest}, paired by seed: levels of "
        f"different seeds are compared by them, not by their means. {_p_note(analysis)} Active parameters: "
        "over the last tenth of the training; mean width of the experts that computed a row, over all "
        "layers: in the last validation."
    )
    return Sheet(f"family_{family.name}", family.name, note, header, rows, frozenset({1, 2, 8}))


def powers(analysis: Analysis) -> Sheet:
    """A row for each kind of test: the smallest difference to the baseline that it finds, seeds it needs."""
    power = analysis.power
    if power is None:
        return Sheet("power", "Power", "", [], [])
    kinds = {
        "paired t test": power.alone,
        "the same, corrected": power.corrected,
        "pooled, corrected": power.pooled,
    }
    rows = [
        [
            *(kind, str(one.tests), str(one.freedom), digits(one.detectable)),
            *(f"{seeds:,}" for seeds in one.needed.values()),
        ]
        for kind, one in kinds.items()
    ]
    header = ["test", "in a family of", "degrees of freedom", f"detectable with {power.seeds} seeds"]
    header += [f"seeds for {wanted:g}" for wanted in power.alone.needed]
    note = (
        f"In {BITS}: the smallest true difference to {analysis.baseline} that a two-sided test at 5% finds "
        "with 80% power, and the seeds that true differences of some sizes need. Differences are taken to "
        f"deviate by {digits(power.deviation)} between seeds, √2 times the noise of a training. Pooled: if "
        "all arms have so many seeds."
    )
    return Sheet("power", "Power", note, header, rows)


def _judged(one: Comparison) -> list[str]:
    """Difference, both p, the interval of the second, and the finding."""
    pooled = _pooled_interval(one), probability(one.p_pooled)
    return [change(one.quality), probability(one.p_holm), *pooled, verdict(one)]


def _pooled_interval(one: Comparison) -> str:
    if one.pooled is None:
        return NONE
    ends = with_interval(one.pooled.low, one.pooled.low, one.pooled.high, signed=True)
    return ends.partition("(")[2].rstrip(")")


def _p_note(analysis: Analysis) -> str:
    """What the two columns of p say."""
    if analysis.noise is None:
        return "Pooled: not known, as no two arms have two seeds in common that differ."
    freedom = analysis.noise.freedom
    return (
        "p, Holm: by the deviation of each difference itself; pooled: by the noise of all arms together "
        f"({freedom} degree{'s' * (freedom > 1)} of freedom), if all are equally noisy; both p corrected for "
        "all tests of the page, intervals for none."
    )


def _seeds(arm: Arm) -> Sequence[int]:
    found = arm.figures.get(QUALITY)
    return list(found.by_seed) if found else []


def _named(analysis: Analysis, name: str) -> str:
    return f"{name} (baseline)" if name == analysis.baseline else name


def _mean(figures: dict[str, Estimate], name: str, form: Callable[[float | None], str]) -> str:
    found = figures.get(name)
    return form(found.mean if found else None)
