"""Tables of a sweep, as text: of arms, their cost and quality, of differences, effects, levels and power."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evaluation.benchmarks.figures import NONE, digits, probability
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
    percentage,
    seeds_text,
    short,
    verdict,
)

_SIZES = COSTS[:4]
"""Without speed, which says more of the machine."""
_CHANGES = ("total_parameters", "active_measured", "flops_measured")
INTERVALS = "In brackets: 95% t intervals over seeds."
_ONCE = "a difference that is tested in several tables has one p, of the first of arms, effects and levels"


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
                *((change(beside.quality), probability(beside.p_holm)) if beside else (NONE, NONE)),
                digits(beside.detectable) if beside else NONE,
            ]
        )
    header = ["arm", "seeds", *(WORDS[figure] for figure in _SIZES)]
    header += [f"{BITS} (95%)", f"less {base} (95%)", "p, Holm", "detectable"]
    note = (
        f"Bits per byte of held-out text, less is better. {INTERVALS} Differences are paired by seed: "
        "arms of different seeds are compared by them, not by their means. "
        f"Holm's correction is over all arms of the sweep. {detectable_note(analysis)} Active parameters and "
        "FLOPs are measured over the last tenth of the training."
    )
    return Sheet("arms", "Arms", note, header, rows, frozenset({1}), in_terminal=False)


def quality(analysis: Analysis, names: Sequence[str]) -> Sheet:
    """A row for each arm: bits per byte, difference to the baseline and what it shows."""
    rows = []
    for name in names:
        arm = analysis.arms[name]
        found = arm.figures.get(QUALITY)
        row = [_named(analysis, name), seeds_text(_seeds(arm)), interval(found)]
        beside = arm.beside_baseline
        if beside is None:
            row += ["", "", "", ""]
        else:
            p = beside.quality.p if beside.quality else None
            row += [change(beside.quality), probability(p), probability(beside.p_holm)]
            row.append(verdict(beside))
        rows.append(row)
    header = ["arm", "seeds", f"{BITS} (95%)", f"less {analysis.baseline} (95%)", "p", "p, Holm", "finding"]
    note = (
        f"Bits per byte of held-out text, less is better. {INTERVALS} Differences are paired by seed (paired "
        "t test); Holm's correction is over all arms."
    )
    return Sheet("quality", "Quality", note, header, rows, frozenset({1, 6}))


def costs(analysis: Analysis, names: Sequence[str]) -> Sheet:
    """A row for each arm: parameters, FLOPs and speed, with the change against the baseline."""
    rows = []
    for name in names:
        arm = analysis.arms[name]
        cells = [_named(analysis, name)]
        for figure in COSTS:
            found = arm.figures.get(figure)
            shown = short(found.mean if found else None)
            told = arm.beside_baseline.costs.get(figure) if arm.beside_baseline else None
            cells.append(f"{shown} ({percentage(told)})" if told else shown)
        rows.append(cells)
    note = (
        f"Means over seeds; in brackets the change against {analysis.baseline}. Measured: over the last "
        "tenth of the training. Speed depends on what else the machine did."
    )
    return Sheet("costs", "Cost", note, ["arm", *(WORDS[figure] for figure in COSTS)], rows)


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


def comparisons(analysis: Analysis, name: str, title: str, found: Sequence[Comparison], first: str) -> Sheet:
    """A row for each comparison: what it compares, quality and cost; none where no two arms are paired.

    Args:
        analysis: of the sweep.
        name: of the sheet.
        title: of the sheet.
        found: one family of tests.
        first: heading of the first column.
    """
    rows = [
        [
            *(one.name, pairs_text(one.pairs), seeds_text(one.quality.by_seed if one.quality else ())),
            *(change(one.quality), probability(one.p_holm), verdict(one)),
            *(percentage(one.costs.get(figure)) for figure in _CHANGES),
            digits(one.detectable),
        ]
        for one in found
        if any(other.quality is not None for other in found)
    ]
    header = [first, "compared", "seeds", f"{BITS} (95%)", "p, Holm", "finding"]
    header += [*(WORDS[figure] for figure in _CHANGES), "detectable"]
    words = {1, 2, 5}
    if all(row[0] == row[1] for row in rows):  # a name that says it all
        header, rows, words = [header[0], *header[2:]], [[row[0], *row[2:]] for row in rows], {1, 4}
    note = (
        f"First less second, paired by seed, the mean over pairs; below 0 the first is better. {INTERVALS} "
        f"Holm's correction is over this table; {_ONCE}. Cost: change of the first against the second. "
        f"{detectable_note(analysis)}"
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
                *((change(one.quality), probability(one.p_holm)) if one else ("", "")),
                digits(one.detectable) if one else "",
                short(active.mean if active else None),
                change(one.costs.get("active_measured"), percent=True) if one else "",
                _mean(figures, "mean_width", digits),
                _mean(figures, "idle_experts", digits),
            ]
        )
    header = [family.key, "arm", "seeds", f"{BITS} (95%)", f"less that at {lowest} (95%)", "p, Holm"]
    header += ["detectable", WORDS["active_measured"], "change, %", "mean width", "idle experts"]
    note = (
        f"{INTERVALS} Differences and changes are against {family.key}={lowest}, paired by seed: levels of "
        "different seeds are compared by them, not by their means. Holm's correction is over the levels; "
        f"{_ONCE}. "
        f"{detectable_note(analysis)} Active parameters: over the last tenth of the training; mean width "
        "of the experts that computed a row, and idle experts, over all layers: in the last validation."
    )
    return Sheet(f"family_{family.name}", family.name, note, header, rows, frozenset({1, 2}))


def powers(analysis: Analysis, names: Sequence[str]) -> Sheet:
    """A row for each arm but the baseline: the deviation of its differences, and what they can show."""
    rows = []
    for name in names:
        beside = analysis.arms[name].beside_baseline
        if beside is not None and beside.quality is not None:
            deviation = beside.quality.deviation
            rows.append([name, str(beside.quality.seeds), digits(deviation), digits(beside.detectable)])
    if analysis.power is not None and rows:
        power = analysis.power
        rows.append(
            ["all arms together", str(power.seeds), digits(power.deviation), digits(power.detectable)]
        )
    header = ["arm", "seeds", "deviation between seeds", "smallest detectable"]
    note = (
        f"In {BITS}: deviation over seeds of the paired difference to {analysis.baseline}, and the smallest "
        "true difference that a two-sided paired t test at 5% finds with 80% power in so many seeds. A "
        "deviation of few seeds is itself uncertain: the last column takes that of all arms together."
    )
    return Sheet("power", "Power", note, header, rows, in_terminal=False)


def needed(analysis: Analysis) -> Sheet:
    """Seeds that differences of some sizes need."""
    found = analysis.power.needed if analysis.power else {}
    rows = [[f"{wanted:g}", f"{seeds:,}"] for wanted, seeds in found.items()]
    shown = digits(analysis.power.deviation) if analysis.power else NONE
    note = f"For 80% power at 5%, with a deviation of {shown} {BITS} between seeds."
    return Sheet("seeds_needed", "Seeds that a difference needs", note, [BITS, "seeds"], rows)


def detectable_note(analysis: Analysis) -> str:
    """What the column says."""
    if analysis.power is None:
        return "Detectable: not known before two seeds of a difference are finished."
    return (
        "Detectable: the smallest true difference that so many seeds show with 80% power in one test, if "
        f"differences deviate by {digits(analysis.power.deviation)} between seeds, as those of all arms to "
        f"{analysis.baseline} do together."
    )


def _seeds(arm: Arm) -> Sequence[int]:
    found = arm.figures.get(QUALITY)
    return list(found.by_seed) if found else []


def _named(analysis: Analysis, name: str) -> str:
    return f"{name} (baseline)" if name == analysis.baseline else name


def _mean(figures: dict[str, Estimate], name: str, form: Callable[[float | None], str]) -> str:
    found = figures.get(name)
    return form(found.mean if found else None)
