"""What a sweep found, in plain sentences, and what a reader must know beside it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from evaluation.benchmarks.figures import NONE, digits, probability
from evaluation.sweeps.analysis import Analysis, Levels
from evaluation.sweeps.beginnings import parted
from evaluation.sweeps.cells import QUALITY
from evaluation.sweeps.comparing import Comparison
from evaluation.sweeps.pairing import Estimate, not_comparable, of_arm, same_training
from evaluation.sweeps.study import FAILED, UNFINISHED, Study
from evaluation.sweeps.wording import (
    BETTER,
    BETTER_POOLED,
    BITS,
    NOT_SHOWN,
    SHOWN,
    WORSE,
    WORSE_POOLED,
    change,
    listed,
    pairs_text,
    percent_change,
    percentage,
    short,
    verdict,
)

_REASON = 160
"""Characters of the reason of a failure that a remark has room for."""
_VERDICTS = {
    BETTER: "lower, so better",
    WORSE: "higher, so worse",
    BETTER_POOLED: "lower, so better, if all arms are equally noisy",
    WORSE_POOLED: "higher, so worse, if all arms are equally noisy",
    NOT_SHOWN: "no difference shown",
}


def summary(study: Study) -> str:
    """How much of the sweep is finished, with how many tokens, and of which revision."""
    plan = study.plan
    tokens = sorted({cell.figures["tokens"] for cell in study.cells})
    each = " to ".join(f"{number:,.0f}" for number in dict.fromkeys([*tokens[:1], *tokens[-1:]]))
    revisions = _revisions(study)
    at = f", at revision{'s' * (len(revisions) > 1)} {', '.join(revisions)}" if revisions else ""
    seeds = f"of {len(plan.arms)} arms with seeds {', '.join(map(str, plan.seeds))}"
    trained = f"; {each} training tokens each{at}" if tokens else ""
    done = f"{plan.name}: {len(study.cells)} of {len(plan.cells)} cells are finished, {seeds}{trained}."
    if study.lacking(plan.arms) == UNFINISHED:
        done += " No difference is judged before all planned seeds of its arms are finished."
    return done


def finding(study: Study, one: Comparison) -> str:
    """Size, measured cost and quality of one arm against another, with what the seeds could have shown.

    Args:
        study: the sweep.
        one: the comparison of two arms that have a finished seed in common.
    """
    ((first, second),) = one.pairs
    sizes = [of_arm(study, arm, "total_parameters") for arm in (first, second)]
    mine, theirs = (short(size.mean if size else None) for size in sizes)
    against = f" ({mine} against {theirs})" if mine != theirs else f" ({mine})" if mine != NONE else ""
    told = []
    if (total := one.costs.get("total_parameters")) is not None:
        told.append(f"has {_relation(total, 'parameters', second)}{against}")
    if (active := one.costs.get("active_measured")) is not None:
        ends = _ends(active, percent=True)
        if active.low is not None and active.high is not None and active.low <= 0 <= active.high:
            ends += ", not told from none"
        measured = f" (measured{f'; {ends}' if ends else ''})"
        told.append(f"uses {_relation(active, 'parameters per token', '' if told else second)}{measured}")
    sentence = f"{first} {' and '.join(told)}. " if told else ""
    return sentence + quality_sentence(one, f"{first} less {second}")


def nothing_in_common(study: Study, first: str, second: str) -> str:
    """Why two arms are not compared."""
    if not_comparable(study, first, second):
        return f"{first} and {second} learned from different data, so that they are not compared."
    return f"{first} and {second} have no finished seed in common yet."


def quality_sentence(one: Comparison, what: str) -> str:
    """The difference in bits per byte, with interval, p, seeds, verdict and the smallest detectable."""
    found = one.quality
    if found is None:
        return (
            f"Quality of {what} cannot be told yet: no seed of all these arms is finished on the same data."
        )
    return f"Bits per byte, {what}: {_difference(one, found)}{_detected(one)}"


def power_sentence(analysis: Analysis) -> str:
    """The smallest difference that the sweep could show, or why none is told."""
    found, base = analysis.power, analysis.baseline
    if found is not None and analysis.noise is not None:
        freedom = analysis.noise.freedom
        least = f"{digits(found.alone.detectable)} by one paired t test"
        if found.corrected.tests > 1:
            least += (
                f", of {digits(found.corrected.detectable)} after Holm's correction for "
                f"{found.corrected.tests} tests, and of {digits(found.pooled.detectable)} after it with the "
                "noise of all arms together"
            )
        return (
            f"Trainings have a noise of {digits(analysis.noise.deviation)} {BITS} beside what arm and seed "
            f"give ({freedom} degree{'s' * (freedom > 1)} of freedom), so that paired differences deviate by "
            f"{digits(found.deviation)} between seeds. With 80% power {found.seeds} seeds show true "
            f"differences to {base} of {least}; smaller ones are missed more often."
        )
    if base not in analysis.arms:
        return f"What these seeds can show is not known yet: {base} has no finished cell."
    beside = [arm.beside_baseline for arm in analysis.arms.values()]
    paired = [one.quality.seeds for one in beside if one and one.quality and not one.same]
    if not paired:
        return f"What these seeds can show is not known yet: no other arm has a finished seed of {base}."
    if max(paired) < 2:
        return f"What these seeds can show is not known yet: no arm has two seeds in common with {base}."
    return f"What these seeds can show is not known: differences to {base} are the same in all of them."


def family_sentence(family: Levels) -> str:
    """What the largest value of a key did to measured active parameters and to quality."""
    (lowest, _), (highest, _) = family.values[0], family.values[-1]
    top = family.comparisons[-1]
    moved = f"From {family.key}={lowest:g} to {highest:g}"
    if top.quality is None:
        return f"{moved} nothing can be told yet: {listed(top.pairs[0])} have no finished seed in common."
    active = top.costs.get("active_measured")
    if active is None:
        told = ""
    else:
        ends = _ends(active, percent=True)
        told = (
            f"measured active parameters changed by {percentage(active)}{f' ({ends})' if ends else ''}, and "
        )
    return f"{moved} {told}{BITS} changed by {_difference(top, top.quality)}{_detected(top)}"


def answers(study: Study, analysis: Analysis) -> list[dict[str, str]]:
    """`question` and `answer` of each: what the sweep was made to tell."""
    said = {"What can these seeds show?": power_sentence(analysis)}
    for one in analysis.effects:
        said[f"{one.name}: what does it do?"] = quality_sentence(one, pairs_text(one.pairs))
    said |= {f"{family.name}: what does it do?": family_sentence(family) for family in analysis.families}
    found = [arm.beside_baseline for arm in analysis.arms.values() if arm.beside_baseline is not None]
    told: dict[str, list[str]] = {wanted: [] for wanted in (*SHOWN, NOT_SHOWN)}
    for one in found:
        told.setdefault(verdict(one), []).append(one.name)
    untested = [f"; {why}: {listed(names)}" for why, names in told.items() if why not in (*SHOWN, NOT_SHOWN)]
    said[f"Which arms differ from {analysis.baseline}?"] = (
        f"After Holm's correction better: {', '.join(told[BETTER]) or 'none'}; worse: "
        f"{', '.join(told[WORSE]) or 'none'}; if noise is equal, also better: "
        f"{', '.join(told[BETTER_POOLED]) or 'none'}; worse: {', '.join(told[WORSE_POOLED]) or 'none'}; of "
        f"{len(told[NOT_SHOWN])} others these seeds do not tell{''.join(untested)}."
    )
    return [{"question": question, "answer": answer} for question, answer in said.items()]


def remarks(study: Study, analysis: Analysis) -> list[str]:
    """Cells that lack, pairs that are none, arms that are one training, revisions that differ."""
    said = _unfinished(study)
    if study.cells and study.plan.baseline not in analysis.arms:
        said.append(
            f"The baseline {study.plan.baseline} has no finished cell: there are no differences to it."
        )
    for first, second in combinations(study.arms, 2):
        if same_training(study, first, second):
            said.append(
                f"{first} and {second} are the same training: their difference is zero by definition."
            )
    for (leader, *parted_at), arms in parted(study).items():
        said.append(
            f"{listed([leader, *arms])} are one training at first with some seeds, and not at "
            f"{_seeds(parted_at)}, as on processors that round differently: differences are noisier there."
        )
    pairs = {(arm, study.plan.baseline) for arm in study.arms}
    pairs |= {pair for some in study.plan.contrasts.values() for pair in some}
    for first, second in sorted(pairs):
        if seeds := not_comparable(study, first, second):
            said.append(
                f"{first} and {second} are not paired at {_seeds(seeds)}: they read "
                "other data, another order of it, or another number of tokens."
            )
    revisions = _revisions(study)
    if len(revisions) > 1:
        said.append(f"Cells were trained at several revisions: {', '.join(revisions)}.")
    if any(revision.endswith("+") for revision in revisions):
        said.append("A + after a revision: the source had changes that were not committed.")
    return said


def _unfinished(study: Study) -> list[str]:
    """A remark for each arm that lacks seeds, or has failed, and one for what all arms lack."""
    finished = {cell.seed for cell in study.cells}
    none_at = [seed for seed in study.plan.seeds if seed not in finished]
    open_ = [one for one in study.unfinished if one.state == UNFINISHED]
    said = [f"No cell of {_seeds(none_at)} is finished."] if none_at else []
    left_out = [arm for arm in study.plan.arms if not study.of(arm)]
    if left_out and study.cells:
        verb = "is" if len(left_out) == 1 else "are"
        said.append(
            f"{listed(left_out)} {verb} left out: no cell of {'it' if verb == 'is' else 'them'} is finished."
        )
    for arm in study.plan.arms:
        seeds = [one.seed for one in open_ if one.arm == arm and one.seed not in none_at]
        if seeds and arm not in left_out:
            said.append(f"{arm}: {_seeds(seeds)} {'is' if len(seeds) == 1 else 'are'} not finished.")
        by_reason: dict[tuple[str, str], list[int]] = {}
        for one in study.unfinished:
            if one.arm == arm and one.state != UNFINISHED:
                by_reason.setdefault((one.state, one.reason), []).append(one.seed)
        for (state, reason), failed in by_reason.items():
            verb = "has" if len(failed) == 1 else "have"
            told = f"{verb} failed" if state == FAILED else f"{'is' if verb == 'has' else 'are'} damaged"
            short_reason = reason if len(reason) <= _REASON else f"{reason[:_REASON]}…"
            because = f": {short_reason.rstrip('.')}" if reason else ""
            said.append(f"{arm}: {_seeds(failed)} {told}{because}.")
        diverged = [seed for seed, cell in study.of(arm).items() if QUALITY not in cell.figures]
        if diverged:
            verb = "has" if len(diverged) == 1 else "have"
            said.append(f"{arm}: {_seeds(diverged)} {verb} ended without finite bits per byte.")
    return said


def _revisions(study: Study) -> list[str]:
    return sorted({one for cell in study.cells for one in cell.texts["revision"].split()})


def _seeds(seeds: Sequence[int | str]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {listed(seeds)}"


def _difference(one: Comparison, found: Estimate) -> str:
    """`+0.003 (paired over 3 seeds, 95% interval …; with the noise of all arms …): no difference shown.`"""
    said = _VERDICTS.get(verdict(one), verdict(one))
    if found.low is None:
        return f"{change(found)} ({said})."
    mean = change(found).partition(" ")[0]
    own = f"paired over {found.seeds} seeds, {_ends(found)}"
    if one.p_holm is not None:
        own += f", {_p(found.p)}"
        if one.p_holm != found.p:
            own += f", after Holm's correction for {one.tests} tests {probability(one.p_holm)}"
    if one.pooled is not None:
        all_ = Estimate(found.by_seed, found.mean, None, one.pooled.low, one.pooled.high, None)
        own += f"; with the noise of all arms {_ends(all_)}"
        if one.p_pooled is not None:
            own += f", {_p(one.pooled.p)}"
            if one.p_pooled != one.pooled.p:
                own += f", corrected {probability(one.p_pooled)}"
    return f"{mean} ({own}): {said}."


def _p(value: float | None) -> str:
    """`p = 0.012`, `p < 0.0001`."""
    shown = probability(value)
    return f"p < {shown[1:]}" if shown.startswith("<") else f"p = {shown}"


def _detected(one: Comparison) -> str:
    """What a test that has shown nothing could have shown."""
    if one.detectable is None or verdict(one) in SHOWN:
        return ""
    return f" The last of these tests finds a true difference of {digits(one.detectable)} with 80% power."


def _relation(found: Estimate, what: str, than: str) -> str:
    """`18.3% fewer parameters than moe`, `as many parameters as moe`; without the arm if it was named."""
    percent = round(100 * found.mean, 1)
    if not percent:
        return f"as many {what}{f' as {than}' if than else ''}"
    return f"{abs(percent):.1f}% {'fewer' if percent < 0 else 'more'} {what}{f' than {than}' if than else ''}"


def _ends(found: Estimate, *, percent: bool = False) -> str:
    """`95% interval −0.4 to +2.8`; empty where there is none."""
    if found.low is None:
        return ""
    shown = percent_change(found) if percent else change(found)
    return f"95% interval {shown.partition('(')[2].rstrip(')')}"
