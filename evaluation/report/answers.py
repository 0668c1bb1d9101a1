"""The questions a newcomer asks of a run, answered in sentences with figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evaluation.report.facts import group_labels, last_load
from evaluation.report.ranks import RECORDED, RankBalance
from evaluation.report.who import Analysis
from evaluation.run_data import RunData

EVEN, NEARLY = 1.1, 1.3
"""Largest over mean of the ranks' work up to which it is called balanced, and nearly balanced."""
_LISTED = 12
"""Idle experts that a sentence names, at most."""
_NO_ANALYSIS = "Unknown: no checkpoint of this run was analysed (mohge-tokens, or tokens=N here)."


def answers(
    run: RunData, facts: dict[str, Any], balance: RankBalance | None, analysis: Analysis | None
) -> list[dict[str, str]]:
    """`question` and `answer` of each; a dense run has one sentence for all."""
    if not run.config.experts.num_experts:
        dense = "This model is dense: every token passes through the same network, nothing is routed."
        return [{"question": "Where do tokens go?", "answer": dense}]
    asked = {
        "Which experts are idle?": _idle(run, facts),
        "Which group handles numbers?": _numbers(run, analysis),
        "Are ranks balanced?": _balance(run, balance),
        "Do rarer tokens go to wider experts?": _direction(run, analysis, "rarity_correlation", "Rarer"),
        "Do harder tokens go to wider experts?": _direction(run, analysis, "loss_correlation", "Harder"),
    }
    return [{"question": question, "answer": answer} for question, answer in asked.items()]


def _idle(run: RunData, facts: dict[str, Any]) -> str:
    idle, load_LE = facts["idle_experts"], last_load(run)
    if load_LE is None:
        return "Unknown: no validation with counts of experts was recorded."
    layers, experts = load_LE.shape
    whole = f"of {layers * experts} ({layers} layers x {experts}) in the last validation"
    if idle:
        named = [f"layer {one['layer']} expert {one['expert']} (width {one['width']})" for one in idle]
        more = f" and {len(idle) - _LISTED} more" if len(idle) > _LISTED else ""
        return f"Idle: {len(idle)} {whole}: {', '.join(named[:_LISTED])}{more}."
    layer, expert = divmod(int(load_LE.argmin()), experts)
    width = run.config.experts.widths[expert // run.config.experts.per_group]
    return (
        f"None {whole}. The least used, layer {layer} expert {expert} (width {width}), computed "
        f"{load_LE[layer, expert]:.2g} times the mean of its layer."
    )


def _numbers(run: RunData, analysis: Analysis | None) -> str:
    if run.config.experts.num_groups < 2:
        return "There is one group only, which handles all tokens."
    if analysis is None:
        return _NO_ANALYSIS
    numbers = analysis.part("number")
    if numbers is None:
        return "No token of the text that was analysed is a number."
    labels, shares, overall = group_labels(analysis.widths), numbers["shares"], analysis.all_shares()
    most = _largest(shares)
    above = _largest([share - mean for share, mean in zip(shares, overall, strict=True)])
    first = f"Width {labels[most]} computes the largest share of the rows of numbers, {shares[most]:.1%}"
    if above == most:
        rest = f", against {overall[most]:.1%} of the rows of all text: the group most above its average."
    else:
        rest = (
            f" ({overall[most]:.1%} of all text); most above its average is width {labels[above]}, with "
            f"{shares[above]:.1%} against {overall[above]:.1%}."
        )
    return first + rest + f" ({numbers['tokens']:,} tokens are numbers.)"


def _balance(run: RunData, balance: RankBalance | None) -> str:
    if balance is None:
        watched = run.config.callbacks.routing is not None
        return f"Unknown: {'the remarks say why' if watched else 'the routing of steps was not recorded'}."
    value = balance.max_over_mean[balance.main]
    verdict = "Yes" if value <= EVEN else "Nearly" if value <= NEARLY else "No"
    if balance.main == RECORDED:
        return (
            f"{verdict}: in the last tenth of the steps the busiest of {balance.ranks} ranks computed "
            f"{value:.2f} times the mean expert FLOPs (1 is even)."
        )
    others = [
        f"{name} {number:.2f}" for name, number in balance.max_over_mean.items() if name != balance.main
    ]
    return (
        f"{verdict}: this run had one process; on {balance.ranks} ranks the busiest would have computed "
        f"{value:.2f} times the mean expert FLOPs per step (1 is even) with placement {balance.main}; "
        f"{', '.join(others)}."
    )


def _direction(run: RunData, analysis: Analysis | None, name: str, which: str) -> str:
    if len(set(run.config.experts.widths)) < 2:
        return "All experts have one width."
    if analysis is None:
        return _NO_ANALYSIS
    correlation = analysis.overall[name]
    if correlation is None:
        return "Unknown: the text that was analysed is too short or too uniform for an interval."
    rho, low, high = (correlation[key] for key in ("rho", "low", "high"))
    figures = f"rho = {rho:.3f} ({analysis.data['level']:.0%} interval {low:.3f} to {high:.3f})"
    if low > 0:
        return f"Yes. {which} tokens go to wider experts: {figures}."
    if high < 0:
        return f"No, the other way round. {which} tokens go to narrower experts: {figures}."
    return f"No clear direction: {figures} holds 0."


def _largest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)
