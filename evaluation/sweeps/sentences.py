"""What a sweep found, in plain sentences, and what a reader must know beside it."""

from __future__ import annotations

from itertools import combinations

from evaluation.benchmarks.figures import digits, probability
from evaluation.sweeps.analysis import Analysis, Comparison, Levels, compare
from evaluation.sweeps.pairing import Estimate, not_comparable, of_arm, same_training
from evaluation.sweeps.study import Study
from evaluation.sweeps.wording import BITS, change, pairs_text, percent_change, short, verdict

_REASON = 160
"""Characters of the reason of a failure that a remark has room for."""
_VERDICTS = {"better": "lower, so better", "worse": "higher, so worse", "not shown": "no difference shown"}


def summary(study: Study) -> str:
    """How much of the sweep is finished, with how many tokens, and of which revision."""
    plan = study.plan
    tokens = sorted({cell.figures["tokens"] for cell in study.cells})
    each = f"{tokens[0]:,.0f}" if len(tokens) == 1 else f"{tokens[0]:,.0f} to {tokens[-1]:,.0f}"
    revisions = sorted({cell.texts["revision"] for cell in study.cells if cell.texts["revision"]})
    at = f", at revision{'s' * (len(revisions) > 1)} {', '.join(revisions)}" if revisions else ""
    return (
        f"{plan.name}: {len(study.cells)} of {len(plan.cells)} cells are finished, of {len(plan.arms)} arms "
        f"with seeds {', '.join(map(str, plan.seeds))}; {each} training tokens each{at}."
    )


def finding(study: Study, first: str, second: str) -> str:
    """Size, measured cost and quality of one arm against another, with what the seeds could have shown."""
    name = f"{first} less {second}"
    (one,) = compare(study, {name: [(first, second)]})
    sentence = (
        f"{first} has {_relation(one.costs.get('total_parameters'))} parameters {_than(study, first, second)}"
    )
    active = one.costs.get("active_measured")
    if active is not None:
        ends = _ends(active, percent=True)
        sentence += f"; a token uses {_relation(active)} of them{f' ({ends})' if ends else ''}, as measured"
    return f"{sentence}. {quality_sentence(one, name)}"


def quality_sentence(one: Comparison, what: str) -> str:
    """The difference in bits per byte, with interval, p, seeds, verdict and the smallest detectable."""
    found = one.quality
    if found is None:
        return f"Quality of {what} cannot be told: no seed of both is finished on the same data."
    said = _VERDICTS.get(verdict(one, one.p_holm), verdict(one, one.p_holm))
    if found.low is None:
        return f"Bits per byte, {what}: {change(found)} ({said})."
    p = probability(found.p)
    if one.p_holm is not None and one.p_holm != found.p:
        p += f", after Holm's correction {probability(one.p_holm)}"
    sentence = f"Bits per byte, {what}: {change(found).partition(' ')[0]} ({_ends(found)}; p = {p}; paired "
    sentence += f"over {found.seeds} seeds): {said}."
    if one.detectable is not None:
        sentence += f" These seeds would show a true difference of {digits(one.detectable)} with 80% power."
    return sentence


def power_sentence(analysis: Analysis) -> str:
    """The smallest difference that the sweep could show."""
    found = analysis.power
    if found is None:
        return "With fewer than two seeds the sweep can show no difference."
    return (
        f"Paired differences to {analysis.baseline} deviate by {digits(found.deviation)} {BITS} between "
        f"seeds (all arms together), so that {found.seeds} seeds show a true difference of "
        f"{digits(found.detectable)} with 80% power, and miss smaller ones more often."
    )


def family_sentence(family: Levels) -> str:
    """What the largest value of a key did to measured active parameters and to quality."""
    (lowest, _), (highest, _) = family.values[0], family.values[-1]
    top = family.comparisons[-1]
    active = top.costs.get("active_measured")
    told = f"measured active parameters changed by {percent_change(active)}, and " if active else ""
    return (
        f"From {family.key}={lowest:g} to {highest:g} {told}{BITS} changed by {change(top.quality)} "
        f"(p = {probability(top.quality.p if top.quality else None)}; in brackets 95% intervals)."
    )


