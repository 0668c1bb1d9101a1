"""Which tasks use wide experts: does mathematics use wider ones than small talk?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.benchmarks.answers import SIGNIFICANT
from evaluation.benchmarks.arms import Arm
from evaluation.benchmarks.costs import cost_of, mean_width
from evaluation.benchmarks.reading import Evaluation
from evaluation.statistics.seeds import OverSeeds, over_seeds

_MATHEMATICS = re.compile(r"math|gsm|arithmetic", re.IGNORECASE)
_SMALL_TALK = re.compile(r"siqa|social_?i?qa|piqa|copa|hellaswag|commonsense_?qa|csqa", re.IGNORECASE)
"""Tasks about everyday situations, in everyday words."""
_ALIKE = 0.01
"""Relative difference of widths below which figures without an interval show nothing to speak of."""


def width_answer(arm: Arm, labels: Mapping[str, str]) -> dict[str, Any] | None:
    """Whether mathematics uses wider experts than small talk; None where all experts have one width.

    Args:
        arm: whose checkpoints were evaluated.
        labels: of the tasks, by name.

    Returns:
        `sentence`, and the figures in it: `widest` and `narrowest` task, and `mathematics` and `small_talk`,
        the mean widths of their tasks, with `over_seeds` of the difference; None where the suite lacks
        either.
    """
    widths = arm.results.widths
    if len(set(widths)) < 2:
        return None
    by_checkpoint = [_widths(one, list(labels)) for one in arm.evaluations]
    shared = [name for name in labels if all(name in found for found in by_checkpoint)]
    if not shared:
        return None
    means = {name: float(np.mean([found[name] for found in by_checkpoint])) for name in shared}
    widest, narrowest = max(shared, key=means.__getitem__), min(shared, key=means.__getitem__)
    found: dict[str, Any] = {
        "widest": {"task": widest, "mean_width": means[widest]},
        "narrowest": {"task": narrowest, "mean_width": means[narrowest]},
        **dict.fromkeys(("mathematics", "small_talk", "over_seeds")),
    }
    extremes = (
        f"In {arm.name} {labels[widest]} uses the widest experts, {means[widest]:.1f} on average, and "
        f"{labels[narrowest]} the narrowest, {means[narrowest]:.1f}"
    )
    if widest == narrowest:
        extremes = f"In {arm.name} {labels[widest]} uses experts of width {means[widest]:.1f} on average"
    extremes += f"; an even use of all groups would be {np.mean(widths):.1f}."
    sums, talk = (_matching(pattern, shared, labels) for pattern in (_MATHEMATICS, _SMALL_TALK))
    if not sums or not talk:
        lacking = " and ".join(
            name for name, have in (("mathematics", sums), ("small talk", talk)) if not have
        )
        return found | {"sentence": f"{extremes} There is no task of {lacking} to compare."}
    pairs = [
        tuple(float(np.mean([one[name] for name in names])) for names in (sums, talk))
        for one in by_checkpoint
    ]
    wide, narrow = (float(np.mean([pair[place] for pair in pairs])) for place in (0, 1))
    several = over_seeds([pair[0] - pair[1] for pair in pairs])
    named = " and ".join(", ".join(labels[name] for name in names) for names in (sums, talk))
    sentence = (
        f"Does mathematics use wider experts than small talk? {_verdict(arm, wide, narrow, several)}: mean "
        f"width {wide:.1f} against {narrow:.1f} ({named}), {_sureness(several)}. {extremes}"
    )
    plain = None if several is None else {"low": several.low, "high": several.high, "seeds": several.seeds}
    return found | {"mathematics": wide, "small_talk": narrow, "over_seeds": plain, "sentence": sentence}


def _verdict(arm: Arm, wide: float, narrow: float, several: OverSeeds | None) -> str:
    if (several is None or several.low is None) and abs(wide - narrow) < _ALIKE * narrow:
        return f"In {arm.name} hardly any difference"
    if several is not None and several.p is not None and several.p >= SIGNIFICANT:
        return f"In {arm.name} no difference is shown"
    return f"In {arm.name} {'yes' if wide > narrow else 'no, narrower ones'}"


def _sureness(several: OverSeeds | None) -> str:
    if several is None:
        return "from one seed, without an interval"
    if several.low is None:
        return f"the same in {several.seeds} seeds"
    ends = f"{several.low:+.1f} to {several.high:+.1f}".replace("-", "\N{MINUS SIGN}")
    return f"a difference of {ends} (95%) over {several.seeds} seeds"


def _matching(pattern: re.Pattern[str], names: Sequence[str], labels: Mapping[str, str]) -> list[str]:
    return [name for name in names if pattern.search(name) or pattern.search(labels[name])]


def _widths(one: Evaluation, tasks: Sequence[str]) -> dict[str, float]:
    found = {}
    for name in tasks:
        cost = cost_of(one, name)
        width = mean_width(cost.group_shares, one.results.widths) if cost else None
        if width is not None:
            found[name] = width
    return found
