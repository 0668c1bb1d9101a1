"""What a comparison comes to, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluation.benchmarks.figures import probability, with_interval

SIGNIFICANT = 0.05


def finding(difference: Mapping[str, Any] | None, higher_is_better: bool, p: float | None) -> str:
    """better, worse, no difference shown, or not tested.

    Args:
        difference: to the baseline, or None.
        higher_is_better: of the metric.
        p: to go by, adjusted or not.
    """
    if difference is None or p is None:
        return "not tested"
    if p >= SIGNIFICANT:
        return "no difference shown"
    return "better" if (difference["difference"] > 0) == higher_is_better else "worse"


def families(comparison: Mapping[str, Any]) -> list[str]:
    """Over which tests Holm's correction was made, a sentence for all arms with the same ones."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, arm in comparison["arms"].items():
        tested = [
            comparison["tasks"][task]["label"]
            for task, facts in arm["tasks"].items()
            if (facts["difference"] or {}).get("p_holm") is not None
        ]
        if tested:
            number = "1 test" if len(tested) == 1 else f"{len(tested)} tests"
            family = f"{number}, the primary metrics of {', '.join(tested)}"
            found.setdefault((arm["baseline"], family), []).append(name)
    return [
        f"{' and '.join(names)} against {base}: p is adjusted by Holm's method over {family}. The macro "
        "average and other metrics are not among them, and each arm is a family of its own."
        for (base, family), names in found.items()
    ]


def answers(comparison: Mapping[str, Any]) -> list[dict[str, str]]:
    """Questions with their answers: better than the baseline? wider experts for mathematics?"""
    found = []
    for name, arm in comparison["arms"].items():
        if arm["baseline"] is not None:
            question = f"Is {name} better than {arm['baseline']}?"
            found.append({"question": question, "answer": _better(comparison, name)})
    for name, arm in comparison["arms"].items():
        if arm["widths_used"] is not None:
            question = f"Which tasks use wide experts in {name}?"
            found.append({"question": question, "answer": arm["widths_used"]["sentence"]})
    return found


def _better(comparison: Mapping[str, Any], name: str) -> str:
    tasks, arm = comparison["tasks"], comparison["arms"][name]
    by_finding: dict[str, list[str]] = {}
    for task, facts in arm["tasks"].items():
        difference = facts["difference"]
        found = finding(difference, tasks[task]["higher_is_better"], (difference or {}).get("p_holm"))
        by_finding.setdefault(found, []).append(tasks[task]["label"])
    said = [f"{what} on {', '.join(by_finding[what])}" for what in ("better", "worse") if what in by_finding]
    shown = len(by_finding.get("no difference shown", []))
    said += [f"no difference shown on {shown} of {len(tasks)} tasks"] if shown else []
    said += [f"not tested on {', '.join(by_finding['not tested'])}"] if "not tested" in by_finding else []
    if not said:
        return f"{name} against {arm['baseline']}: no task was finished."
    sentence = f"{name} against {arm['baseline']}: {'; '.join(said)} (after Holm's correction)."
    macro = (arm["macro"] or {}).get("difference")
    if macro is not None:
        ends = with_interval(macro["difference"], macro["low"], macro["high"], percent=True, signed=True)
        what = finding(macro, True, macro["p"])
        sentence += (
            f" Macro average over {len(comparison['macro_tasks'])} tasks: {ends} points, "
            f"p {probability(macro['p'])}: {what}."
        )
    basis = {one["basis"] for facts in arm["tasks"].values() if (one := facts["difference"]) is not None}
    if "items" in basis:
        sentence += " This is about these two checkpoints and other items, not about other seeds."
    elif "seeds" in basis:
        seeds = next(
            len(one["by_seed"]) for facts in arm["tasks"].values() if (one := facts["difference"]) is not None
        )
        sentence += f" This is about other seeds on these items, from {seeds} seeds."
    return sentence