def answers(study: Study, analysis: Analysis) -> list[dict[str, str]]:
    """`question` and `answer` of each: what the sweep was made to tell."""
    said = {"What can these seeds show?": power_sentence(analysis)}
    for one in analysis.effects:
        said[f"What does {one.name} do?"] = quality_sentence(one, pairs_text(one.pairs))
    said |= {f"What does {family.key} do?": family_sentence(family) for family in analysis.families}
    found = [arm.beside_baseline for arm in analysis.arms.values() if arm.beside_baseline is not None]
    verdicts = {one.name: verdict(one, one.p_holm) for one in found}
    better, worse = (
        [name for name, given in verdicts.items() if given == wanted] for wanted in ("better", "worse")
    )
    said[f"Which arms differ from {analysis.baseline}?"] = (
        f"After Holm's correction better: {', '.join(better) or 'none'}; worse: "
        f"{', '.join(worse) or 'none'}; of the {len(found) - len(better) - len(worse)} others these seeds do "
        "not tell."
    )
    return [{"question": question, "answer": answer} for question, answer in said.items()]


def remarks(study: Study, analysis: Analysis) -> list[str]:
    """Cells that lack, pairs that are none, arms that are one training, revisions that differ."""
    said = []
    for one in study.unfinished:
        reason = one.reason if len(one.reason) <= _REASON else f"{one.reason[:_REASON]}…"
        said.append(f"{one.arm} seed {one.seed} is {one.state}{f': {reason}' if reason else ''}.")
    for arm in study.plan.arms:
        have, wanted = len(study.of(arm)), sum(cell.arm == arm for cell in study.plan.cells)
        if 0 < have < wanted:
            said.append(f"{arm}: figures are of {have} of {wanted} seeds.")
        elif not have:
            said.append(f"{arm} is left out: none of its cells is finished.")
    if study.plan.baseline not in analysis.arms:
        said.append(
            f"The baseline {study.plan.baseline} has no finished cell: there are no differences to it."
        )
    for first, second in combinations(study.arms, 2):
        if same_training(study, first, second):
            said.append(
                f"{first} and {second} are the same training: their difference is zero by definition."
            )
    pairs = {(arm, study.plan.baseline) for arm in study.arms}
    pairs |= {pair for some in study.plan.contrasts.values() for pair in some}
    for first, second in sorted(pairs):
        if seeds := not_comparable(study, first, second):
            listed = ", ".join(map(str, seeds))
            said.append(
                f"{first} and {second} are not paired at seed{'s' * (len(seeds) > 1)} {listed}: they read "
                "other data, another order of it, or another number of tokens."
            )
    revisions = sorted({cell.texts["revision"] for cell in study.cells if cell.texts["revision"]})
    if len(revisions) > 1:
        said.append(f"Cells were trained at several revisions: {', '.join(revisions)}.")
    if any(revision.endswith("+") for revision in revisions):
        said.append("A + after a revision: the source had changes that were not committed.")
    return said


def _relation(found: Estimate | None) -> str:
    """`18.3% fewer`, `as many`."""
    if found is None:
        return "an unknown number of"
    percent = 100 * found.mean
    return "as many" if abs(percent) < 0.05 else f"{abs(percent):.1f}% {'fewer' if percent < 0 else 'more'}"


def _than(study: Study, first: str, second: str) -> str:
    sizes = [of_arm(study, arm, "total_parameters") for arm in (first, second)]
    mine, theirs = (short(one.mean if one else None) for one in sizes)
    return f"than {second} ({mine} against {theirs})" if mine != theirs else f"as {second} ({mine})"


def _ends(found: Estimate, *, percent: bool = False) -> str:
    """`95% interval −0.4 to +2.8`; empty where there is none."""
    if found.low is None:
        return ""
    shown = percent_change(found) if percent else change(found)
    return f"95% interval {shown.partition('(')[2].rstrip(')')}"
